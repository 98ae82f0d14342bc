"""The linear pass: what a recurrence computes, and the state that it leaves, by this package's operators."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import outside_autocast
from gladient.lens.recurrence import Recurrence
from gladient.ops.dispatch import operate

__all__ = ["Linear", "arithmetic", "linear_pass"]

_States = tuple[Tensor, Tensor]  # what queries read, and the state after the last token


@dataclass(frozen=True)
class Linear:
    """What a pass over the tokens makes, in linear time and never with a matrix of weights; on the graph.

    Attributes:
        sums: what queries read, [B, Q, H, V].
        normaliser: what the layer divides that by, 1 where it does not, [B, Q, H, 1].
        state: after the last token, [B, H, K, V]; times $e^{m}$ where the layer normalises.
        total: the normaliser's state, [B, H, K]; None where the layer does not normalise.
        log_scale: m, [B, H]; None likewise.
    """

    sums: Float[Tensor, "B Q H V"]
    normaliser: Float[Tensor, "B Q H 1"]
    state: Float[Tensor, "B H K V"]
    total: Float[Tensor, "B H K"] | None = None
    log_scale: Float[Tensor, "B H"] | None = None

    def output(self, x: Recurrence) -> Float[Tensor, "B Q H V"]:
        """The layer's output, with its skip and output gate; 0 where it normalises and read nothing at all."""
        o = self.sums / torch.where(self.normaliser == 0, 1.0, self.normaliser)
        o = o if x.skip is None else o + x.skip
        return o if x.output_gate is None else o * x.output_gate


def arithmetic(x: Recurrence) -> torch.dtype:
    """The dtype that the layer computes in: float64 if all its operands are, else float32."""
    return torch.float64 if all(tensor.dtype == torch.float64 for tensor in x.operands()) else torch.float32


@outside_autocast
def linear_pass(x: Recurrence) -> Linear:
    """The pass in the dtype of the operands, which have one.

    >>> ones = torch.ones(1, 3, 1, 1)
    >>> x = Recurrence(ones, ones, ones, ones, torch.arange(3), log_gates=torch.full((1, 3, 1), 0.5).log())
    >>> found = linear_pass(x)
    >>> found.output(x).flatten().tolist(), found.state.item()
    ([1.0, 1.5, 1.75], 1.75)
    """
    x = x.turned
    v, state = (x.v, x.initial_state) if x.normalise == "none" else _with_ones(x)
    k, gates, before, after = _scaled(x)
    if x.log_write is not None and x.normalise == "none" and x.initial_log_scale is not None and state is not None:
        state = state * x.initial_log_scale.exp()[..., None, None]
    o, last = (_run if x.own is None else _run_with_own)(x, k, v, gates, state)
    end, before, scale = after[:, -1], before[:, x.positions], after[:, x.positions]
    if x.read == "before":
        write = torch.zeros_like(before) if x.log_write is None else x.log_write[:, x.positions]
        scale = before if x.log_write is None or x.normalise == "none" else _finite(torch.maximum(before, write))
        o = o * (before - scale).exp()[..., None]
        if x.bonus is not None:
            own = torch.einsum("bqhk,hk,bqhk->bqh", x.q, x.bonus, x.k[:, x.positions]) * (write - scale).exp()
            o = o + own[..., None] * v[:, x.positions]
    if x.normalise == "none":
        return Linear(o, o.new_ones(*o.shape[:3], 1), last)
    o, total = o[..., :-1], o[..., -1:]
    floor = (-scale).exp()[..., None]
    n = (total if x.normalise == "sum" else torch.maximum(total.abs(), floor)) + x.eps
    return Linear(o, n, last[..., :-1], last[..., -1], end)


def _run(x: Recurrence, k: Tensor, v: Tensor, gates: Tensor | None, state: Tensor | None) -> _States:
    q, k = _once(_at_tokens(x)), _once(k)
    named: dict[str, Any] = {"initial_state": state, "read": x.read, "output_final_state": True}
    if gates is None and x.rate is not None and x.log_gates is not None:
        o, state = _run_by_rates(q, k, v, x.rate, x.log_gates, named)
        return o[:, x.positions], state
    named |= {"g" if gates is None or gates.ndim == 3 else "gk": gates}
    if x.erase_query is None and x.erase_key is None and x.erase_read == "after":
        named |= {"beta": x.beta}
    else:
        assert x.beta is not None
        (m, b), v = x.erasing, x.beta[..., None] * v
        decay = 1.0 if x.erase_read == "before" else _decay(gates)
        named |= {"a": -m * decay, "b": b}
    o, last = operate(q, k, v, **named)
    assert last is not None
    return o[:, x.positions], last


def _run_by_rates(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, steps: Tensor, named: dict[str, Any]) -> _States:
    """Gates of rates [H, K] and steps [B, T, H], which are never multiplied out: Mamba has 16 for every channel.

    Where all heads share queries and keys, they are the value channels of one head, as the kernels are made for.
    """
    if q.shape[2] > 1 or k.shape[2] > 1 or v.shape[3] > 1:
        steps = steps[..., None].expand(v.shape)
        o, last = operate(q, k, v, A=rate[..., None].expand(*rate.shape, v.shape[3]), dt=steps, **named)
        assert last is not None
        return o, last
    state = named["initial_state"]
    named = named | {"initial_state": None if state is None else state[..., 0].mT[:, None]}
    o, last = operate(q, k, v[..., 0][:, :, None], A=rate.mT[None], dt=steps[:, :, None], **named)
    assert last is not None
    return o[:, :, 0, :, None], last[:, 0].mT[..., None]


def _run_with_own(x: Recurrence, k: Tensor, v: Tensor, gates: Tensor | None, state: Tensor | None) -> _States:
    """What queries read of the state before their step, and of the step's own writes by their weight there.

    Reading all after the write and taking what is too much off again would lose digits.
    """
    assert x.own is not None
    first = x.positions - x.ranks + 1
    decay = _decay(None if gates is None else gates[:, first])
    before, last = _run(
        replace(x, q=x.q * decay, positions=first, own=None, ranks=1, read="before"), k, v, gates, state
    )
    step = first[:, None] + torch.arange(x.ranks, device=k.device)
    scores = torch.einsum("bqhk,bqrhk,bqrh->bqrh", x.q, k[:, step], x.own[:, step])
    return before + torch.einsum("bqrh,bqrhv->bqhv", scores, v[:, step]), last


def _decay(gates: Tensor | None) -> Tensor | float:
    """Of key channels, [B, T, H, K], or of all of them, [B, T, H, 1]."""
    return 1.0 if gates is None else (gates if gates.ndim == 4 else gates[..., None]).exp()


def _at_tokens(x: Recurrence) -> Tensor:
    """A query for each token, 0 where none was captured."""
    if x.positions.tolist() == list(range(x.tokens)):
        return x.q
    return x.q.new_zeros(x.k.shape).index_copy(1, x.positions, x.q)


def _once(x: Tensor) -> Tensor:
    """What all heads share, as the operators take it: one head."""
    return x[:, :, :1] if x.stride(2) == 0 else x


def _with_ones(x: Recurrence) -> tuple[Tensor, Tensor]:
    """Values beside a 1, whose sum is the normaliser, and the state before the first token."""
    B, _, H, K = x.k.shape
    state = x.k.new_zeros(B, H, K, x.v.shape[3]) if x.initial_state is None else x.initial_state
    total = x.k.new_zeros(B, H, K) if x.initial_normaliser is None else x.initial_normaliser
    return torch.cat([x.v, torch.ones_like(x.v[..., :1])], 3), torch.cat([state, total[..., None]], 3)


def _scaled(x: Recurrence) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Keys and log gates of the state times e^-m, and m before and after each token.

    m is the largest log weight in the state: with it input gates cannot overflow. The gates are None where there are
    none, and where they stay rates and steps.
    """
    zeros = x.k.new_zeros(()).expand(x.k.shape[:3])
    stay = x.log_gates is not None and x.log_gates.ndim == 3 and x.rate is not None and x.rate.ndim == 2
    plain = x.beta is None and x.log_write is None and x.own is None and x.k.shape[3] > 1
    gates = None if stay and plain else x.log_decay_in(x.k.dtype)
    if x.log_write is None:
        return x.k, gates, zeros, zeros
    if x.normalise == "none":
        return x.k * x.log_write.exp()[..., None], gates, zeros, zeros
    gates = torch.zeros_like(x.log_write) if gates is None else gates
    empty = x.normalise == "sum" and x.initial_state is None and x.initial_normaliser is None
    m = [x.k.new_full(x.k[:, 0, :, 0].shape, -torch.inf if empty else 0.0)]
    if x.initial_log_scale is not None:
        m = [x.initial_log_scale]
    for gate, write in zip(gates.unbind(1), x.log_write.unbind(1), strict=True):
        m.append(torch.maximum(m[-1] + (gate if gate.ndim == 2 else gate.amax(2)), write))
    before, after = torch.stack(m[:-1], 1), _finite(torch.stack(m[1:], 1))
    shift = before - after
    gates = gates + (shift if gates.ndim == 3 else shift[..., None])
    return x.k * (x.log_write - after).exp()[..., None], gates, before, after


def _finite(m: Tensor) -> Tensor:
    return m.masked_fill(torch.isneginf(m), 0.0)  # nothing was written: any scale does
