"""The optimum of thousands of settings at once: sweeps and heat maps."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from gladient._types import Array, ArrayLike
from gladient.landscape._reduced import Reduced
from gladient.landscape._weights import best_free

__all__ = ["OptimumBatch", "optimum_batch"]

_ENTRIES = 2_000_000  # numbers held at once in an intermediate array
_CLOSE = 1e-10  # relative distance at which the two ends of the squeeze count as one fixed point


@dataclass(frozen=True, eq=False)
class OptimumBatch:
    """Global optima of many settings.

    Attributes:
        risk: optimal risk, [B]; NaN where not valid.
        omega: weight of one example of each task, [B, K]; max |ω_k| = 1, ωᵀr ≥ 0; NaN where not valid.
        valid: whether the correlations are possible: the joint matrix [[R, r], [rᵀ, 1]] is positive semidefinite.
        unique: whether the fixed point was proved to be the only one, so that the optimum is; else it was searched.
    """

    risk: Float[Array, " B"]
    omega: Float[Array, "B K"]
    valid: Bool[np.ndarray, " B"]
    unique: Bool[np.ndarray, " B"]


def optimum_batch(
    n: ArrayLike, R: ArrayLike, r: ArrayLike, spectrum: ArrayLike, sigma2: ArrayLike = 0.0
) -> OptimumBatch:
    r"""`optimum` of many settings, vectorised.

    The fixed-point map is increasing, so iterating it from both ends of its interval encloses all fixed points: where
    the two meet there is only one. The few settings where they do not are solved one by one.

    Args:
        n: examples per task, [B, K] or [K].
        R: task correlations, [B, K, K] or [K, K].
        r: correlations with the query's task, [B, K] or [K].
        spectrum: eigenvalues of Σ, [B, d] or [d].
        sigma2: noise variance, [B] or one number.

    Raises:
        ValueError: if shapes do not agree, a number is not finite, or a count, an eigenvalue or a variance is out of
            range. Correlations that are impossible are no error: they are marked in `valid`.

    Source: derived.

    >>> found = optimum_batch([25, 25], np.eye(2), [[0.2, 0.8], [0.8, 0.2], [0.9, 0.9]], np.ones(10))
    >>> print(found.risk.round(6), found.valid)
    [5.277778 5.277778      nan] [ True  True False]
    """
    arrays = _broadcast(n, R, r, spectrum, sigma2)
    B, K = arrays[0].shape
    found = OptimumBatch(np.full(B, np.nan), np.full((B, K), np.nan), np.zeros(B, dtype=bool), np.zeros(B, dtype=bool))
    block = max(1, _ENTRIES // (K * K + arrays[3].shape[1]))
    for start in range(0, B, block):
        rows = slice(start, start + block)
        _solve_block(tuple(array[rows] for array in arrays), found, start)
    return found


def _broadcast(n: ArrayLike, R: ArrayLike, r: ArrayLike, spectrum: ArrayLike, sigma2: ArrayLike) -> tuple[Array, ...]:
    arrays = [np.asarray(value, dtype=np.float64) for value in (n, R, r, spectrum, sigma2)]
    names, trailing = ("n", "R", "r", "spectrum", "sigma2"), (1, 2, 1, 1, 0)
    for name, array, dims in zip(names, arrays, trailing, strict=True):
        if array.ndim not in (dims, dims + 1):
            raise ValueError(f"{name} has shape {array.shape}; it needs {dims} axes, or one more for the batch")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
    K, d = arrays[0].shape[-1], arrays[3].shape[-1]
    if K == 0 or d == 0 or arrays[1].shape[-2:] != (K, K) or arrays[2].shape[-1] != K:
        shapes = [array.shape for array in arrays[:4]]
        raise ValueError(f"n, R, r, spectrum have shapes {shapes}; they must end in [K], [K, K], [K], [d]")
    if (arrays[0] < 1).any() or (arrays[3] < 0).any() or (arrays[4] < 0).any() or (arrays[3].sum(axis=-1) <= 0).any():
        raise ValueError("a count is below 1, an eigenvalue or a noise variance below 0, or a spectrum is all 0")
    batches = {len(array) for array, dims in zip(arrays, trailing, strict=True) if array.ndim > dims}
    if len(batches) > 1:
        raise ValueError(f"the batch sizes are {sorted(batches)}; they must agree")
    B = batches.pop() if batches else 1
    full = [
        np.broadcast_to(array, (B, *array.shape[array.ndim - dims :]))
        for array, dims in zip(arrays, trailing, strict=True)
    ]
    return tuple(full)


def _solve_block(block: tuple[Array, ...], found: OptimumBatch, start: int) -> None:
    """Solve the valid settings of a block and write them into `found` from row `start`."""
    valid = _is_valid(block[1], block[2])
    rows = start + np.flatnonzero(valid)
    n, R, r, s, sigma2 = (array[valid] for array in block)
    M = sigma2 + s.sum(axis=1)
    root = np.sqrt(n)
    eigenvalues, E = np.linalg.eigh(R * root[:, :, None] * root[:, None, :])
    eigenvalues = np.clip(eigenvalues, 0.0, None)
    a = np.einsum("bki,bk->bi", E, root * r)
    c, unique = _squeeze(eigenvalues, a, s, M)
    omega = np.einsum("bki,bi->bk", E, a / (1.0 + c[:, None] * eigenvalues)) / root
    for i in np.flatnonzero(~unique):
        one = Reduced(n[i], R[i], r[i], np.sort(s[i]), np.eye(s.shape[1]), float(M[i]), float(sigma2[i]))
        omega[i] = best_free(one)[0]
    scale = np.abs(omega).max(axis=1, keepdims=True)
    omega = np.where(scale > 0, omega / np.where(scale > 0, scale, 1.0), 1.0)
    found.valid[rows], found.unique[rows], found.omega[rows] = True, unique, omega
    found.risk[rows] = _risks(n, R, r, s, sigma2, M, omega)


def _is_valid(R: Array, r: Array) -> np.ndarray:
    """The rule of `MultitaskSetting` for correlations."""
    B, K = r.shape
    joint = np.ones((B, K + 1, K + 1))
    joint[:, :K, :K], joint[:, :K, K], joint[:, K, :K] = R, r, r
    diagonal = np.abs(np.einsum("bii->bi", R) - 1.0).max(axis=1) <= 1e-9
    symmetric = np.abs(R - R.transpose(0, 2, 1)).max(axis=(1, 2)) <= 1e-10
    return np.asarray(diagonal & symmetric & (np.linalg.eigvalsh(joint)[:, 0] >= -1e-9))


def _squeeze(eigenvalues: Array, a: Array, s: Array, M: Array) -> tuple[Array, np.ndarray]:
    """The c of the fixed point, and whether the smallest and the largest fixed point are the same."""
    power = a**2
    low, high = 1.0 + eigenvalues[:, 0], 1.0 + eigenvalues[:, -1]
    active = np.arange(len(a))
    for _ in range(200):
        part = (eigenvalues[active], power[active], s[active], M[active])
        low[active], high[active] = _image(low[active], *part), _image(high[active], *part)
        active = active[high[active] - low[active] > _CLOSE * high[active]]
        if len(active) == 0:
            break
    unique = np.ones(len(a), dtype=bool)
    unique[active] = False
    return _h2((low + high) / 2, s, M), unique


def _image(gamma: Array, eigenvalues: Array, power: Array, s: Array, M: Array) -> Array:
    m = power / (1.0 + eigenvalues * _h2(gamma, s, M)[:, None]) ** 2
    total = m.sum(axis=1)
    return np.asarray(1.0 + np.sum(m * eigenvalues, axis=1) / np.where(total > 0, total, 1.0))


def _h2(gamma: Array, s: Array, M: Array) -> Array:
    share = s / M[:, None]
    v = (s / s.max(axis=1, keepdims=True) / (1.0 + share * gamma[:, None])) ** 2
    e = np.sum(v * share, axis=1) / v.sum(axis=1)
    return np.asarray(e / (e + 1.0))


def _risks(n: Array, R: Array, r: Array, s: Array, sigma2: Array, M: Array, omega: Array) -> Array:
    """Profile risks as sums of positive terms, as in `Reduced.risk`."""
    sums = n * omega
    signal = np.sum(sums * r, axis=1)
    excess = np.einsum("bk,bkl,bl->b", sums, R - r[:, :, None] * r[:, None, :], sums)
    energy = np.sum(n * omega**2, axis=1)
    share = s / M[:, None]
    lost = share * (energy + np.clip(excess, 0.0, None))[:, None] + energy[:, None]
    return np.asarray(sigma2 + np.sum(s * (lost / (lost + share * signal[:, None] ** 2)), axis=1))
