"""Global maximum over token weights of x φ(t), by secants of the concave 1/φ: one dimension, with a proof."""

from collections.abc import Callable
from typing import TypeVar

from gladient.landscape.gates.reduced import Moments, Reduced

__all__ = ["maximise"]

Weights = TypeVar("Weights")

# Relative gap between the proved upper bound and the value found. 1e-15 takes a tenth more solutions and proves no
# more, as rounding is added to the bound; from 1e-11 on the bound gets visibly worse.
_GAP = 1e-13


def maximise(
    reduced: Reduced, inner: Callable[[float], tuple[Moments, Weights]], t_low: float, t_high: float
) -> tuple[Weights, float]:
    r"""Weights that maximise $x\,\phi(t)$, that is, minimise the profile risk, over a whole family.

    $1/\phi$ is a harmonic mean of functions linear in t, hence concave: it lies above its secant A + B t on an interval
    and below its tangents. So among weights with t in that interval $x\,\phi(t) \le x / (A + B t)$, whose maximum is a
    quadratic problem with the single parameter c = B/A. Intervals whose bound does not beat the best value found are
    dropped, the others are split at the bound's own t. At the end the tangent at t is solved until t stays.

    The bound of a dropped interval is raised by what rounding can take from it. Its quadratic form
    $\tilde r^\top (I + c \tilde R)^{-1} \tilde r$, for $\tilde R$ off by $\epsilon N$ (N examples, $\epsilon$ is
    `Reduced.rounding`), is off by the part $\epsilon\, (1 + c N / (1 + c t))$: much where a task of few examples counts
    beside one of very many.

    Args:
        reduced: the setting.
        inner: c ↦ the weights of the family that maximise x / (1 + c t), and their moments.
        t_low: a lower bound of t over the family.
        t_high: an upper bound of t over the family.

    Returns:
        The weights, and a proved upper bound of x φ(t) over the family, φ in the units of `Reduced.gain`.

    Source: derived. For unconstrained weights the tangent's c is h2 of arXiv 2504.04308, and t at its solution is h1.
    """
    best, value, proved = inner(0.0), 0.0, 0.0
    N = float(reduced.n.sum())
    pending = [(t_low, t_high)]
    while pending:
        low, high = pending.pop()
        A, B = reduced.secant(low, high)
        found = inner(B / A)
        x, t = found[0].x, found[0].t
        if x * reduced.gain(t) > value:
            best, value = found, x * reduced.gain(t)
        # found maximises x / (1 + c t), so this bounds x φ(t) of every member of the family with t in the interval
        bound = x / (A + B * t)
        if bound > value * (1.0 + _GAP) and high - low > _GAP * (1.0 + high):
            # at the bound's own t the secants of both halves touch 1/φ: there the bound is gone
            middle = t if low < t < high else (low + high) / 2
            pending += [(low, middle), (middle, high)]
        else:
            proved = max(proved, bound * (1.0 + reduced.rounding * (1.0 + B * N / (A + B * t))))
    return _polish(reduced, inner, best), proved


def _polish(
    reduced: Reduced, inner: Callable[[float], tuple[Moments, Weights]], best: tuple[Moments, Weights]
) -> Weights:
    """Solve tangents until the weights reproduce their own t: each solution is at least as good as the one before."""
    # The search leaves t with half its digits. Up to 15 rounds are seen; more where two stationary points nearly merge.
    for _ in range(100):
        t = best[0].t
        A, B = reduced.secant(t, t)
        best = inner(B / A)
        if abs(best[0].t - t) <= 1e-14 * (1.0 + t):
            break
    return best[1]
