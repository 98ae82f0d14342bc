"""The proof of a record: the lens against the exact recurrence, and the layer's own arithmetic against it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from gladient.lens import weights
from gladient.lens.exact import compute_exact, half_step
from gladient.lens.linear import arithmetic
from gladient.lens.recurrence import Recurrence

__all__ = ["Distances", "Reconstruction", "judge", "measure"]

_ROUNDINGS = 2  # to the output's dtype on its way
_PRODUCT_ROUNDINGS = (
    3  # under autocast: 7 in a row, of factors and results, in Mamba-2's chunks; they add up as sqrt(7)
)


@dataclass(frozen=True)
class Reconstruction:
    r"""Two distances from the exact recurrence, which is computed in float64 from the layer's operands.

    The lens is right if the output that it rebuilds from implicit attention is the exact one, and if the layer's own
    output is as near to that as its arithmetic makes it: operands that are not the layer's are farther off.

    Attributes:
        lens: ‖rebuilt - exact‖ / ‖exact‖.
        lens_tolerance: the same for rounding in float64.
        error: ‖output - exact‖ / ‖exact‖ of the layer's own output, where a head comes nearest to what is allowed.
        tolerance: what rounding explains of it: the layer's arithmetic, from its gates and the size of its sums, and
            steps of the output's dtype.
        head: that head.
        reason: why it is not proved, in words; "" where it is.

    >>> found = Reconstruction(lens=2e-15, lens_tolerance=1e-12, error=2e-5, tolerance=3e-4, head=20)
    >>> print(found)
    rebuilt to 2.0e-15; its own rounding 2.0e-05 of at most 3.0e-04 (head 20)
    >>> found.passed, Reconstruction(float("nan"), 1e-12, 0.0, 1e-6, 0).passed
    (True, False)
    """

    lens: float
    lens_tolerance: float
    error: float
    tolerance: float
    head: int
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether both are within their tolerances (NaN is not)."""
        return self.lens <= self.lens_tolerance and self.error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"rebuilt to {self.lens:.1e}; its own rounding {self.error:.1e} of at most {self.tolerance:.1e} "
            f"(head {self.head})"
        )


@dataclass(frozen=True)
class Distances:
    """Squared norms of every head, over batch, queries and values, [H]; `row_…` at the queries that were rebuilt."""

    exact: Tensor
    error: Tensor
    allowed: Tensor
    row_exact: Tensor
    row_error: Tensor
    row_allowed: Tensor

    @classmethod
    def join(cls, parts: Sequence["Distances"]) -> "Distances":
        """The distances of all parts' heads together."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def judge(x: Recurrence, found: Distances) -> Reconstruction:
    """The heads nearest to what is allowed, or farthest beyond."""
    rebuilt, own = _worst(found.row_error, found.row_allowed), _worst(found.error, found.allowed)
    judged = Reconstruction(
        lens=_ratio(found.row_error[rebuilt], found.row_exact[rebuilt]),
        lens_tolerance=_ratio(found.row_allowed[rebuilt], found.row_exact[rebuilt]),
        error=_ratio(found.error[own], found.exact[own]),
        tolerance=_ratio(found.allowed[own], found.exact[own]),
        head=own,
    )
    return judged if judged.passed else replace(judged, reason=_explain(x, judged, rebuilt))


def _explain(x: Recurrence, judged: Reconstruction, rebuilt: int) -> str:
    broken = x.select(judged.head).not_finite()
    if broken:
        return f"head {judged.head}: NaN or infinite: {', '.join(broken)}"
    if not judged.error <= judged.tolerance:
        return f"head {judged.head}: farther from the recurrence than rounding explains"
    return f"head {rebuilt}: the lens' weights do not rebuild the recurrence"


def measure(x: Recurrence, rows: Sequence[int]) -> Distances:
    """Distances of each head of a recurrence as captured; its outputs at the positions `rows` are rebuilt."""
    doubled = x.double()
    exact = compute_exact(doubled)
    where = {position: row for row, position in enumerate(x.positions.tolist())}
    chosen = torch.tensor([where[position] for position in rows], device=x.k.device)
    rebuilt = weights.rebuild(doubled.select(None, rows))
    row_exact, row_rounding = exact.output[:, chosen], 2 * exact.rounding(torch.float64)[:, chosen]
    allowed = exact.rounding(arithmetic(x)) + _ROUNDINGS * half_step(exact.size, x.output.dtype)
    if x.products is not None and torch.finfo(x.products).eps > torch.finfo(x.output.dtype).eps:
        # An output as coarse as the products has their roundings in its own: a third of the bound at most was seen.
        allowed = allowed + _PRODUCT_ROUNDINGS * half_step(exact.size, x.products)
    pairs = (exact.output, x.output.double() - exact.output, allowed, row_exact, rebuilt - row_exact, row_rounding)
    return Distances(*(each.square().sum((0, 1, 3)).cpu() for each in pairs))


def _worst(error: Tensor, allowed: Tensor) -> int:
    """NaN first."""
    return int((error / allowed.clamp_min(1e-300)).nan_to_num(torch.inf).argmax())


def _ratio(part: Tensor, whole: Tensor) -> float:
    return (part / whole.clamp_min(1e-300)).sqrt().item()
