"""What a gate family can reach: the results that the rungs of the ladder return."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Moments, Reduced

__all__ = ["Certificate", "FixedDecay", "KeyGate", "Rung"]


@dataclass(frozen=True)
class Certificate:
    """Evidence that a rung is the best of its family; None where a measure does not apply.

    Attributes:
        stationarity: largest derivative of the risk along the directions the family leaves free, relative to M and to
            the size of the weights; 0 at an exact stationary point.
        kkt: largest derivative of the wrong sign across an order constraint that binds, in the same units.
        lower_bound: no weights of the family have a smaller risk: proved, and lowered by what rounding can do, so it is
            at most `risk`. For N examples it lies below by 1e-13 M + 1e-15 (K + d) (1 + N) M, mostly by far less.
        bracket: the interval of the gate γ at whose inner grid point the risk was lowest.
    """

    stationarity: float | None = None
    kkt: float | None = None
    lower_bound: float | None = None
    bracket: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Rung:
    """The best that a family of token weights can do: `risk(P, omega, setting)` gives `risk` back.

    Attributes:
        risk: expected squared error of the query's prediction; M (predicting 0) at worst.
        omega: weight of one example of each task, [K]; max |ω_k| = 1. The scale and the sign that the pair (P, ω)
            leaves open are in P, except that the unconstrained optimum has ωᵀr ≥ 0.
        certificate: why no other weights of the family are better.
        reduced: the setting.
        moments: what the risk knows of omega.
    """

    risk: float
    omega: Float[Array, " K"]
    certificate: Certificate
    reduced: Reduced = field(repr=False)
    moments: Moments = field(repr=False)

    @cached_property
    def P(self) -> Float[Array, "d d"]:
        """The best preconditioner for exactly this omega, [d, d]; 0 if no weight in the family helps.

        Computed when it is asked for: with many features it costs more than the rest.
        """
        return self.reduced.P(self.moments)

    @property
    def matrices(self) -> Float[Array, "K d d"]:
        r"""$W_k = \omega_k P$ of the estimate $\hat\beta = \sum_k W_k X_k^\top y_k$, [K, d, d]."""
        return self.omega[:, None, None] * self.P


@dataclass(frozen=True, eq=False)
class FixedDecay:
    """One gate γ on every token: weights decay inside a task too, so `omega` holds each task's mean weight.

    Attributes:
        risk: expected squared error of the query's prediction.
        gamma: the gate.
        omega: mean weight of an example of each task, [K]; the last example of the last task weighs 1.
        certificate: the interval of γ that holds the minimum; empty for a gate that was given.
        reduced: the setting.
        moments: what the risk knows of the weights.
    """

    risk: float
    gamma: float
    omega: Float[Array, " K"]
    certificate: Certificate
    reduced: Reduced = field(repr=False)
    moments: Moments = field(repr=False)

    @cached_property
    def P(self) -> Float[Array, "d d"]:
        """The best preconditioner for these weights, [d, d]; computed when it is asked for."""
        return self.reduced.P(self.moments)

    @property
    def matrices(self) -> Float[Array, "K d d"]:
        r"""P for each task, [K, d, d], for labels multiplied by the gate's power of the tokens after them."""
        return np.repeat(self.P[None], len(self.omega), axis=0)


@dataclass(frozen=True, eq=False)
class KeyGate:
    r"""One weight per task and direction: $\hat\beta = \sum_k A \mathrm{diag}(\omega_k) B X_k^\top y_k$.

    Attributes:
        risk: expected squared error of the query's prediction.
        omega: weight of one example of each task along each direction, [K, d]; the step size is included.
        directions: A, eigenvectors of Σ as columns, [d, d]; for features that are not Gaussian those of Σ⁻¹FΣ⁻¹.
        readers: B, the transpose of A; for features that are not Gaussian Aᵀ Σ⁻¹.
        certificate: residual of the normal equations; the problem is convex, so nothing else is needed.
    """

    risk: float
    omega: Float[Array, "K d"]
    directions: Float[Array, "d0 d"]
    readers: Float[Array, "d d0"]
    certificate: Certificate

    @property
    def matrices(self) -> Float[Array, "K d0 d0"]:
        r"""$W_k$ = A diag(ω_k) B, [K, d, d]."""
        return (self.directions * self.omega[:, None, :]) @ self.readers
