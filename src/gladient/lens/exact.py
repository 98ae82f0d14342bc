"""The recurrence itself in float64, in linear time, and how far rounding may carry a layer from it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens.recurrence import Recurrence, change_each
from gladient.ops.dispatch import operate

__all__ = ["Exact", "compute_exact", "half_step"]

_CHUNK = 256  # the most tokens over which a layer sums log gates before it takes differences
_SHUT = -745.0  # exp of it is 0 in float64


@dataclass(frozen=True)
class Exact:
    r"""What a recurrence computes without rounding, and the size of the sums that it is made of.

    Attributes:
        output: in float64, [B, Q, H, V].
        size: the same sums with every product replaced by its absolute value, [B, Q, H, V].
        normaliser: what the layer divides its sums by, 1 where it does not; scaled as `_weights` scales, [B, Q, H].
        growth: $\sqrt{T + K}$ and the largest sum of |log gates| over 256 tokens, together, [H].

    Rounding to the unit u turns the output into one within `2 u growth size`: sums of n terms err by $\sqrt n\, u$
    (Higham and Mary, SIAM J. Sci. Comput. 41, 2019), and weights that are exponentials of differences of running sums
    of log gates by u times these sums.
    """

    output: Float[Tensor, "B Q H V"]
    size: Float[Tensor, "B Q H V"]
    normaliser: Float[Tensor, "B Q H"]
    growth: Float[Tensor, " H"]

    def rounding(self, dtype: torch.dtype) -> Float[Tensor, "B Q H V"]:
        """How far arithmetic in `dtype` may end from `output`."""
        return torch.finfo(dtype).eps * self.growth[:, None] * self.size


def compute_exact(x: Recurrence) -> Exact:
    """The exact result of a float64 recurrence: twice the recurrence, in chunks, never a matrix of weights."""
    x, lengths = x.turned, replace(x.aligned, phase=None)  # of pairs: no turn makes their products larger
    o, n = _outputs(x)
    size, n_size = (each.double().nan_to_num_(posinf=0.0) for each in _outputs(_absolute(lengths)))
    size = size / n.abs() + o.abs() * (n_size / n.abs() if x.normalise != "none" else 0.0)
    output, skip, gate = o / n, x.skip, x.output_gate
    output, size = (output, size) if skip is None else (output + skip, size + skip.abs())
    output, size = (output, size) if gate is None else (output * gate, size * gate.abs())
    return Exact(output, torch.maximum(size, output.abs()), n[..., 0], _growth(x))


def half_step(x: Tensor, dtype: torch.dtype) -> Tensor:
    """At least half the distance from a number to its neighbours in `dtype`: what one rounding may change.

    >>> half_step(torch.tensor([1.0, 1e-10]), torch.float16).tolist()
    [0.00048828125, 2.9802322387695312e-08]
    """
    info = torch.finfo(dtype)
    return x.abs().clamp_min(info.tiny) * (info.eps / 2)


def _outputs(x: Recurrence) -> tuple[Tensor, Tensor]:
    """The sums that queries read, [B, Q, H, V], and what the layer divides them by, [B, Q, H, 1]."""
    v, state = (x.v, x.initial_state) if x.normalise == "none" else _with_ones(x)
    k, gates, before, after = _scaled(x)
    if x.log_write is not None and x.normalise == "none" and x.initial_log_scale is not None and state is not None:
        state = state * x.initial_log_scale.exp()[..., None, None]
    o = (_run if x.own is None else _run_with_own)(x, k, v, gates, state)
    scale = after
    if x.read == "before":
        write = torch.zeros_like(before) if x.log_write is None else x.log_write[:, x.positions]
        scale = before if x.log_write is None or x.normalise == "none" else _finite(torch.maximum(before, write))
        o = o * (before - scale).exp()[..., None]
        if x.bonus is not None:
            own = torch.einsum("bqhk,hk,bqhk->bqh", x.q, x.bonus, x.k[:, x.positions]) * (write - scale).exp()
            o = o + own[..., None] * v[:, x.positions]
    if x.normalise == "none":
        return o, o.new_ones(*o.shape[:3], 1)
    o, total = o[..., :-1], o[..., -1:]
    floor = (-scale).exp()[..., None]
    return o, (total if x.normalise == "sum" else torch.maximum(total.abs(), floor)) + x.eps


def _run(x: Recurrence, k: Tensor, v: Tensor, gates: Tensor | None, state: Tensor | None) -> Tensor:
    named = {"g" if gates is None or gates.ndim == 3 else "gk": gates, "initial_state": state, "read": x.read}
    if x.erase_query is None and x.erase_key is None and x.erase_read == "after":
        named |= {"beta": x.beta}
    else:
        assert x.beta is not None
        (m, b), v = x.erasing, x.beta[..., None] * v
        decay = 1.0 if x.erase_read == "before" else _decay(gates)
        named |= {"a": -m * decay, "b": b}
    return operate(_once(_at_tokens(x)), _once(k), v, **named)[0][:, x.positions]  # type: ignore[arg-type]


def _run_with_own(x: Recurrence, k: Tensor, v: Tensor, gates: Tensor | None, state: Tensor | None) -> Tensor:
    """What queries read of the state before their step, and of the step's own writes by their weight there.

    Reading all after the write and taking what is too much off again would lose digits.
    """
    assert x.own is not None
    first = x.positions - x.ranks + 1
    decay = _decay(None if gates is None else gates[:, first])
    before = _run(replace(x, q=x.q * decay, positions=first, own=None, ranks=1, read="before"), k, v, gates, state)
    step = first[:, None] + torch.arange(x.ranks, device=k.device)
    scores = torch.einsum("bqhk,bqrhk,bqrh->bqrh", x.q, k[:, step], x.own[:, step])
    return before + torch.einsum("bqrh,bqrhv->bqhv", scores, v[:, step])


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
    """Keys and log gates of the state times e^-m, and m before and after the token of each query.

    m is the largest log weight in the state: with it input gates cannot overflow.
    """
    zeros = x.k.new_zeros(x.q.shape[:3])
    if x.log_write is None:
        return x.k, x.log_gates, zeros, zeros
    if x.normalise == "none":
        return x.k * x.log_write.exp()[..., None], x.log_gates, zeros, zeros
    gates = torch.zeros_like(x.log_write) if x.log_gates is None else x.log_gates
    empty = x.normalise == "sum" and x.initial_state is None and x.initial_normaliser is None
    m = [x.k.new_full(x.k[:, 0, :, 0].shape, -torch.inf if empty else 0.0)]
    if x.initial_log_scale is not None:
        m = [x.initial_log_scale]
    for gate, write in zip(gates.unbind(1), x.log_write.unbind(1), strict=True):
        m.append(torch.maximum(m[-1] + (gate if gate.ndim == 2 else gate.amax(2)), write))
    before, after = torch.stack(m[:-1], 1), _finite(torch.stack(m[1:], 1))
    shift = before - after
    gates = gates + (shift if gates.ndim == 3 else shift[..., None])
    keys = x.k * (x.log_write - after).exp()[..., None]
    return keys, gates, before[:, x.positions], after[:, x.positions]


def _finite(m: Tensor) -> Tensor:
    return m.masked_fill(torch.isneginf(m), 0.0)  # nothing was written: any scale does


def _absolute(x: Recurrence) -> Recurrence:
    """Every product positive, in float32, which a bound does with; erasing only makes a delta rule's sums smaller."""
    signed = ("q", "k", "v", "bonus", "initial_state", "initial_normaliser", "beta", "own")
    given = {name: value for name, value in vars(x).items() if isinstance(value, Tensor) and name != "positions"}
    found: dict[str, Any] = {
        name: change_each(value, lambda y: y.abs().float() if name in signed else y.float())  # noqa: B023
        for name, value in given.items()
    }
    if x.beta is not None:
        found |= {"v": found["v"] * found["beta"][..., None], "beta": None, "erase_query": None, "erase_key": None}
        found |= {"erase_read": "after"}
    return replace(x, **found)


def _growth(x: Recurrence) -> Float[Tensor, " H"]:
    growth = x.k.new_full((x.heads,), (x.tokens + x.k.shape[3]) ** 0.5)
    if x.log_gates is not None:
        sums = x.log_gates.clamp_min(_SHUT).abs().cumsum(1)
        sums[:, _CHUNK:] -= sums[:, :-_CHUNK].clone()
        growth = growth + sums.movedim(2, 0).flatten(1).amax(1)
    if x.log_write is not None:
        growth = growth + x.log_write.abs().clamp_max(-_SHUT).amax((0, 1))
    return growth
