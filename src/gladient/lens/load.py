"""A language model and its tokenizer, from a folder or a hub, and one reading of a text."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from gladient._optional import require
from gladient.lens.bounds import BoundsError, in_child, in_memory
from gladient.lens.capturing import capture
from gladient.lens.folder import check_folder
from gladient.lens.layers import gated_layers
from gladient.lens.names import GIVE, find_folder, require_on_hub
from gladient.lens.page import ModelView, PageLayer, keep
from gladient.lens.records import Record

__all__ = ["Loaded", "load_pretrained", "look", "quiet_transformers", "require_transformers"]

_SAVE = "put its files beside the model's, as tokenizer.save_pretrained(FOLDER) does"
_NEEDS = {"needed_for": "looking into a pretrained model", "install": "pip install 'gladient[lens]'"}

_NEXT = 5  # predictions to show
_MOST_TOKENS = 2**16  # whose text is asked for; more are refused by --max-tokens, or by memory
_PER_BYTE = 8  # numbers that a byte of a file may hold at most, quantised


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
        words: the text of each of some tokens; without it a page has no predictions.
    """

    name: str
    module: nn.Module
    encode: Callable[[str], tuple[Tensor, list[str]]]
    facts: str = ""
    text: str | None = None
    asked: Callable[[Tensor], Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    words: Callable[[list[int]], list[str]] | None = None


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
    logging.set_verbosity(sys.maxsize)  # what it logs as errors it raises too
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(name: str) -> Loaded:
    """A causal language model of transformers, in eval mode; code that lies beside a model is never run.

    Its tokenizer, and the sizes of its config, are tried in a process of their own first: see `in_child`.

    Args:
        name: a local folder, or a name on the hub.

    Raises:
        ImportError: if transformers is absent.
        ValueError: if there is no such model, it has no tokenizer, or it needs code of its own; in one line.
    """
    folder = find_folder(name)
    name = name if folder is None else str(folder)
    size = None if folder is None else check_folder(folder)
    transformers = require_transformers()
    if folder is None:
        require_on_hub(name)
    where = "was not found, or the hub cannot be reached" if folder is None else "is broken or incomplete"
    with quiet_transformers(), in_memory(size or 0):
        _try_config(name, where, size)
        tokenizer = Words(name)
        module, found = _load_model(transformers.AutoModelForCausalLM, name, where)
    _check_weights(found, name)
    rows = module.get_input_embeddings().weight.shape[0]

    def encode(text: str) -> tuple[Tensor, list[str]]:
        ids, words = tokenizer.read(text)
        wrong = next((place for place, token in enumerate(ids) if not 0 <= token < rows), None)
        if wrong is not None:
            raise ValueError(
                f"the tokenizer of {name} gives {words[wrong]!r} the number {ids[wrong]}, but the model knows {rows} "
                f"tokens: they do not belong together; {_SAVE}"
            )
        return torch.tensor([ids], dtype=torch.long), words

    shown = name if folder is None else folder.name
    return Loaded(shown, module.eval(), encode, options={"use_cache": False}, words=tokenizer.words)


class Words:
    """A model's tokenizer, each question to which is answered in a process of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        if not self._ask(lambda tokenizer: set(tokenizer.get_vocab()) > set(tokenizer.all_special_tokens)):
            raise ValueError(f"the model {name} has no tokenizer: its vocabulary is empty; {_SAVE}")

    def read(self, text: str) -> tuple[list[int], list[str]]:
        """The text's tokens, and each one as text."""

        def read(tokenizer: Any) -> Any:
            ids = tokenizer(text)["input_ids"]
            return ids, [tokenizer.decode([token]) for token in ids[:_MOST_TOKENS]]

        ids, words = self._ask(read)
        return ids, words + [""] * (len(ids) - len(words))

    def words(self, ids: list[int]) -> list[str]:
        """Each token as text."""
        found: list[str] = self._ask(lambda tokenizer: [tokenizer.decode([token]) for token in ids])
        return found

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        kind = require_transformers().AutoTokenizer
        try:
            return in_child(lambda: question(kind.from_pretrained(self._name, trust_remote_code=False)))
        except BoundsError as error:
            raise _refusal(self._name, "has no tokenizer that can be read", str(error), _SAVE) from None


def _check_weights(found: dict[str, Any], name: str) -> None:
    """Weights that are absent or of another shape would be random."""
    wrong = sorted(found["missing_keys"]) + sorted(str(key[0]) for key in found["mismatched_keys"])
    if wrong:
        raise ValueError(
            f"the model {name} is incomplete: {len(wrong)} of its weights are absent or of another shape, {wrong[0]} "
            f"among them; {GIVE}"
        )


def _try_config(name: str, wrong: str, size: int | None) -> None:
    """Refuses a config that describes no model, or far more than its files hold, before that much is made."""
    transformers = require_transformers()
    _ = transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast  # imported once, before the children are

    def count() -> int:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        parts = [config, *(getattr(config, part, None) for part in getattr(config, "sub_configs", ()))]
        if any("/" in str(getattr(part, "_attn_implementation", "")) for part in parts):
            raise ValueError("trust_remote_code")  # attention from a repository is code, which would be fetched and run
        with torch.device("meta"):
            module = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return sum(parameter.numel() for parameter in module.parameters())

    try:
        numbers = in_child(count)
    except BoundsError as error:
        raise _refusal(name, wrong, str(error), GIVE) from None
    if size is not None and numbers > _PER_BYTE * size:
        raise ValueError(
            f"the config of {name} describes {numbers:.3g} numbers, its files hold {size:.3g} bytes: they do not "
            f"belong together; {GIVE}"
        )


def _load_model(kind: Any, name: str, wrong: str) -> tuple[Any, dict[str, Any]]:
    """The model, and which of its weights were absent or of another shape: `_check_weights` tells of both."""
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        found: tuple[Any, dict[str, Any]] = kind.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # whatever the library raises for a broken or absent model
        raise _refusal(name, wrong, f"{type(error).__name__}: {error}", GIVE) from None
    return found


def _refusal(name: str, wrong: str, said: str, cure: str) -> ValueError:
    if "trust_remote_code" in said:
        return ValueError(
            f"the model {name} needs code that lies beside it, which is never run here; if you trust that code, "
            "load the model in Python and look with gladient.lens.capture"
        )
    return ValueError(f"the model {name} {wrong} ({shorten(said, 200, placeholder=' …')}); {cure}")


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
    with torch.no_grad(), quiet_transformers(), in_memory(0), capture(loaded.module, **options) as trace:
        output = _run(loaded, ids)
    places = [] if loaded.asked is None else loaded.asked(ids)[0].nonzero()[:, 0].tolist()
    position = places[-1] if places else None
    predictions = _predict(getattr(output, "logits", output), loaded.words)
    return ModelView(loaded.name, tokens, kept, loaded.facts, position, trace.ungated, predictions)


def _run(loaded: Loaded, ids: Tensor) -> Any:
    try:
        return loaded.module(input_ids=ids, **loaded.options)
    except (ValueError, RuntimeError, MemoryError):
        raise  # said as they are
    except Exception as error:  # whatever a model raises whose config says what cannot be
        reason = f"{type(error).__name__}: {shorten(str(error), 200, placeholder=' …')}"
        raise ValueError(f"the model {loaded.name} failed while it read the text ({reason}); {GIVE}") from None


def _predict(logits: Any, words: Callable[[list[int]], list[str]] | None) -> list[list[tuple[str, float]]] | None:
    """The likeliest next tokens after each of the first text's; None without logits."""
    if words is None or not isinstance(logits, Tensor) or logits.ndim != 3:
        return None
    best = logits[0].float().softmax(1).topk(min(_NEXT, logits.shape[2]))
    each = sorted(set(best.indices.flatten().tolist()))
    known = dict(zip(each, words(each), strict=True))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[(known[token], round(p, 4)) for token, p in zip(*pair, strict=True)] for pair in pairs]
