"""Quadratic problems over the monotone cone 0 ≤ ω_1 ≤ … ≤ ω_K, solved exactly by pooling tasks that share a weight."""

import numpy as np
from jaxtyping import Bool, Float

from gladient._linalg import solve_spd
from gladient._types import Array

__all__ = ["solve_monotone"]

_TOLERANCE = 1e-12


def solve_monotone(
    n: Float[Array, " K"], Q: Float[Array, "K K"], g: Float[Array, " K"], rises: Bool[np.ndarray, " K"]
) -> tuple[Float[Array, " K"], Bool[np.ndarray, " K"]]:
    r"""Minimiser of $\tfrac12 \omega^\top (\mathrm{diag}(n) + Q)\,\omega - g^\top \omega$ over the monotone cone.

    Where the weight does not rise, a task shares the weight of the task before it (0 before the first). Given the rises
    the minimiser is one linear system in the pooled tasks; rises that come out negative are closed, and closed ones
    that the gradient would open are opened, all together while their number falls, else the last one alone
    (block principal pivoting: finite, because the matrix is positive definite).

    Args:
        n: examples per task, [K], positive.
        Q: positive semidefinite matrix, [K, K].
        g: linear term, [K].
        rises: guess of where the weight rises, [K]; the answer does not depend on it.

    Returns:
        ω [K] and where it rises [K].

    Raises:
        RuntimeError: if rounding keeps the exchange from settling.

    Source: derived; the exchange rule is Júdice and Pires' for non-negative least squares.
    """
    fewest, patience = len(n) + 1, 3
    for _ in range(100 + 20 * len(n)):
        omega = _pooled(n, Q, g, rises)
        wrong = _wrong(n, Q, g, rises, omega)
        count = int(wrong.sum())
        if count == 0:
            return np.maximum.accumulate(np.clip(omega, 0.0, None)), rises
        if count < fewest:
            fewest, patience = count, 3
        elif patience > 0:
            patience -= 1
        else:
            wrong[: np.flatnonzero(wrong)[-1]] = False
        rises = rises ^ wrong
    raise RuntimeError(f"the monotone weights of {len(n)} tasks did not settle; report the setting that led here")


def _pooled(n: Array, Q: Array, g: Array, rises: np.ndarray) -> Array:
    """Minimiser where ω changes only at `rises`."""
    starts = np.flatnonzero(rises)
    omega = np.zeros_like(g)
    if len(starts):
        H = np.add.reduceat(np.add.reduceat(Q, starts, axis=0), starts, axis=1)
        H[np.diag_indices_from(H)] += np.add.reduceat(n, starts)
        omega[starts[0] :] = np.repeat(solve_spd(H, np.add.reduceat(g, starts)), np.diff(np.append(starts, len(g))))
    return omega


def _wrong(n: Array, Q: Array, g: Array, rises: np.ndarray, omega: Array) -> np.ndarray:
    """Rises that are negative, and closed rises whose opening would lower the objective."""
    slope = np.cumsum((g - n * omega - Q @ omega)[::-1])[::-1]
    size = np.cumsum((np.abs(g) + n * np.abs(omega) + np.abs(Q) @ np.abs(omega))[::-1])[::-1]
    negative = np.diff(omega, prepend=0.0) < -_TOLERANCE * np.abs(omega).max()
    return np.asarray(np.where(rises, negative, slope > _TOLERANCE * size))
