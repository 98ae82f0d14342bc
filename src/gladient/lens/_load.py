"""A language model and its tokenizer, from a folder or a hub, and one reading of a text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gladient._optional import require
from gladient.lens._capture import capture, gated_layers
from gladient.lens.page import ModelView

__all__ = ["Loaded", "load_pretrained", "look"]

_NEEDS = {"needed_for": "looking into a pretrained model", "install": "pip install 'gladient[lens]'"}


@dataclass(frozen=True)
class Loaded:
    """A model, and how text becomes its input.

    Attributes:
        name: of the model.
        module: takes `input_ids` [1, T].
        encode: the text's tokens, [1, T], and each one as text.
        facts: one line about it.
        text: what it reads if nothing else is given.
        asked: where in the tokens a page is best opened, [1, T]; the last token if not given.
    """

    name: str
    module: nn.Module
    encode: Callable[[str], tuple[Tensor, list[str]]]
    facts: str = ""
    text: str | None = None
    asked: Callable[[Tensor], Tensor] | None = None


def load_pretrained(name: str) -> Loaded:
    """A causal language model of transformers, in eval mode.

    Args:
        name: a local folder, or a name on the hub.

    Raises:
        ImportError: if transformers is absent.
        ValueError: if there is no such model, in one line.
    """
    if Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser())
    elif Path(name).exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ValueError(f"{name} is no folder with a model; give a local folder, owner/name on the hub, or demo")
    transformers = require("transformers", **_NEEDS)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        module = transformers.AutoModelForCausalLM.from_pretrained(name)
    except Exception as error:  # whatever the library raises for a broken or absent model
        reason = " ".join(str(error).split())[:200]
        where = "is broken or incomplete" if Path(name).is_dir() else "was not found, or the hub cannot be reached"
        raise ValueError(
            f"the model {name} {where} ({type(error).__name__}: {reason}); give a local folder with the model and its "
            "tokenizer, owner/name on the hub, or demo"
        ) from None

    def encode(text: str) -> tuple[Tensor, list[str]]:
        ids = torch.tensor([tokenizer(text)["input_ids"]], dtype=torch.long)
        return ids, [tokenizer.decode([token]) for token in ids[0].tolist()]

    return Loaded(Path(name).name if Path(name).is_dir() else name, module.eval(), encode)


def look(
    loaded: Loaded, text: str | None, *, layers: Sequence[int] | None = None, max_tokens: int = 2048, max_bytes: int
) -> ModelView:
    """One reading of a text, with the lens on.

    Args:
        loaded: the model.
        text: what it reads; its own text if None.
        layers: numbers of the layers to look at; all if None.
        max_tokens: the longest text.
        max_bytes: the most memory that records keep, and that one request for weights takes.

    Raises:
        ValueError: if the text is empty or too long, the model has no gated layer, or a layer does not exist.
    """
    gated_layers(loaded.module)
    ids, tokens = loaded.encode(loaded.text or "" if text is None else text)
    if not tokens:
        raise ValueError("the text has no tokens; give at least one word")
    if len(tokens) > max_tokens:
        raise ValueError(
            f"the text has {len(tokens):,} tokens, more than {max_tokens:,}: one head's weights would take "
            f"{32 * len(tokens) ** 2 / 2**20:,.0f} MiB; shorten it, or raise --max-tokens"
        )
    with torch.no_grad(), capture(loaded.module, layers=layers, max_bytes=max_bytes) as trace:
        loaded.module(input_ids=ids)
    places = [] if loaded.asked is None else loaded.asked(ids)[0].nonzero()[:, 0].tolist()
    records = [record for record in trace.records if record.call == 0]
    return ModelView(loaded.name, tokens, records, loaded.facts, places[-1] if places else None)
