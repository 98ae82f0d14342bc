"""What each gate of a language model is worth: by how many nats per token its loss rises without it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gladient._optional import require
from gladient.lens.attaching import chosen_layers
from gladient.lens.capturing import capture
from gladient.lens.gate_changes import fix_gates
from gladient.lens.intervening import Change, intervene
from gladient.lens.records import Record
from gladient.lens.recurrence import Selection, resolve
from gladient.lens.token_changes import ablate, scale_erase

__all__ = ["HeadWorth", "Rise", "Worth", "worth"]

_SLOWEST, _CLOSED = 1e-4, 50.0  # -log of fixed gates that the fit starts from: it takes logs of these
_RATE = 0.05  # of Adam on those logs: gates move by about 5% of their log in a step


@dataclass(frozen=True)
class Rise:
    """How much the loss rises, in nats per token, paired over texts.

    Attributes:
        mean: over texts.
        error: its standard error.

    >>> print(Rise(0.25, 0.01))
    +0.2500 ± 0.0100
    """

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.error:.4f}"


@dataclass(frozen=True)
class HeadWorth:
    """What the gate of a head is worth.

    Attributes:
        layer: the layer's number; None for all heads of all layers together.
        head: the head.
        no_gate: the rise with gates of 1.
        fixed: the rise with a fixed decay, fitted on other texts.
        no_erase: the rise without the delta rule's erasing; None for layers that erase nothing.
        ablated: the rise without the head.
        alone: the fall, from all gates fixed, where this head alone has its own.
    """

    layer: int | None
    head: int | None
    no_gate: Rise
    fixed: Rise
    no_erase: Rise | None
    ablated: Rise
    alone: Rise | None


@dataclass(frozen=True)
class Worth:
    """What the gates of a model are worth; printed, a table.

    Attributes:
        loss: the loss of the unchanged model, in nats per token.
        texts: how many there were.
        together: all heads of all layers.
        heads: each for itself.
        decays: the log gates that were fitted, by layer, [H] or [H, K].
    """

    loss: float
    texts: int
    together: HeadWorth
    heads: tuple[HeadWorth, ...]
    decays: dict[int, Tensor]

    def __str__(self) -> str:
        names = [field.name for field in fields(HeadWorth)][2:]
        lines = [f"loss {self.loss:.4f} nats per token, over {self.texts} texts; rises:"]
        lines += ["layer  head" + "".join(f"{name:>19}" for name in names)]
        for row in (self.together, *self.heads):
            where = "all heads  " if row.layer is None else f"{row.layer:>5}  {row.head:>4}"
            lines.append(where + "".join(f"{getattr(row, name) or '-'!s:>19}" for name in names))
        return "\n".join(lines)

    def to_pandas(self) -> Any:
        """A table with a row for each head, the first for all; errors in columns of their own.

        Raises:
            ImportError: if pandas is absent.
        """
        pandas = require("pandas", needed_for="a table of what gates are worth", install="pip install pandas")
        return pandas.DataFrame([_flat(row) for row in (self.together, *self.heads)])


def _flat(row: HeadWorth) -> dict[str, Any]:
    found: dict[str, Any] = {"layer": row.layer, "head": row.head}
    for name in [field.name for field in fields(HeadWorth)][2:]:
        rise = getattr(row, name)
        found |= {name: rise and rise.mean, f"{name}_error": rise and rise.error}
    return found


def worth(
    model: nn.Module,
    texts: Sequence[Tensor],
    *,
    calibrate: Sequence[Tensor],
    layers: Selection = None,
    heads: Selection = None,
    steps: int = 60,
    seed: int = 0,
    batch: int = 16,
    on_pass: Callable[[int, int], None] = lambda done, of: None,
) -> Worth:
    r"""By how much the loss rises when gates, erasing or heads are taken away, head by head and all together.

    The difference is paired: the same texts, with and without; its standard error is that of the mean over texts.

    Three things to mind. A model without any gate is off the distribution that it was trained for: its rise can be
    larger than that of the head's ablation, and says little of what gating buys. Effects do not add up: heads stand in
    for one another. And a fixed decay that is the mean of the gates flatters these: here it is fitted to `calibrate`.

    Args:
        model: a causal language model in eval mode, called as `model(input_ids=…)`, that returns logits [B, T, words].
        texts: tokens of the texts that are judged, [T] each, at least two texts of at least two tokens.
        calibrate: other texts, on which fixed decays are fitted, all layers together, by Adam.
        layers: numbers of the layers to judge: one, some, or None for all. Decays are fitted in all.
        heads: heads of these layers, likewise.
        steps: steps of the fit.
        seed: the random seed that picks texts for the fit.
        batch: texts of one length that are read together.
        on_pass: told after each pass over the texts how many are done, of how many.

    Raises:
        ValueError: if there are too few texts, one has too few tokens or is in both lists, the model has no gated layer
            or is in training mode and drops out at random.

    >>> from gladient.nn import ResidualModel, presets
    >>> class Words(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.words, self.stack = nn.Embedding(5, 8), ResidualModel(8, [presets.mamba2(8, heads=2)])
    ...     def forward(self, input_ids):
    ...         return self.stack.hidden(self.words(input_ids)[None])[-1][0] @ self.words.weight.T
    >>> _ = torch.manual_seed(0)
    >>> found = worth(Words().eval(), [*torch.randint(5, (4, 9))], calibrate=[*torch.randint(5, (4, 9))], steps=2)
    >>> [(row.layer, row.head) for row in found.heads]
    [(0, 0), (0, 1)]
    """
    _check(model, texts, calibrate)
    kinds = _kinds(model, calibrate[0])
    chosen = [
        (layer, head)
        for layer in sorted({number for _, number, _, _ in chosen_layers(model, layers)})
        for head in resolve(heads, kinds[layer].heads, "head")
    ]
    decays = _fit(model, calibrate, steps, seed, batch)
    erasing = any(kind.erases for kind in kinds.values()) + sum(kinds[layer].erases for layer, _ in chosen)
    passes = 4 + 4 * len(chosen) + erasing
    judge = _Judge(model, texts, kinds, fix_gates(decays), batch, on_pass, passes)
    base = judge.losses()
    low = judge.losses((judge.fixed, None, None))
    together = judge.judge(base, low)
    rows = [judge.judge(base, low, layer, head) for layer, head in chosen]
    return Worth(base.mean().item(), len(texts), together, tuple(rows), decays)


@dataclass(frozen=True)
class _Kind:
    """A layer's number of heads, and whether it erases."""

    heads: int
    erases: bool


_Changes = tuple[Change, Selection, Selection]  # a change, and its layers and heads


@dataclass
class _Judge:
    """Reads the texts under changes, and counts."""

    model: nn.Module
    texts: Sequence[Tensor]
    kinds: dict[int, _Kind]
    fixed: Change
    batch: int
    on_pass: Callable[[int, int], None]
    passes: int
    done: int = 0

    def losses(self, *changes: _Changes) -> Float[Tensor, " N"]:
        """Nats per token of each text."""
        with torch.no_grad(), ExitStack() as entered:
            for change, layers, heads in changes:
                entered.enter_context(intervene(self.model, change, layers=layers, heads=heads))
            found = _all_losses(self.model, self.texts, self.batch)
        self.done += 1
        self.on_pass(self.done, self.passes)
        return found

    def judge(self, base: Tensor, low: Tensor, layer: int | None = None, head: int | None = None) -> HeadWorth:
        """One head, or all; `low`: the losses where all gates are fixed."""

        def rise(change: Change, layers: Selection = layer) -> Rise:
            return _rise(self.losses((change, layers, head)), base)

        erasing = [each for each, kind in self.kinds.items() if kind.erases and layer in (None, each)]
        return HeadWorth(
            layer=layer,
            head=head,
            no_gate=rise(fix_gates(0.0)),
            fixed=_rise(low, base) if layer is None else rise(self.fixed),
            no_erase=rise(scale_erase(0.0), erasing) if erasing else None,
            ablated=rise(ablate()),
            alone=None if layer is None or head is None else _rise(low, self._with(layer, head)),
        )

    def _with(self, layer: int, head: int) -> Tensor:
        """All gates fixed but those of one head."""
        others = [each for each in self.kinds if each != layer]
        beside = [each for each in range(self.kinds[layer].heads) if each != head]
        changes: list[_Changes] = [(self.fixed, others, None)] if others else []
        return self.losses(*changes, *([(self.fixed, layer, beside)] if beside else []))


def _rise(changed: Tensor, base: Tensor) -> Rise:
    each = (changed - base).double()
    return Rise(each.mean().item(), each.std().item() / len(each) ** 0.5)


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


def _kinds(model: nn.Module, text: Tensor) -> dict[int, _Kind]:
    with torch.no_grad(), capture(model, positions=-1) as trace:
        _losses(model, text[None])
    return {record.layer: _Kind(record.heads, record.recurrence.beta is not None) for record in trace.records}


def _fit(model: nn.Module, texts: Sequence[Tensor], steps: int, seed: int, batch: int) -> dict[int, Tensor]:
    """Fixed log gates of all layers, that make the loss on some texts small; the model's weights stay."""
    logs = {layer: (-mean).clamp_min(_SLOWEST).log().requires_grad_() for layer, mean in _means(model, texts).items()}
    optimizer, draw = torch.optim.Adam(logs.values(), _RATE), torch.Generator().manual_seed(seed)
    with _frozen(model):
        for _ in range(steps):
            chosen = torch.randint(len(texts), (min(batch, len(texts)),), generator=draw).tolist()
            with intervene(model, fix_gates({layer: -log.exp() for layer, log in logs.items()})):
                loss = _all_losses(model, [texts[each] for each in chosen], batch).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
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


def _check(model: nn.Module, texts: Sequence[Tensor], calibrate: Sequence[Tensor]) -> None:
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
