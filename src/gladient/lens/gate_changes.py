"""Ready-made changes of what gates weigh, for `intervene`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens.capturing import Trace
from gladient.lens.intervening import Change
from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence

__all__ = ["fix_gates", "mix_gates", "patch_gates", "scale_gates"]

Value = TypeVar("Value")
Gates = float | Float[Tensor, "..."]


def scale_gates(factor: Gates) -> Change:
    r"""Log gates times a factor: $G_t \to G_t^{\,c}$, so that 2 forgets twice as fast, 1/2 half as fast, and 0 never.

    Keys, values, input gates, erasing, skip and output gate stay. A gate of 0, as at a document's first token, stays 0.
    In Mamba the step is in gate and write; the write stays. `scale_gates(2.0)` is adding log 2 to its `A_log`.

    Args:
        factor: c ≥ 0, a number, or one for each head, [H]. Gradients pass to it.

    >>> from gladient import lens
    >>> one, half = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5).log()
    >>> found = scale_gates(2.0)(lens.record(one, one, one, g=half))
    >>> found.log_decay.exp().flatten().round(decimals=6).tolist()
    [0.25, 0.25, 0.25]
    """

    def change(record: Record) -> Recurrence:
        x, by = _gated(record), _fitting(record, factor, "factor")
        if x.rate is not None:
            return replace(x, rate=x.rate * (by[:, None] if by.ndim < x.rate.ndim == 2 and by.ndim else by))
        assert x.log_gates is not None
        closed = torch.isneginf(x.log_gates)  # -inf · 0 would be NaN
        scaled = x.log_gates.masked_fill(closed, 0.0) * _beside(by, x.log_gates)
        return replace(x, log_gates=scaled.masked_fill(closed, -torch.inf))

    return change


def fix_gates(log_gate: Gates | Mapping[int, Gates]) -> Change:
    r"""The same gate at every token: $\log G_t \to \gamma$; 0 is no gate, as in linear attention.

    All else stays. So do states that come from a cache; where a layer resets its state at a document's first token,
    that gate is fixed, too.

    Args:
        log_gate: γ ≤ 0: a number, one for each head, [H], or for each key channel, [H, K]; or these by the number of
            the layer. Gradients pass to it.

    >>> from gladient import lens
    >>> one, half = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5).log()
    >>> fix_gates({0: -1.0})(lens.record(one, one, one, g=half)).log_decay.flatten().tolist()
    [-1.0, -1.0, -1.0]
    """

    def change(record: Record) -> Recurrence:
        x = record.recurrence
        return replace(x, log_gates=_each_step(x), rate=_fixed(record, log_gate))

    return change


def mix_gates(log_gate: Gates | Mapping[int, Gates], share: Gates | Mapping[int, Gates]) -> Change:
    r"""Log gates on the way from fixed ones to the model's own: $\log G_t \to (1 - a)\, \gamma + a \log G_t$.

    All else stays; a gate of 0 stays 0. With a gate for each of a channel's states (Mamba) the mixed gates are formed,
    [B, T, H, K].

    Args:
        log_gate: γ, as in `fix_gates`.
        share: a, of the model's own gates, from 0 to 1, a number or one for each head, [H]; or these by the number of
            the layer. Gradients pass to both.

    >>> from gladient import lens
    >>> one, gates = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), -2.0)
    >>> mix_gates(0.0, 0.25)(lens.record(one, one, one, g=gates)).log_decay.flatten().tolist()
    [-0.5, -0.5, -0.5]
    """

    def change(record: Record) -> Recurrence:
        x = _gated(record)
        own, fixed = x.log_decay_in(x.k.dtype), replace(x, log_gates=_each_step(x), rate=_fixed(record, log_gate))
        to = fixed.log_decay_in(x.k.dtype)
        assert own is not None
        assert to is not None
        if own.ndim != to.ndim:
            own, to = ((y if y.ndim == 4 else y[..., None]).expand(x.k.shape) for y in (own, to))
        closed = torch.isneginf(own)  # a gate of 0 stays 0
        a = _beside(_fitting(record, _of_layer(record, share, "share"), "share"), own)
        mixed = torch.lerp(to, own.masked_fill(closed, 0.0), a.expand(own.shape))
        return replace(x, log_gates=mixed.masked_fill(closed, -torch.inf), rate=None)

    return change


def patch_gates(source: Trace) -> Change:
    """The gates that another text gave: those of the same call and layer in a capture of it.

    Keys, values, input gates, erasing, skip and output gate stay this text's.

    Args:
        source: the trace of a capture, with all positions; a batch of one serves every row.

    Raises:
        ValueError: when the model runs, if the trace lacks the layer or the call, or has another number of tokens.

    >>> from gladient import lens
    >>> one, half = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5).log()
    >>> source = lens.Trace([lens.record(one, one, one, g=half)])
    >>> patch_gates(source)(lens.record(one, one, one, g=0 * half)).log_decay.exp().flatten().round(decimals=6).tolist()
    [0.5, 0.5, 0.5]
    """

    def change(record: Record) -> Recurrence:
        x = record.recurrence
        if record.call < 0:
            raise ValueError(
                f"{_where(record)} is run again by a backward pass, and which of several calls it is is not known; "
                "run the backward pass of each before the next"
            )
        patch = _gated(source.layer(record.layer, call=record.call))
        other = patch.log_gates
        assert other is not None
        if other.shape[1:3] != x.k.shape[1:3] or len(other) not in (1, len(x.k)):
            given, wanted = (f"{y.shape[0]} rows of {y.shape[1]} tokens and {y.shape[2]} heads" for y in (other, x.k))
            raise ValueError(f"{_where(record)}: the gates to patch are of {given}, and this call has {wanted}")
        return replace(x, log_gates=other.expand(len(x.k), *other.shape[1:]), rate=patch.rate)

    return change


def _where(record: Record) -> str:
    return f"layer {record.layer} ({record.module})"


def _gated(record: Record) -> Recurrence:
    if record.recurrence.log_gates is None:
        raise ValueError(f"{_where(record)} has no gates to change; leave it out: layers=")
    return record.recurrence


def _of_layer(record: Record, given: Any, name: str) -> Any:
    if not isinstance(given, Mapping):
        return given
    if record.layer not in given:
        raise ValueError(f"{name} has layers {sorted(given)} and none for {_where(record)}; add it, or choose layers=")
    return given[record.layer]


def _fixed(record: Record, log_gate: Any) -> Tensor:
    """[H] or [H, K]."""
    found = _fitting(record, _of_layer(record, log_gate, "log_gate"), "log_gate", channels=True)
    return found.expand(record.heads) if found.ndim == 0 else found


def _fitting(record: Record, given: Any, name: str, *, channels: bool = False) -> Tensor:
    """[], [H] or, with `channels`, [H, K]."""
    k = record.recurrence.k
    x = torch.as_tensor(given, dtype=k.dtype, device=k.device)
    allowed = [(), (k.shape[2],), *([(k.shape[2], k.shape[3])] if channels else [])]
    if tuple(x.shape) not in allowed:
        kinds = "a number, " + " or ".join(str(list(shape)) for shape in allowed[1:])
        raise ValueError(f"{_where(record)}: {name} has shape {list(x.shape)}; it is {kinds}")
    return x


def _beside(x: Tensor, gates: Tensor) -> Tensor:
    """[], [H] or [H, K] beside log gates [B, T, H] or [B, T, H, K]."""
    return x[:, None] if x.ndim == 1 and gates.ndim == 4 else x


def _each_step(x: Recurrence) -> Float[Tensor, "B T H"]:
    """1 at each token that has a gate: of those that are written together, the first."""
    if x.ranks == 1:
        return x.k.new_ones(()).expand(x.k.shape[:3])
    first = torch.arange(x.tokens, device=x.k.device) % x.ranks == 0
    return first.to(x.k.dtype)[:, None].expand(x.k.shape[:3])
