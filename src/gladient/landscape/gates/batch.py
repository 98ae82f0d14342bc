"""The optimum of thousands of settings at once: sweeps and heat maps."""

from dataclasses import dataclass

import numpy as np

from gladient._linalg import ratio
from gladient._types import Array, ArrayLike, Bool, Float
from gladient.landscape.gates.reduced import Reduced
from gladient.landscape.gates.weights import best_free
from gladient.prompts.setting import LEAST_VARIANCE, MOST_EXAMPLES, MOST_VARIANCE

__all__ = ["OptimumBatch", "broadcast", "is_valid", "optimum_batch"]

_ENTRIES = 2_000_000  # numbers held at once in an intermediate array: 16 MB
# Relative distance at which the two ends of the squeeze count as one fixed point. The risk is flat there, so it has all
# its digits from 1e-8 on; 1e-10 takes a few rounds more and leaves room for less.
_CLOSE = 1e-10


@dataclass(frozen=True, eq=False)
class OptimumBatch:
    """Global optima of many settings.

    Attributes:
        risk: optimal risk, [B]; NaN where not valid.
        omega: weight of one example of each task, [B, K]; max |ω_k| = 1, ωᵀr ≥ 0; NaN where not valid.
        valid: whether the correlations are possible: the joint matrix [[R, r], [rᵀ, 1]] is positive semidefinite.
        unique: whether the fixed point was proved to be the only one, so that the optimum is; else it was searched.
        linear_attention: risk of ω = 1, [B]; NaN where not valid.
    """

    risk: Float[Array, " B"]
    omega: Float[Array, "B K"]
    valid: Bool[np.ndarray, " B"]
    unique: Bool[np.ndarray, " B"]
    linear_attention: Float[Array, " B"]

    @property
    def scalar_margin(self) -> Float[Array, " B"]:
        r"""How far ±ω* is inside $0 \le \omega_1 \le \dots \le \omega_K$, [B]; a scalar gate attains it if ≥ 0."""
        rises = np.diff(self.omega, axis=1, prepend=0.0)
        return np.asarray(np.maximum(rises.min(axis=1), -rises.max(axis=1)))


def optimum_batch(
    n: ArrayLike,
    R: ArrayLike,
    r: ArrayLike,
    spectrum: ArrayLike,
    sigma2: ArrayLike = 0.0,
    multiplicity: ArrayLike | None = None,
) -> OptimumBatch:
    r"""`optimum` and `linear_attention` of many settings, vectorised.

    The fixed-point map is increasing, so iterating it from both ends of its interval encloses all fixed points: where
    the two meet there is only one. The few settings where they do not are solved one by one.

    Args:
        n: examples per task, [B, K] or [K].
        R: task correlations, [B, K, K] or [K, K].
        r: correlations with the query's task, [B, K] or [K].
        spectrum: eigenvalues of Σ, [B, d] or [d].
        sigma2: noise variance, [B] or one number.
        multiplicity: how many directions share each eigenvalue, [B, d] or [d], ≥ 1; 1 if not given. The cost does not
            depend on it: `spectrum=[1.0], multiplicity=[10**8]` is Σ = I of 10⁸ features.

    Raises:
        ValueError: if shapes do not agree, a number is not finite, or a count, an eigenvalue or a variance is out of
            the range of `MultitaskSetting`. Impossible correlations are not an error: they are marked in `valid`.

    Source: derived.

    >>> found = optimum_batch([25, 25], np.eye(2), [[0.2, 0.8], [0.8, 0.2], [0.9, 0.9]], np.ones(10))
    >>> print(found.risk.round(6), found.valid)
    [5.277778 5.277778      nan] [ True  True False]
    """
    arrays = broadcast(n, R, r, spectrum, sigma2, np.ones(np.shape(spectrum)) if multiplicity is None else multiplicity)
    B, K = arrays[0].shape
    no, nan = np.zeros(B, dtype=bool), np.full(B, np.nan)
    found = OptimumBatch(
        risk=nan, omega=np.full((B, K), np.nan), valid=no, unique=no.copy(), linear_attention=nan.copy()
    )
    block = max(1, _ENTRIES // (K * K + arrays[3].shape[1]))
    for start in range(0, B, block):
        rows = slice(start, start + block)
        _solve_block(tuple(array[rows] for array in arrays), found, start)
    return found


def broadcast(*values: ArrayLike) -> tuple[Array, ...]:
    """n, R, r, spectrum, sigma2 and multiplicity as arrays of one batch size, checked."""
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    names, trailing = ("n", "R", "r", "spectrum", "sigma2", "multiplicity"), (1, 2, 1, 1, 0, 1)
    for name, array, dims in zip(names, arrays, trailing, strict=True):
        if array.ndim not in (dims, dims + 1):
            raise ValueError(f"{name} has shape {array.shape}; it needs {dims} axes, or one more for the batch")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
    K, d = arrays[0].shape[-1], arrays[3].shape[-1]
    ends = [array.shape[array.ndim - dims :] for array, dims in zip(arrays, trailing, strict=True)]
    if K == 0 or d == 0 or ends != [(K,), (K, K), (K,), (d,), (), (d,)]:
        shapes = [array.shape for array in arrays]
        raise ValueError(f"{', '.join(names)} have shapes {shapes}; they must end in [K], [K, K], [K], [d], [], [d]")
    _require_ranges(*arrays)
    batches = {len(array) for array, dims in zip(arrays, trailing, strict=True) if array.ndim > dims}
    if len(batches) > 1:
        raise ValueError(f"the batch sizes are {sorted(batches)}; they must agree")
    B = batches.pop() if batches else 1
    return tuple(np.broadcast_to(array, (B, *end)) for array, end in zip(arrays, ends, strict=True))


def _require_ranges(n: Array, R: Array, r: Array, spectrum: Array, sigma2: Array, multiplicity: Array) -> None:
    if (n < 1).any() or (n > MOST_EXAMPLES).any():
        raise ValueError(f"a count is below 1 or above 1e12: n lies between {n.min():g} and {n.max():g}")
    if (multiplicity < 1).any() or (multiplicity > MOST_EXAMPLES).any():
        raise ValueError("a multiplicity of an eigenvalue is below 1 or above 1e12")
    if (spectrum < 0).any() or (sigma2 < 0).any() or (spectrum.max(axis=-1) <= 0).any():
        raise ValueError("an eigenvalue or a noise variance is below 0, or a spectrum is all 0")
    largest = spectrum.max(axis=-1)
    if (largest < LEAST_VARIANCE).any() or max(largest.max(), sigma2.max()) > MOST_VARIANCE:
        raise ValueError(
            f"a largest eigenvalue or a noise variance is outside {LEAST_VARIANCE:g} and {MOST_VARIANCE:g}: "
            "scale x and y"
        )


def _solve_block(block: tuple[Array, ...], found: OptimumBatch, start: int) -> None:
    """Solve the valid settings of a block and write them into `found` from row `start`."""
    valid = is_valid(block[1], block[2])
    rows = start + np.flatnonzero(valid)
    n, R, r, s, sigma2, times = (array[valid] for array in block)
    M = sigma2 + np.sum(times * s, axis=1)
    root = np.sqrt(n)
    eigenvalues, E = np.linalg.eigh(R * root[:, :, None] * root[:, None, :])
    eigenvalues = np.clip(eigenvalues, 0.0, None)
    a = np.einsum("bki,bk->bi", E, root * r)
    c, unique = _squeeze(eigenvalues, a, s, M, times)
    omega = np.einsum("bki,bi->bk", E, a / (1.0 + c[:, None] * eigenvalues)) / root
    for i in np.flatnonzero(~unique):  # two fixed points at least, or nearly: the search with a proof decides
        up = np.argsort(s[i])
        w, total = s[i][up], float(M[i])
        one = Reduced(
            n=n[i], R=R[i], r=r[i], w=w, h=w / (w + total), M=total, rest=float(sigma2[i]), times=times[i][up]
        )
        omega[i] = best_free(one)[0]
    scale = np.abs(omega).max(axis=1, keepdims=True)
    omega = ratio(omega, scale)
    found.valid[rows], found.unique[rows], found.omega[rows] = True, unique, omega
    found.risk[rows] = _risks(n, R, r, s, sigma2, M, times, omega)
    found.linear_attention[rows] = _risks(n, R, r, s, sigma2, M, times, np.ones_like(omega))


def is_valid(R: Array, r: Array) -> np.ndarray:
    """The rule of `MultitaskSetting` for correlations."""
    B, K = r.shape
    joint = np.ones((B, K + 1, K + 1))
    joint[:, :K, :K], joint[:, :K, K], joint[:, K, :K] = R, r, r
    # the tolerances of `prompts.setting`, whose largest entry is 1 here
    diagonal = np.abs(np.einsum("bii->bi", R) - 1.0).max(axis=1) <= 1e-9
    symmetric = np.abs(R - R.transpose(0, 2, 1)).max(axis=(1, 2)) <= 1e-10
    return np.asarray(diagonal & symmetric & (np.linalg.eigvalsh(joint)[:, 0] >= -1e-9))


def _squeeze(eigenvalues: Array, a: Array, s: Array, M: Array, times: Array) -> tuple[Array, np.ndarray]:
    """The c of the fixed point, and whether the smallest and the largest fixed point are the same."""
    size = np.abs(a).max(axis=1, keepdims=True)
    power = (a / np.where(size > 0, size, 1.0)) ** 2  # no r is so small that its square vanishes
    low, high = 1.0 + eigenvalues[:, 0], 1.0 + eigenvalues[:, -1]
    active = np.arange(len(a))
    for _ in range(200):  # 20 are usual; at a slope near 1 the ends creep, and the search is quicker
        part = (eigenvalues[active], power[active], s[active], M[active], times[active])
        low[active], high[active] = _image(low[active], *part), _image(high[active], *part)
        active = active[high[active] - low[active] > _CLOSE * high[active]]
        if len(active) == 0:
            break
    unique = np.ones(len(a), dtype=bool)
    unique[active] = False
    return _h2((low + high) / 2, s, M, times), unique


def _image(gamma: Array, eigenvalues: Array, power: Array, s: Array, M: Array, times: Array) -> Array:
    m = power / (1.0 + eigenvalues * _h2(gamma, s, M, times)[:, None]) ** 2
    total = m.sum(axis=1)
    return np.asarray(1.0 + np.sum(m * eigenvalues, axis=1) / np.where(total > 0, total, 1.0))


def _h2(gamma: Array, s: Array, M: Array, times: Array) -> Array:
    # h = s / (s + M) and w h / (1 + h t)² = s² (s + M) / (M + s γ)²; e is h2 / (1 - h2), a ratio of two sums of
    # positive terms. s over its largest: no scale of Σ overflows.
    share = s / M[:, None]
    v = times * (s / s.max(axis=1, keepdims=True) / (1.0 + share * gamma[:, None])) ** 2
    e = np.sum(v * share, axis=1) / v.sum(axis=1)
    return np.asarray(e / (e + 1.0))


def _risks(n: Array, R: Array, r: Array, s: Array, sigma2: Array, M: Array, times: Array, omega: Array) -> Array:
    """Profile risks as sums of positive terms, as in `Reduced.risk`."""
    sums = n * omega
    signal = np.sum(sums * r, axis=1)
    excess = np.einsum("bk,bkl,bl->b", sums, R - r[:, :, None] * r[:, None, :], sums)
    energy = np.sum(n * omega**2, axis=1)
    share = s / M[:, None]
    lost = share * (energy + np.clip(excess, 0.0, None))[:, None] + energy[:, None]
    return np.asarray(sigma2 + np.sum(times * s * (lost / (lost + share * signal[:, None] ** 2)), axis=1))
