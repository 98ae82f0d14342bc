"""The recurrence itself in float64, in linear time, and how far rounding may carry a layer from it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens.linear import linear_pass
from gladient.lens.recurrence import Recurrence, change_each

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
    found, bound = linear_pass(x), linear_pass(_absolute(lengths))
    o, n = found.sums, found.normaliser
    size, n_size = (each.double().nan_to_num_(posinf=0.0) for each in (bound.sums, bound.normaliser))
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
