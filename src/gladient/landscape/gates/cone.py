"""Convex quadratic problems over the cones of token weights, solved exactly by exchanging what is open and closed."""

from collections.abc import Callable

import numpy as np

from gladient._linalg import solve_spd
from gladient._types import Array, Bool, Float

__all__ = ["solve_monotone", "solve_nonnegative"]

# Relative size below which a weight or a slope is rounding. From 1e-15 to 1e-12 random settings give the same weights;
# what is taken for rounding by mistake moves the risk by its square.
_TOLERANCE = 1e-12


def solve_monotone(
    n: Float[Array, " K"], Q: Float[Array, "K K"], g: Float[Array, " K"], rises: Bool[np.ndarray, " K"]
) -> tuple[Float[Array, " K"], Bool[np.ndarray, " K"]]:
    r"""Minimiser of $\tfrac12 \omega^\top (\mathrm{diag}(n) + Q)\,\omega - g^\top \omega$ over the monotone cone.

    The cone is $0 \le \omega_1 \le \dots \le \omega_K$. Where the weight does not rise, a task shares the weight of the
    task before it (0 before the first); given the rises the minimiser is one linear system in the pooled tasks.

    Args:
        n: examples per task, [K], positive.
        Q: positive semidefinite matrix, [K, K].
        g: linear term, [K].
        rises: guess of where the weight rises, [K]; the answer does not depend on it.

    Returns:
        ω [K] and where it rises [K].

    Source: derived.
    """

    # In the increments of ω the cone is ≥ 0. Raising the k-th increment raises all weights from k on, so its slope is
    # the sum of their slopes.
    def solve(rises: np.ndarray) -> tuple[Array, np.ndarray]:
        omega = _pooled(n, Q, g, np.flatnonzero(rises))
        slope, size = (np.cumsum(part[::-1])[::-1] for part in _slope(n, Q, g, omega))
        return omega, _wrong(rises, np.diff(omega, prepend=0.0), slope, size, omega)

    omega, rises = _exchange(solve, rises)
    return np.maximum.accumulate(np.clip(omega, 0.0, None)), rises  # off the cone by the tolerance at most


def solve_nonnegative(
    n: Float[Array, " K"], Q: Float[Array, "K K"], g: Float[Array, " K"], free: Bool[np.ndarray, " K"]
) -> tuple[Float[Array, " K"], Bool[np.ndarray, " K"]]:
    """The same minimiser over ω ≥ 0; `free` guesses which weights are positive."""

    def solve(free: np.ndarray) -> tuple[Array, np.ndarray]:
        omega, open_ = np.zeros_like(g), np.flatnonzero(free)
        omega[open_] = solve_spd(np.diag(n[open_]) + Q[np.ix_(open_, open_)], g[open_])
        return omega, _wrong(free, omega, *_slope(n, Q, g, omega), omega)

    omega, free = _exchange(solve, free)
    return np.clip(omega, 0.0, None), free


def _exchange(solve: Callable[[np.ndarray], tuple[Array, np.ndarray]], is_open: np.ndarray) -> tuple[Array, np.ndarray]:
    """Flip everything on the wrong side while that makes progress, else the last one alone.

    Block principal pivoting for a positive definite matrix: it ends, by Júdice and Pires (1994).
    """
    # Flipping all can cycle. After 3 rounds without fewer wrong ones the last alone is flipped, which cannot (Murty's
    # rule), until there are fewer.
    fewest, patience = len(is_open) + 1, 3
    for _ in range(100 + 20 * len(is_open)):  # up to 10 rounds are seen; NaN would use up all
        omega, wrong = solve(is_open)
        count = int(wrong.sum())
        if count == 0:
            return omega, is_open
        if count < fewest:
            fewest, patience = count, 3
        elif patience > 0:
            patience -= 1
        else:
            wrong[: np.flatnonzero(wrong)[-1]] = False
        is_open = is_open ^ wrong
    raise RuntimeError(f"the best weights of {len(is_open)} tasks did not settle; report the setting that led here")


def _pooled(n: Array, Q: Array, g: Array, starts: np.ndarray) -> Array:
    """Minimiser where ω changes only at `starts`."""
    omega = np.zeros_like(g)
    if len(starts):
        H = np.add.reduceat(np.add.reduceat(Q, starts, axis=0), starts, axis=1)
        H[np.diag_indices_from(H)] += np.add.reduceat(n, starts)
        omega[starts[0] :] = np.repeat(solve_spd(H, np.add.reduceat(g, starts)), np.diff(np.append(starts, len(g))))
    return omega


def _slope(n: Array, Q: Array, g: Array, omega: Array) -> tuple[Array, Array]:
    """Descent direction at ω, and the size of the terms whose small difference it is."""
    size = np.abs(g) + n * np.abs(omega) + np.abs(Q) @ np.abs(omega)
    return g - n * omega - Q @ omega, size


def _wrong(is_open: np.ndarray, value: Array, slope: Array, size: Array, omega: Array) -> np.ndarray:
    """Open coordinates that are negative, and closed ones whose opening would lower the objective."""
    return np.asarray(np.where(is_open, value < -_TOLERANCE * np.abs(omega).max(), slope > _TOLERANCE * size))
