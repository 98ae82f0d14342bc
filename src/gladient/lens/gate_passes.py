"""The readings of texts from which the worth of gates is told: which there are, and what each finds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gladient.lens.attaching import chosen_layers
from gladient.lens.capturing import capture
from gladient.lens.gate_changes import fix_gates
from gladient.lens.intervening import Change, intervene
from gladient.lens.records import Record
from gladient.lens.recurrence import Selection, resolve
from gladient.lens.token_changes import ablate, scale_erase

__all__ = ["Kind", "Pass", "check_texts", "fit_decays", "kinds_of", "passes_of", "read_losses"]

_SLOWEST, _CLOSED = 1e-4, 50.0  # -log of fixed gates that the fit starts from: it takes logs of these
_RATE = 0.05  # of Adam on those logs: gates move by about 5% of their log in a step


@dataclass(frozen=True)
class Kind:
    """A layer's number of heads, and whether it erases."""

    heads: int
    erases: bool


@dataclass(frozen=True)
class Pass:
    """One reading of all texts.

    Attributes:
        change: unchanged; no_gate, fixed, no_erase or ablated; alone, where all gates are fixed but those of one head.
        layer, head: what is changed; None for all.
    """

    change: str
    layer: int | None = None
    head: int | None = None


def kinds_of(model: nn.Module, text: Tensor) -> dict[int, Kind]:
    """The kind of each gated layer."""
    with torch.no_grad(), capture(model, positions=-1) as trace:
        _losses(model, text[None])
    return {record.layer: Kind(record.heads, record.recurrence.beta is not None) for record in trace.records}


def passes_of(
    model: nn.Module, kinds: Mapping[int, Kind], layers: Selection = None, heads: Selection = None
) -> list[Pass]:
    """All that there are to do: the model as it is, all heads together, and each head of those that are chosen.

    Raises:
        ValueError: if a layer or head does not exist.
    """
    erasing = any(kind.erases for kind in kinds.values())
    together = [Pass("unchanged"), Pass("fixed"), Pass("no_gate"), *[Pass("no_erase")] * erasing, Pass("ablated")]
    return together + [
        Pass(change, layer, head)
        for layer in sorted({number for _, number, _, _ in chosen_layers(model, layers)})
        for head in resolve(heads, kinds[layer].heads, "head")
        for change in ("no_gate", "fixed", *["no_erase"] * kinds[layer].erases, "ablated", "alone")
    ]


def read_losses(
    model: nn.Module,
    texts: Sequence[Tensor],
    one: Pass,
    kinds: Mapping[int, Kind],
    decays: Mapping[int, Tensor],
    batch: int,
) -> Float[Tensor, " N"]:
    """Nats per token of each text in one pass; texts of the same length stand together, shortest first."""
    with torch.no_grad(), ExitStack() as entered:
        for change, layers, heads in _changes(one, kinds, decays):
            entered.enter_context(intervene(model, change, layers=layers, heads=heads))
        return _all_losses(model, texts, batch)


_Changes = tuple[Change, Selection, Selection]  # a change, and its layers and heads


def _changes(one: Pass, kinds: Mapping[int, Kind], decays: Mapping[int, Tensor]) -> list[_Changes]:
    layer, head, fixed = one.layer, one.head, fix_gates(decays)
    if one.change == "unchanged":
        return []
    if one.change == "alone":
        assert layer is not None
        others = [each for each in kinds if each != layer]
        beside = [each for each in range(kinds[layer].heads) if each != head]
        return [*([(fixed, others, None)] if others else []), *([(fixed, layer, beside)] if beside else [])]
    if one.change == "no_erase":
        erasing = [each for each, kind in kinds.items() if kind.erases and layer in (None, each)]
        return [(scale_erase(0.0), erasing, head)]
    return [({"no_gate": fix_gates(0.0), "fixed": fixed, "ablated": ablate()}[one.change], layer, head)]


def _all_losses(model: nn.Module, texts: Sequence[Tensor], batch: int) -> Float[Tensor, " N"]:
    """Nats per token of each text; those of one length are read together, so that the order is always the same."""
    lengths = sorted({len(text) for text in texts})
    parts = [torch.stack([text for text in texts if len(text) == length]).split(batch) for length in lengths]
    return torch.cat([_losses(model, part) for each in parts for part in each])


def _losses(model: nn.Module, texts: Tensor) -> Tensor:
    """Nats per token of each row of tokens."""
    found = model(input_ids=texts[:, :-1])
    logits = found if isinstance(found, Tensor) else found.logits
    return functional.cross_entropy(logits.mT.double(), texts[:, 1:], reduction="none").mean(1)


def fit_decays(
    model: nn.Module,
    texts: Sequence[Tensor],
    *,
    steps: int,
    seed: int,
    batch: int,
    on_step: Callable[[int], None] = lambda done: None,
) -> dict[int, Tensor]:
    """Fixed log gates of all layers, that make the loss on some texts small; the model's weights stay."""
    logs = {layer: (-mean).clamp_min(_SLOWEST).log().requires_grad_() for layer, mean in _means(model, texts).items()}
    optimizer, draw = torch.optim.Adam(logs.values(), _RATE), torch.Generator().manual_seed(seed)
    with _frozen(model):
        for step in range(steps):
            chosen = torch.randint(len(texts), (min(batch, len(texts)),), generator=draw).tolist()
            with intervene(model, fix_gates({layer: -log.exp() for layer, log in logs.items()})):
                loss = _all_losses(model, [texts[each] for each in chosen], batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            on_step(step + 1)
    return {layer: -log.detach().exp() for layer, log in logs.items()}


def _means(model: nn.Module, texts: Sequence[Tensor]) -> dict[int, Tensor]:
    """The mean log gate of every head, or of its key channels, over tokens and texts."""
    sums: dict[int, list[Tensor]] = {}

    def add(record: Record) -> None:
        gates = record.recurrence.log_decay_in(torch.float32)
        gates = record.recurrence.k.new_zeros(1, 1, record.heads) if gates is None else gates
        sums.setdefault(record.layer, []).append(gates.clamp_min(-_CLOSED).mean((0, 1)))

    with torch.no_grad(), capture(model, on_record=add):
        for text in texts:
            _losses(model, text[None])
    return {layer: torch.stack(each).mean(0) for layer, each in sums.items()}


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """While it lasts, no parameter of the model asks for a gradient."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def check_texts(model: nn.Module, texts: Sequence[Tensor], calibrate: Sequence[Tensor]) -> None:
    """Refuses what cannot be judged.

    Raises:
        ValueError: if there are too few texts, one has too few tokens or is in both lists, or the model drops out.
    """
    drops = [part for part in model.modules() if isinstance(part, nn.modules.dropout._DropoutNd) and part.p]
    if any(part.training for part in drops):
        raise ValueError("the model is in training mode and drops out at random; call model.eval() first")
    if len(texts) < 2 or not len(calibrate):
        raise ValueError(
            f"there are {len(texts)} texts to judge and {len(calibrate)} to calibrate; a standard error takes two of "
            "the first, the fit one of the second"
        )
    for name, some in (("texts", texts), ("calibrate", calibrate)):
        for place, text in enumerate(some):
            if text.ndim != 1 or len(text) < 2:
                raise ValueError(
                    f"{name}[{place}] has shape {list(text.shape)}; a text is its tokens, [T], at least two"
                )
    known = {tuple(text.tolist()): place for place, text in enumerate(calibrate)}
    for place, text in enumerate(texts):
        if (same := known.get(tuple(text.tolist()))) is not None:
            raise ValueError(f"texts[{place}] is calibrate[{same}]; decays are fitted on other texts than are judged")
