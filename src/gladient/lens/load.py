"""A model and its tokenizer, from a folder or a hub, and one reading of a text or of other inputs."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient._optional import require
from gladient.lens.bounds import BoundsError, in_child, in_memory
from gladient.lens.capturing import capture
from gladient.lens.folder import check_folder
from gladient.lens.layers import gated_layers
from gladient.lens.names import GIVE, find_folder, require_on_hub
from gladient.lens.page import ModelView, PageLayer, keep
from gladient.lens.records import Record
from gladient.lens.words import Words

__all__ = ["Loaded", "load_pretrained", "look", "quiet_transformers", "require_transformers"]

_SAVE = "put its files beside the model's, as tokenizer.save_pretrained(FOLDER) does"
_NEEDS = {"needed_for": "looking into a pretrained model", "install": "pip install 'gladient[lens]'"}

_NEXT = 5  # predictions to show
_PER_BYTE = 8  # numbers that a byte of a file may hold at most, quantised


@dataclass(frozen=True)
class Loaded:
    """A model, and how text becomes its input.

    Attributes:
        name: the model's name.
        module: takes `input_ids` [1, T], or inputs that are given by their names.
        encode: the text's tokens, [1, T], and each one as text.
        facts: one line about it.
        text: what it reads if nothing else is given.
        asked: where in the tokens a page is best opened, [1, T]; the last token if not given.
        options: what every call of the module is given besides.
        words: the text of each of some tokens, of a language model; without it a page has no predictions.
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


def load_pretrained(name: str, *, reads_text: bool = True) -> Loaded:
    """A model of transformers, in eval mode, of the class that it was saved as; code that lies beside it is never run.

    Its tokenizer, and the sizes of its config, are tried in a process of their own first: see `in_child`.

    Args:
        name: a local folder, or a name on the hub.
        reads_text: whether it needs a tokenizer; without, it is given other inputs.

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
    words = Words(name)
    with quiet_transformers(), in_memory(size or 0):
        kind = getattr(transformers, _try_config(name, where, size))
        if reads_text:
            _try_words(words, name)
        module, found = _load_model(kind, name, where)
    _check_weights(found, name)

    def encode(text: str) -> tuple[Tensor, list[str]]:
        if "input_ids" not in inspect.signature(module.forward).parameters:
            raise ValueError(f"{name} ({kind.__name__}) reads no text; {_asks(module)}")
        ids, shown = _ask(words, name, lambda: words.read(text))
        rows = module.get_input_embeddings().weight.shape[0]
        wrong = next((place for place, token in enumerate(ids) if not 0 <= token < rows), None)
        if wrong is not None:
            raise ValueError(
                f"the tokenizer of {name} gives {shown[wrong]!r} the number {ids[wrong]}, but the model knows {rows} "
                f"tokens: they do not belong together; {_SAVE}"
            )
        return torch.tensor([ids], dtype=torch.long), shown

    taken = inspect.signature(module.forward).parameters.values()
    speaks = reads_text and module.get_output_embeddings() is not None
    cached = any(each.name == "use_cache" or each.kind is each.VAR_KEYWORD for each in taken)
    return Loaded(
        name if folder is None else folder.name,
        module.eval(),
        encode,
        options={"use_cache": False} if cached else {},
        words=words.words if speaks else None,
    )


def _asks(module: nn.Module) -> str:
    """How its inputs are given."""
    names = [
        each.name for each in inspect.signature(module.forward).parameters.values() if each.kind is not each.VAR_KEYWORD
    ]
    return f"give its inputs with --inputs FILE.npz, arrays by their names ({', '.join(names)})"


def _try_words(words: Words, name: str) -> None:
    if _ask(words, name, words.is_empty):
        raise ValueError(f"the model {name} has no tokenizer: its vocabulary is empty; {_SAVE}")


def _ask(words: Words, name: str, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except BoundsError as error:
        raise _refusal(name, "has no tokenizer that can be read", str(error), _SAVE) from None


def _check_weights(found: dict[str, Any], name: str) -> None:
    """Weights that are absent or of another shape would be random."""
    wrong = sorted(found["missing_keys"]) + sorted(str(key[0]) for key in found["mismatched_keys"])
    if wrong:
        raise ValueError(
            f"the model {name} is incomplete: {len(wrong)} of its weights are absent or of another shape, {wrong[0]} "
            f"among them; {GIVE}"
        )


def _try_config(name: str, wrong: str, size: int | None) -> str:
    """The name of its class; refuses a config that describes far more than its files hold before that much is made."""
    transformers = require_transformers()
    _ = transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast  # imported once, before the children are

    def count() -> tuple[int, str]:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        parts = [config, *(getattr(config, part, None) for part in getattr(config, "sub_configs", ()))]
        if any("/" in str(getattr(part, "_attn_implementation", "")) for part in parts):
            raise ValueError("trust_remote_code")  # attention from a repository is code, which would be fetched and run
        kind = _kind(config)
        with torch.device("meta"):
            auto = kind is transformers.AutoModelForCausalLM
            module = kind.from_config(config, trust_remote_code=False) if auto else kind._from_config(config)
        return sum(parameter.numel() for parameter in module.parameters()), kind.__name__

    try:
        numbers, kind = in_child(count)
    except BoundsError as error:
        raise _refusal(name, wrong, str(error), GIVE) from None
    if size is not None and numbers > _PER_BYTE * size:
        raise ValueError(
            f"the config of {name} describes {numbers:.3g} numbers, its files hold {size:.3g} bytes: they do not "
            f"belong together; {GIVE}"
        )
    found: str = kind
    return found


def _kind(config: Any) -> Any:
    """The class that the weights were saved from, or that of language models."""
    transformers = require_transformers()
    named = getattr(transformers, (config.architectures or [""])[0], None)
    known = isinstance(named, type) and issubclass(named, transformers.PreTrainedModel)
    return named if known else transformers.AutoModelForCausalLM


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
    inputs: Mapping[str, Tensor] | None = None,
    layers: Sequence[int] | None = None,
    heads: int = 32,
    max_tokens: int = 2048,
    max_bytes: int,
    on_layer: Callable[[int, int], None] = lambda done, of: None,
    change: AbstractContextManager[None] | None = None,
    label: str = "",
    like: ModelView | None = None,
    outputs: bool = False,
) -> ModelView:
    """One reading of a text, with the lens on: each layer is proved, and made small for the page, as soon as it ran.

    Args:
        loaded: the model.
        text: what it reads; its own text if None.
        inputs: what the model is given instead of a text, by the names that it takes.
        layers: numbers of the layers to look at; all if None.
        heads: the most heads of a layer to keep.
        max_tokens: the longest text.
        max_bytes: the most memory that a record keeps, and that one request for weights takes.
        on_layer: told how many layers are done, and how many there are.
        change: what it reads inside of, an `intervene(loaded.module, …)`.
        label: what tells the view from others of the model.
        like: another view of the model, whose heads are kept.
        outputs: keep outputs of heads, too, to compare them with those of another view.

    Raises:
        ValueError: if the text is empty or too long, the model has no gated layer, or a layer does not exist.
    """
    every = len(layers or gated_layers(loaded.module))
    tokens: list[str] = []
    if inputs is None:
        ids, tokens = _read(loaded, loaded.text or "" if text is None else text, max_tokens)
        inputs = {"input_ids": ids}
    same = {} if like is None else {layer.facts["layer"]: layer.facts["heads"] for layer in _page_layers(like)}
    kept: list[PageLayer] = []

    def on_record(record: Record) -> None:
        if record.call == 0:
            _check_length(record.shape[3], max_tokens)
            kept.append(keep(record, heads=same.get(record.layer, heads), outputs=outputs))
            on_layer(len(kept), every)

    options: dict[str, Any] = {"layers": layers, "max_bytes": max_bytes, "on_record": on_record}
    inside = change or nullcontext()
    with torch.no_grad(), quiet_transformers(), in_memory(0), inside, capture(loaded.module, **options) as trace:
        output = _run(loaded, inputs)
    tokens = tokens or [f"{place} " for place in range(kept[0].tokens)]
    logits = getattr(output, "logits", output)
    return ModelView(
        loaded.name,
        tokens,
        kept,
        loaded.facts if change is None else "",  # they were found without it
        _position(loaded, inputs),
        trace.ungated,
        _predict(logits, loaded.words),
        label,
        None if loaded.words is None else _losses(logits, inputs["input_ids"]),
    )


def _read(loaded: Loaded, text: str, most: int) -> tuple[Tensor, list[str]]:
    ids, tokens = loaded.encode(text)
    if not tokens:
        raise ValueError("the text has no tokens; give at least one word")
    _check_length(len(tokens), most)
    return ids, tokens


def _page_layers(view: ModelView) -> list[PageLayer]:
    return [layer for layer in view.records if isinstance(layer, PageLayer)]


def _position(loaded: Loaded, inputs: Mapping[str, Tensor]) -> int | None:
    places = [] if loaded.asked is None else loaded.asked(inputs["input_ids"])[0].nonzero()[:, 0].tolist()
    return places[-1] if places else None


def _check_length(tokens: int, most: int) -> None:
    if tokens > most:
        raise ValueError(
            f"the text has {tokens:,} tokens, more than {most:,}: one head's weights would take "
            f"{32 * tokens**2 / 2**20:,.0f} MiB; shorten it, or raise --max-tokens"
        )


def _run(loaded: Loaded, inputs: Mapping[str, Tensor]) -> Any:
    taken = inspect.signature(loaded.module.forward).parameters
    if wrong := [name for name in inputs if name not in taken]:
        raise ValueError(f"{loaded.name} takes no {wrong[0]}; {_asks(loaded.module)}")
    dtype = next(loaded.module.parameters()).dtype
    given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    try:
        return loaded.module(**given, **loaded.options)
    except (ValueError, RuntimeError, MemoryError):
        raise  # said as they are
    except Exception as error:  # whatever a model raises whose config says what cannot be
        reason = f"{type(error).__name__}: {shorten(str(error), 200, placeholder=' …')}"
        raise ValueError(f"the model {loaded.name} failed while it read the text ({reason}); {GIVE}") from None


def _losses(logits: Any, ids: Tensor) -> list[float] | None:
    """The loss of a language model at each token's successor; None without logits."""
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        return None
    return functional.cross_entropy(logits[0, :-1].float(), ids[0, 1:], reduction="none").tolist()


def _predict(logits: Any, words: Callable[[list[int]], list[str]] | None) -> list[list[tuple[str, float]]] | None:
    """The likeliest next tokens after each of the first text's; None without logits."""
    if words is None or not isinstance(logits, Tensor) or logits.ndim != 3:
        return None
    best = logits[0].float().softmax(1).topk(min(_NEXT, logits.shape[2]))
    each = sorted(set(best.indices.flatten().tolist()))
    known = dict(zip(each, words(each), strict=True))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [[(known[token], round(p, 4)) for token, p in zip(*pair, strict=True)] for pair in pairs]
