"""What a gate family can reach: the results that the rungs of the ladder return."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Moments, Reduced

__all__ = ["AnyRung", "Certificate", "KeyGate", "Rung", "few"]

_SHOWN = 8  # numbers in a line of text


@runtime_checkable
class AnyRung(Protocol):
    """What every rung says of itself, whether it found weights, steps and decays, or a mean over samples."""

    @property
    def risk(self) -> float:
        """Expected squared error of the query's prediction."""

    @property
    def weights(self) -> Float[Array, " K"] | None:
        """Weight of one example of each task; None where there is no one number per task."""

    @property
    def text(self) -> str:
        """What reaches the risk, in a line."""

    def numbers(self) -> dict[str, Any]:
        """All that was found, the certificate too, as plain numbers and lists: what JSON takes."""


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

    With one gate γ on every token the weights fall inside a task too; then omega holds each task's mean weight.

    Attributes:
        risk: expected squared error of the query's prediction; M (predicting 0) at worst.
        omega: weight of one example of each task, [K]; max |ω_k| = 1. The scale and the sign that the pair (P, ω)
            leaves open are in P, except that the unconstrained optimum has ωᵀr ≥ 0. With one gate on every token the
            mean, and the last example of the last task weighs 1.
        certificate: why no other weights of the family are better; empty for a gate that was given.
        reduced: the setting.
        moments: what the risk knows of the weights.
        gamma: the gate, where one stands on every token; else None.
    """

    risk: float
    omega: Float[Array, " K"]
    certificate: Certificate
    reduced: Reduced = field(repr=False)
    moments: Moments = field(repr=False)
    gamma: float | None = None

    @cached_property
    def P(self) -> Float[Array, "d d"]:
        """The best preconditioner for exactly these weights, [d, d]; 0 if no weight in the family helps.

        Computed when it is asked for: with many features it costs more than the rest.
        """
        return self.reduced.P(self.moments)

    @property
    def matrices(self) -> Float[Array, "K d d"]:
        r"""$W_k = \omega_k P$ of the estimate $\hat\beta = \sum_k W_k X_k^\top y_k$, [K, d, d].

        P for each task with one gate on every token, for labels multiplied by the gate's power of the tokens after
        them.
        """
        if self.gamma is not None:
            return np.repeat(self.P[None], len(self.omega), axis=0)
        return self.omega[:, None, None] * self.P

    @property
    def token_decay(self) -> float:
        """What `matrices` leaves to the labels: the weight of an example beside that of the token after it."""
        return 1.0 if self.gamma is None else self.gamma

    @property
    def weights(self) -> Float[Array, " K"]:
        """Weight of one example of each task, [K]: omega."""
        return self.omega

    @property
    def text(self) -> str:
        """The weights, and the gate if there is one on every token."""
        return few(self.omega) if self.gamma is None else f"{few(self.omega)}  (γ = {self.gamma:.6g}; means)"

    def numbers(self) -> dict[str, Any]:
        """risk, gamma if there is one, omega and the certificate, for JSON."""
        gate = {} if self.gamma is None else {"gamma": self.gamma}
        return {"risk": self.risk, **gate, "omega": self.omega.tolist(), "certificate": asdict(self.certificate)}


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

    @property
    def token_decay(self) -> float:
        """1: the examples of a task weigh the same."""
        return 1.0

    @property
    def weights(self) -> None:
        """None: there is one for each direction."""

    @property
    def text(self) -> str:
        """That there is a weight for each direction."""
        return "one for each direction"

    def numbers(self) -> dict[str, Any]:
        """risk, omega and the certificate, for JSON."""
        return {"risk": self.risk, "omega": self.omega.tolist(), "certificate": asdict(self.certificate)}


def few(values: Float[Array, " K"]) -> str:
    """The first numbers in four digits.

    >>> few(np.arange(10) / 3)
    '0 0.3333 0.6667 1 1.333 1.667 2 2.333 …'
    """
    return " ".join(f"{value:.4g}" for value in values[:_SHOWN]) + (" …" if len(values) > _SHOWN else "")
