"""The one-dimensional map whose fixed points are the stationary points, with bounds of its slope on intervals."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gladient._types import Array, Float
from gladient.landscape._reduced import Reduced

__all__ = ["FixedPointMap", "Interval"]

Interval = tuple[float, float]

_ROUNDING = 1e-12  # relative size below which a component of r is rounding; also widens every bound


@dataclass(frozen=True)
class FixedPointMap:
    r"""$T(\gamma) = 1 + h_1(h_2(\gamma))$: increasing, and an interval of γ into itself.

    With $m_i = a_i^2/(1 + \lambda_i c)^2$, $q_j = s_j/M$ and $v_j \propto q_j^2/(1 + q_j\gamma)^2$, $h_1$ is the mean
    of λ under m, and $h_2 = e/(e + 1)$ with e the mean of q under v. Both fall, and their slopes are sums over pairs
    whose terms keep their sign and fall in the argument: values at the ends of an interval bound them inside it.

    Source: h1, h2 from arXiv 2504.04308, section 4; monotonicity and slope bounds derived.
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
        eigenvalues, power = self.spectrum
        m = power / (1.0 + eigenvalues * c) ** 2
        return float(m @ eigenvalues / m.sum())

    def h2(self, gamma: float) -> float:
        """The c of the weights (c R + I)⁻¹ r that suit the preconditioner of γ."""
        e = self._mean_share(gamma)
        return e / (e + 1.0)

    def slope(self, gamma: float) -> float:
        """T'(γ)."""
        return float(self.slope_bounds((gamma, gamma))[0])

    def slope_bounds(self, cell: Interval) -> Interval:
        """Lower and upper bound of T' on an interval of γ."""
        at = [self._s_pairs(gamma) for gamma in cell]
        e_high, e_low = (self._mean_share(gamma) for gamma in cell)
        h2_low = 2.0 * at[1][0] / (at[0][1] * (1.0 + e_high)) ** 2
        h2_high = 2.0 * at[0][0] / (at[1][1] * (1.0 + e_low)) ** 2
        at = [self._r_pairs(c) for c in (self.h2(cell[1]), self.h2(cell[0]))]
        h1_low, h1_high = 2.0 * at[1][0] / at[0][1] ** 2, 2.0 * at[0][0] / at[1][1] ** 2
        return h1_low * h2_low, h1_high * h2_high

    def _mean_share(self, gamma: float) -> float:
        share = self.reduced.share
        v = self.reduced.power / (1.0 + share * gamma) ** 2
        return float(v @ share / v.sum())

    def _s_pairs(self, gamma: float) -> tuple[float, float]:
        """Half the sum over pairs of v_i v_j (q_i - q_j)² / (D_i D_j), and the sum of v; both fall in γ."""
        share, power = self.reduced.share, self.reduced.power
        D = 1.0 + share * gamma
        return _pairs(power / D**3, share), float(np.sum(power / D**2))

    def _r_pairs(self, c: float) -> tuple[float, float]:
        """Half the sum over pairs of m_i m_j (λ_i - λ_j)² / (…), and the sum of m; both fall in c."""
        eigenvalues, power = self.spectrum
        D = 1.0 + eigenvalues * c
        return _pairs(power / D**3, eigenvalues), float(np.sum(power / D**2))


def _pairs(weight: Float[Array, " m"], value: Float[Array, " m"]) -> float:
    """Half the sum over i, j of w_i w_j (x_i - x_j)², without cancellation."""
    total = weight.sum()
    return float(total * (weight @ (value - weight @ value / total) ** 2)) if total > 0 else 0.0
