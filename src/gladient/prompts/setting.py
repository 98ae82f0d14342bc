"""The data model: multitask prompts with correlated tasks, checked on construction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gladient._linalg import is_psd, is_symmetric, smallest_eigenvalue
from gladient._types import Array, ArrayLike, Float, Int

__all__ = ["LEAST_VARIANCE", "MOST_EXAMPLES", "MOST_VARIANCE", "MultitaskSetting", "correlation_matrix"]

# Eigenvalues may be below 0 by this much, times the largest entry: rounding of a product stays below 1e-13, and
# correlations typed with 10 digits are allowed.
_PSD_TOLERANCE = 1e-9
MOST_EXAMPLES = 10**12  # of a task: float64 still has a few digits for a task of one example beside it
LEAST_VARIANCE, MOST_VARIANCE = 1e-260, 1e260  # of Σ and σ²: times n² they stay within float64, 1e-308 to 1e308


@dataclass(frozen=True, eq=False)
class MultitaskSetting:
    r"""A multitask in-context regression problem: K correlated tasks in order, then one query.

    Tasks $\beta_1 \dots \beta_K$ and the query's task $\beta$ are jointly Gaussian, each $N(0, I_d)$, with
    $E[\beta_k^\top \beta_l]/d = R_{kl}$ and $E[\beta_k^\top \beta]/d = r_k$. Task k shows $n_k$ examples
    $x \sim N(0, \Sigma)$, $y = x^\top \beta_k + N(0, \sigma^2)$; the query is $(x, y)$ from $\beta$.

    Args:
        n: examples per task, K whole numbers from 1 to 10¹².
        R: task correlations ρ, [K, K], symmetric, positive semidefinite, unit diagonal.
        r: correlation of each task with the query's task, [K], entries in [-1, 1].
        Sigma: covariance of the features x, [d, d], symmetric, positive semidefinite, its largest entry within 1e-260
            and 1e260.
        sigma2: noise *variance* σ², from 0 to 1e260.

    Raises:
        ValueError: if an argument breaks its rule, or the joint matrix [[R, r], [rᵀ, 1]] is not positive semidefinite.

    Source: arXiv 2504.04308, section 4 (its R and r are per example; here they are per task).

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> setting.K, setting.d, setting.M
    (2, 10, 10.0)
    """

    n: Int[np.ndarray, " K"]
    R: Float[Array, "K K"]
    r: Float[Array, " K"]
    Sigma: Float[Array, "d d"]
    sigma2: float = 0.0

    def __init__(self, n: ArrayLike, R: ArrayLike, r: ArrayLike, Sigma: ArrayLike, sigma2: float = 0.0) -> None:
        counts = _counts(n)
        K = len(counts)
        task_correlations = _correlations(_numbers("R", R, (K, K)))
        query_correlations = _query_correlations(_numbers("r", r, (K,)))
        _check_joint(task_correlations, query_correlations)
        arrays = {
            "n": counts,
            "R": task_correlations,
            "r": query_correlations,
            "Sigma": _covariance(_square("Sigma", Sigma)),
        }
        # frozen: what was checked together must not change one by one
        for name, array in arrays.items():
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "sigma2", _variance(sigma2))

    @classmethod
    def isotropic(
        cls,
        n: Sequence[int] | np.ndarray,
        r: ArrayLike,
        *,
        d: int,
        R: ArrayLike | None = None,
        sigma2: float = 0.0,
    ) -> "MultitaskSetting":
        """A setting with Σ = I_d; tasks are uncorrelated unless R is given."""
        if isinstance(d, bool) or int(d) != d or d < 1:
            raise ValueError(f"d is {d!r}; it must be a whole number ≥ 1: give the number of features")
        return cls(n=n, R=np.eye(np.size(n)) if R is None else R, r=r, Sigma=np.eye(int(d)), sigma2=sigma2)

    @classmethod
    def drifting(cls, T: int, gamma: float, *, d: int, sigma2: float = 0.0) -> "MultitaskSetting":
        r"""One task that drifts: every example has its own, Σ = I_d.

        $$\beta_t = \gamma \beta_{t-1} + \sqrt{1 - \gamma^2}\, \xi_t, \quad R_{st} = \gamma^{|s - t|}, \quad
          r_t = \gamma^{T + 1 - t}:$$

        the query comes one step after the last example.

        Args:
            T: number of examples, each a task of its own.
            gamma: what is left of the task after a step, from 0 (each is new) to 1 (they are one).
            d: number of features.
            sigma2: noise variance.

        >>> MultitaskSetting.drifting(3, 0.5, d=10).r.tolist()
        [0.125, 0.25, 0.5]
        """
        if isinstance(T, bool) or int(T) != T or T < 1:
            raise ValueError(f"T is {T!r}; it must be a whole number ≥ 1: give the number of examples")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma is {gamma!r}; it lies between 0 (each task is new) and 1 (they are all one)")
        t = np.arange(int(T) + 1)
        chain = float(gamma) ** np.abs(t[:, None] - t)
        return cls.isotropic(n=np.ones(int(T), dtype=np.int64), R=chain[:-1, :-1], r=chain[:-1, -1], d=d, sigma2=sigma2)

    @property
    def K(self) -> int:
        """Number of tasks in the prompt."""
        return len(self.n)

    @property
    def d(self) -> int:
        """Number of features."""
        return len(self.Sigma)

    @property
    def M(self) -> float:
        """Risk of predicting 0: σ² + tr Σ."""
        return float(self.sigma2 + np.trace(self.Sigma))

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain lists and numbers; `MultitaskSetting(**setting.to_dict())` rebuilds it."""
        return {name: np.asarray(getattr(self, name)).tolist() for name in ("n", "R", "r", "Sigma", "sigma2")}


def correlation_matrix(rho: Sequence[float], K: int) -> Float[Array, "K K"]:
    """Correlations between K tasks from none, one for every pair, or the upper triangle row by row.

    Raises:
        ValueError: if rho has another number of entries.

    >>> correlation_matrix([0.5], 3).tolist()
    [[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.5, 0.5, 1.0]]
    """
    pairs = K * (K - 1) // 2
    if len(rho) not in (0, 1, pairs):
        raise ValueError(
            f"rho lists {len(rho)} numbers; {K} tasks need none, one for every pair, or "
            f"the {pairs} of the upper triangle"
        )
    R = np.eye(K)
    R[np.triu_indices(K, 1)] = rho if len(rho) == pairs else (rho[0] if len(rho) else 0.0)
    return np.triu(R) + np.triu(R, 1).T


def _numbers(name: str, value: ArrayLike, shape: tuple[int, ...] | None = None) -> Array:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} is {value!r}; it must hold real numbers: give a list or an array") from None
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; with {shape[0]} tasks in n it must have shape {shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; every entry must be finite: {array.tolist()}")
    return array


def _square(name: str, value: ArrayLike) -> Array:
    array = _numbers(name, value)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; it must be a square matrix [d, d] with d ≥ 1")
    return array


def _counts(n: ArrayLike) -> np.ndarray:
    array = _numbers("n", n)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"n has shape {array.shape}; it must list the examples of each task, e.g. [25, 25]")
    if (array < 1).any() or (array != np.round(array)).any():
        raise ValueError(f"n is {np.asarray(n).tolist()}; each task needs a whole number of examples, at least 1")
    if (array > MOST_EXAMPLES).any():
        raise ValueError(f"n is {np.asarray(n).tolist()}; a task may have 1e12 examples at most: use 1e12")
    return array.astype(np.int64)


def _require_psd(name: str, A: Array, cure: str) -> None:
    if not is_psd(A, _PSD_TOLERANCE * float(np.abs(A).max())):
        raise ValueError(
            f"{name} has the eigenvalue {smallest_eigenvalue(A):.4g}; it must be positive semidefinite: {cure}"
        )


def _correlations(R: Array) -> Array:
    if not is_symmetric(R):
        raise ValueError("R is not symmetric; R[k][l] and R[l][k] are the same correlation: make them equal")
    if np.abs(np.diag(R) - 1.0).max() > _PSD_TOLERANCE:
        raise ValueError(f"R has the diagonal {np.diag(R).tolist()}; a task has correlation 1 with itself: set it to 1")
    _require_psd("R", R, "make the correlations between tasks smaller or consistent with one another")
    return R


def _query_correlations(r: Array) -> Array:
    if (np.abs(r) > 1.0).any():
        raise ValueError(f"r is {r.tolist()}; a correlation lies between -1 and 1")
    return r


def _covariance(Sigma: Array) -> Array:
    largest = np.abs(Sigma).max()
    if largest == 0:
        raise ValueError("Sigma is zero; the features need some variance")
    if not LEAST_VARIANCE <= largest <= MOST_VARIANCE:
        raise ValueError(f"Sigma has the largest entry {largest:g}; it must be within 1e-260 and 1e260: scale x")
    if not is_symmetric(Sigma):
        raise ValueError("Sigma is not symmetric; it is the covariance of x: use (Sigma + Sigma.T) / 2")
    _require_psd("Sigma", Sigma, "a covariance has no negative variance in any direction")
    return Sigma


def _variance(sigma2: float) -> float:
    value = _numbers("sigma2", sigma2)
    if value.ndim != 0 or value < 0:
        raise ValueError(f"sigma2 is {sigma2!r}; it is the noise variance σ², one number ≥ 0")
    if value > MOST_VARIANCE:
        raise ValueError(f"sigma2 is {sigma2!r}; it may be 1e260 at most: scale y")
    return float(value)


def _check_joint(R: Array, r: Array) -> None:
    joint = np.block([[R, r[:, None]], [r[None, :], np.ones((1, 1))]])
    _require_psd(
        "the joint correlation matrix [[R, r], [rᵀ, 1]]",
        joint,
        "no task can be that close to the query; shrink r",
    )
