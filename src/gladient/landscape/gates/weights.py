"""Best weights of each family, as searches over c with a quadratic problem inside."""

from collections.abc import Callable

import numpy as np

from gladient._linalg import solve_spd
from gladient._types import Array
from gladient.landscape.gates.cone import solve_monotone, solve_nonnegative
from gladient.landscape.gates.krylov import measure
from gladient.landscape.gates.reduced import Moments, Reduced
from gladient.landscape.gates.search import maximise

__all__ = ["best_free", "best_monotone", "best_nonnegative", "weights_at"]

# Rounds in which the search's interval is narrowed; each asks for two solutions. The first saves the search 4 of 19
# solutions, the second 3, the third 2: no more than it asks for.
_SQUEEZES = 2

Solver = Callable[[Array, Array, Array, np.ndarray], tuple[Array, np.ndarray]]


def best_free(reduced: Reduced) -> tuple[Array, float]:
    """Best weights without constraint, and a lower bound of their risk."""
    seen = measure(reduced)
    values, a = seen.values, seen.parts

    def inner(c: float) -> tuple[Moments, float]:
        w = a / (1.0 + c * values)  # (c R̃ + I)⁻¹ r̃ in the basis where R̃ is diagonal
        signal = float(a @ w)
        # The search asks for t alone, which adds signal² again: what rounding takes is ε N, as from the eigenvalues.
        return Moments(signal, float(w @ (values * w)) - signal**2, float(w @ w)), c

    c, bound = maximise(reduced, inner, *_interval_of_t(reduced, inner))
    if seen.basis is None:
        omega = weights_at(reduced, c)
    else:
        omega = _normalised((a / (1.0 + c * values)) @ seen.basis / np.sqrt(reduced.n))
    return omega, _least_risk(reduced, bound * float(np.abs(reduced.r).max()) ** 2)


def _least_risk(reduced: Reduced, bound: float) -> float:
    """The risk that belongs to an upper bound of x φ(t), rounded down; what no direction has is always left."""
    return max(reduced.M * (1.0 - reduced.rounding) - reduced.unit * bound, reduced.rest)


def _interval_of_t(reduced: Reduced, inner: Callable[[float], tuple[Moments, float]]) -> tuple[float, float]:
    r"""Interval that has the t of every stationary point: the map from t to the t of its tangent's weights increases.

    The largest t is that of r itself, c = 0; the smallest belongs to the largest c.
    """
    low, high = inner(reduced.most_c)[0].t, inner(0.0)[0].t
    for _ in range(_SQUEEZES):
        low, high = (inner(B / A)[0].t for A, B in (reduced.secant(low, low), reduced.secant(high, high)))
    error = reduced.rounding * float(reduced.n.sum())  # of a t from eigenvalues, which are at most N
    return max(low - error, 0.0), high + error


def weights_at(reduced: Reduced, c: float) -> Array:
    """(c R + I)⁻¹ r per example, solved without the eigenbasis so that counts of any sizes keep their digits."""
    return _normalised(solve_spd(np.diag(reduced.n) + c * reduced.pairs, reduced.n * reduced.r_unit))


def best_monotone(reduced: Reduced) -> tuple[Array, float]:
    """Best weights with 0 ≤ ω_1 ≤ … ≤ ω_K and P of either sign, and a lower bound of their risk."""
    return _best_in_cone(reduced, solve_monotone)


def best_nonnegative(reduced: Reduced) -> tuple[Array, float]:
    """Best weights with ω ≥ 0 and P of either sign, and a lower bound of their risk."""
    return _best_in_cone(reduced, solve_nonnegative)


def _best_in_cone(reduced: Reduced, solver: Solver) -> tuple[Array, float]:
    found = [_one_sign(reduced, solver, sign) for sign in (1.0, -1.0)]
    omega = min((omega for omega, _ in found), key=lambda omega: reduced.risk(reduced.moments(omega)))
    return omega, _least_risk(reduced, max(bound for _, bound in found))


def _one_sign(reduced: Reduced, solver: Solver, sign: float) -> tuple[Array, float]:
    pairs, g = reduced.pairs, sign * reduced.n * reduced.r_unit
    guess = np.ones(len(g), dtype=bool)  # the next c changes little: what was open for the last one is a good guess

    def inner(c: float) -> tuple[Moments, Array]:
        nonlocal guess
        omega, guess = solver(reduced.n, c * pairs, g, guess)
        return reduced.moments(omega), omega

    # t is a Rayleigh quotient of R̃, whose trace is N
    omega, bound = maximise(reduced, inner, 0.0, float(reduced.n.sum()))
    return _normalised(omega), bound


def _normalised(omega: Array) -> Array:
    """Largest weight 1; all weights 1 where none helps."""
    scale = np.abs(omega).max()
    return omega / scale if scale > 0 else np.ones_like(omega)
