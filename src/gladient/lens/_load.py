"""A language model and its tokenizer, from a folder or a hub, and one reading of a text."""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gladient._optional import require
from gladient.lens._capture import capture
from gladient.lens._layers import gated_layers
from gladient.lens._record import Record
from gladient.lens.page import ModelView, PageLayer, keep

__all__ = ["Loaded", "load_pretrained", "look", "quiet_transformers", "require_transformers"]

_GIVE = "give a local folder with the model and its tokenizer, owner/name on the hub, or demo"
_SAVE = "put its files beside the model's, as tokenizer.save_pretrained(FOLDER) does"
_NEEDS = {"needed_for": "looking into a pretrained model", "install": "pip install 'gladient[lens]'"}

_NEXT = 5  # predictions to show


@dataclass(frozen=True)
class Loaded:
    """A model, and how text becomes its input.

    Attributes:
        name: the model's name.
        module: takes `input_ids` [1, T].
        encode: the text's tokens, [1, T], and each one as text.
        facts: one line about it.
        text: what it reads if nothing else is given.
        asked: where in the tokens a page is best opened, [1, T]; the last token if not given.
        options: what every call of the module is given besides.
        word: a token's text; without it a page has no predictions.
    """

    name: str
    module: nn.Module
    encode: Callable[[str], tuple[Tensor, list[str]]]
    facts: str = ""
    text: str | None = None
    asked: Callable[[Tensor], Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    word: Callable[[int], str] | None = None


def require_transformers() -> Any:
    """The package, or an ImportError that says what to install."""
    return require("transformers", **_NEEDS)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """While it lasts, transformers shows neither bars nor warnings, if it was imported before."""
    logging = sys.modules.get("transformers.utils.logging")
    if logging is None:
        yield
        return
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(name: str) -> Loaded:
    """A causal language model of transformers, in eval mode; code that lies beside a model is never run.

    Args:
        name: a local folder, or a name on the hub.

    Raises:
        ImportError: if transformers is absent.
        ValueError: if there is no such model, it has no tokenizer, or it needs code of its own; in one line.
    """
    if Path(name).expanduser().is_dir():
        name = str(Path(name).expanduser())
    elif Path(name).exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ValueError(f"{name} is not a folder with a model; give a local folder, owner/name on the hub, or demo")
    _check_folder(Path(name))
    transformers = require_transformers()
    where = "is broken or incomplete" if Path(name).is_dir() else "was not found, or the hub cannot be reached"
    with quiet_transformers():
        _part(transformers.AutoConfig, name, where)
        tokenizer = _part(transformers.AutoTokenizer, name, "has no tokenizer that can be read")
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            raise ValueError(f"the model {name} has no tokenizer: its vocabulary is empty; {_SAVE}")
        module = _part(transformers.AutoModelForCausalLM, name, where)

    def encode(text: str) -> tuple[Tensor, list[str]]:
        ids = torch.tensor([tokenizer(text)["input_ids"]], dtype=torch.long)
        return ids, [word(token) for token in ids[0].tolist()]

    def word(token: int) -> str:
        return tokenizer.decode([token])

    shown = Path(name).name if Path(name).is_dir() else name
    return Loaded(shown, module.eval(), encode, options={"use_cache": False}, word=word)


def _check_folder(folder: Path) -> None:
    """Refuses what a folder of a model does not hold; a name on the hub is no folder."""
    if (folder / "adapter_config.json").is_file():
        base = _read_json(folder / "adapter_config.json").get("base_model_name_or_path", "its base model")
        raise ValueError(
            f"{folder} holds an adapter (LoRA and the like) of {base}, not a model; merge the two with peft: "
            "AutoPeftModelForCausalLM.from_pretrained(FOLDER).merge_and_unload().save_pretrained(MERGED), save the "
            "base model's tokenizer into MERGED too, and give that"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(kind: Any, name: str, wrong: str) -> Any:
    try:
        return kind.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever the library raises for a broken or absent model
        reason = " ".join(str(error).split())[:200]
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"the model {name} needs code that lies beside it, which is never run here; if you trust that code, "
                "load the model in Python and look with gladient.lens.capture"
            ) from None
        cure = _SAVE if kind.__name__ == "AutoTokenizer" else _GIVE
        raise ValueError(f"the model {name} {wrong} ({type(error).__name__}: {reason}); {cure}") from None


def look(
    loaded: Loaded,
    text: str | None,
    *,
    layers: Sequence[int] | None = None,
    heads: int = 32,
    max_tokens: int = 2048,
    max_bytes: int,
    on_layer: Callable[[int, int], None] = lambda done, of: None,
) -> ModelView:
    """One reading of a text, with the lens on: each layer is proved, and made small for the page, as soon as it ran.

    Args:
        loaded: the model.
        text: what it reads; its own text if None.
        layers: numbers of the layers to look at; all if None.
        heads: the most heads of a layer to keep.
        max_tokens: the longest text.
        max_bytes: the most memory that a record keeps, and that one request for weights takes.
        on_layer: told how many layers are done, and how many there are.

    Raises:
        ValueError: if the text is empty or too long, the model has no gated layer, or a layer does not exist.
    """
    every = len(layers or gated_layers(loaded.module))
    ids, tokens = loaded.encode(loaded.text or "" if text is None else text)
    if not tokens:
        raise ValueError("the text has no tokens; give at least one word")
    if len(tokens) > max_tokens:
        raise ValueError(
            f"the text has {len(tokens):,} tokens, more than {max_tokens:,}: one head's weights would take "
            f"{32 * len(tokens) ** 2 / 2**20:,.0f} MiB; shorten it, or raise --max-tokens"
        )
    kept: list[PageLayer] = []

    def on_record(record: Record) -> None:
        if record.call == 0:
            kept.append(keep(record, heads=heads))
            on_layer(len(kept), every)

    options: dict[str, Any] = {"layers": layers, "max_bytes": max_bytes, "on_record": on_record}
    with torch.no_grad(), quiet_transformers(), capture(loaded.module, **options) as trace:
        output = loaded.module(input_ids=ids, **loaded.options)
    places = [] if loaded.asked is None else loaded.asked(ids)[0].nonzero()[:, 0].tolist()
    position = places[-1] if places else None
    predictions = _predict(getattr(output, "logits", output), loaded.word)
    return ModelView(loaded.name, tokens, kept, loaded.facts, position, trace.ungated, predictions)


def _predict(logits: Any, word: Callable[[int], str] | None) -> list[list[tuple[str, float]]] | None:
    """The likeliest next tokens after each of the first text's; None without logits."""
    if word is None or not isinstance(logits, Tensor) or logits.ndim != 3:
        return None
    best = logits[0].float().softmax(1).topk(min(_NEXT, logits.shape[2]))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[(word(token), round(p, 4)) for token, p in zip(*pair, strict=True)] for pair in pairs]
