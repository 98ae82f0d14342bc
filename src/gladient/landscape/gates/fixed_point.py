"""The one-dimensional map whose fixed points are the stationary points, with bounds of its slope on intervals."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Reduced

__all__ = ["FixedPointMap", "Interval"]

Interval = tuple[float, float]

# Relative size below which a component of r along an eigenvector is rounding. One that is taken for a component though
# it is none only widens the interval of γ; one that is left out though it counts has 1e-24 of the weight.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class FixedPointMap:
    r"""$T(\gamma) = 1 + h_1(h_2(\gamma))$: increasing, and an interval of γ into itself.

    With t = γ - 1, $h_1(c)$ is the mean of λ under $a_i^2/(1 + \lambda_i c)^2$ and $h_2$ the mean of h under
    $w_j h_j/(1 + h_j t)^2$: one function with two spectra. It falls, and its slope is a sum over pairs whose terms keep
    their sign and fall in the argument: values at the ends of an interval bound it inside.

    Source: h1, h2 from arXiv 2504.04308, section 4 (there $h_2$ for Gaussian features); monotonicity and slope bounds
    derived.
    """

    reduced: Reduced

    @cached_property
    def spectrum(self) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        """λ and a² where r has a component, λ ascending."""
        eigenvalues, a = self.reduced.spectrum
        seen = np.abs(a) > _ROUNDING * np.linalg.norm(a)
        return eigenvalues[seen], a[seen] ** 2

    @property
    def domain(self) -> Interval:
        """The interval of γ that the map sends into itself."""
        eigenvalues, _ = self.spectrum
        return 1.0 + float(eigenvalues[0]), 1.0 + float(eigenvalues[-1])

    def __call__(self, gamma: float) -> float:
        """T(γ)."""
        return 1.0 + self.h1(self.h2(gamma))

    def h1(self, c: float) -> float:
        """Mean of λ at c."""
        return _mean(*self.spectrum, c)

    def h2(self, gamma: float) -> float:
        """The c of the weights (c R + I)⁻¹ r that suit the preconditioner of γ."""
        return _mean(self.reduced.h, self.reduced.power, gamma - 1.0)

    def slope(self, gamma: float) -> float:
        """T'(γ)."""
        return float(self.slope_bounds((gamma, gamma))[0])

    def slope_bounds(self, cell: Interval) -> Interval:
        """Lower and upper bound of T' on an interval of γ."""
        low2, high2 = _fall(self.reduced.h, self.reduced.power, (cell[0] - 1.0, cell[1] - 1.0))
        low1, high1 = _fall(*self.spectrum, (self.h2(cell[1]), self.h2(cell[0])))
        return low1 * low2, high1 * high2


def _mean(value: Float[Array, " m"], power: Float[Array, " m"], at: float) -> float:
    """Mean of x under power / (1 + x at)²."""
    weight = power / (1.0 + value * at) ** 2
    return float(weight @ value / weight.sum())


def _fall(value: Float[Array, " m"], power: Float[Array, " m"], cell: Interval) -> Interval:
    r"""Lower and upper bound of how fast `_mean` falls on an interval.

    With D = 1 + x at and p = power / D³ the slope is
    $-2\,[\sum p \sum p x^2 - (\sum p x)^2] / (\sum p D)^2$: the bracket is a sum over pairs, which like the
    denominator falls in `at`, so each is taken at the end where it is least or most.
    """
    # Derivation: with m = p D = power / D², the mean is Σ m x / Σ m and dm/d at = -2 p x. The quotient rule gives
    # -2 [Σ p x² Σ m - Σ m x Σ p x] / (Σ m)²; putting in m = p + p x at, the terms with `at` cancel.
    (low_pairs, low_sum), (high_pairs, high_sum) = (_parts(value, power, at) for at in cell)
    return 2.0 * high_pairs / low_sum**2, 2.0 * low_pairs / high_sum**2


def _parts(value: Float[Array, " m"], power: Float[Array, " m"], at: float) -> tuple[float, float]:
    D = 1.0 + value * at
    return _pairs(power / D**3, value), float(np.sum(power / D**2))


def _pairs(weight: Float[Array, " m"], value: Float[Array, " m"]) -> float:
    """Half the sum over i, j of w_i w_j (x_i - x_j)², without cancellation."""
    # Σw Σw x² - (Σw x)² = Σw Σw (x - mean)²; the left side has no digits where all x are nearly equal
    total = weight.sum()
    return float(total * (weight @ (value - weight @ value / total) ** 2)) if total > 0 else 0.0
