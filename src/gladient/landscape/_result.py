"""What a gate family can reach: the result that every rung of the ladder returns."""

from dataclasses import dataclass

from jaxtyping import Float

from gladient._types import Array

__all__ = ["FixedDecay", "Rung"]


@dataclass(frozen=True, eq=False)
class Rung:
    """The best that a family of token weights can do: `risk(P, omega, setting)` gives `risk` back.

    Attributes:
        risk: expected squared error of the query's prediction; M (predicting 0) at worst.
        omega: weight of one example of each task, [K]; max |ω_k| = 1. The scale and the sign that the pair (P, ω)
            leaves open are in P, except that the unconstrained optimum has ωᵀr ≥ 0.
        P: the best preconditioner for exactly this omega, [d, d]; 0 if no weight in the family helps.
    """

    risk: float
    omega: Float[Array, " K"]
    P: Float[Array, "d d"]


@dataclass(frozen=True, eq=False)
class FixedDecay:
    """One gate γ on every token: weights decay inside a task too, so `omega` holds each task's mean weight.

    Attributes:
        risk: expected squared error of the query's prediction.
        gamma: the gate.
        omega: mean weight of an example of each task, [K]; the last example of the last task weighs 1.
        P: the best preconditioner for these weights, [d, d].
    """

    risk: float
    gamma: float
    omega: Float[Array, " K"]
    P: Float[Array, "d d"]
