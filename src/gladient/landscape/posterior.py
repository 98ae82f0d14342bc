"""Bayes: the risk of the posterior mean over all tasks, by Monte Carlo over the features alone."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gladient._linalg import psd_factor
from gladient._types import Array, Float
from gladient.prompts import MultitaskSetting

__all__ = ["Estimate", "bayes"]

_ENTRIES = 4_000_000  # kernel entries held at once: 32 MB
_RANK = 1e-12  # eigenvalues of a kernel with unit diagonal below this, times its rows, are rounding


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo mean.

    Attributes:
        risk: the mean.
        standard_error: its standard error.
        prompts: sampled prompts.
    """

    risk: float
    standard_error: float
    prompts: int

    @property
    def weights(self) -> None:
        """None: the posterior mean weighs nothing once and for all."""

    @property
    def text(self) -> str:
        """How well the risk is known."""
        return f"± {self.standard_error:.2g} (standard error, {self.prompts} prompts)"

    def numbers(self) -> dict[str, Any]:
        """risk, standard_error and prompts, for JSON."""
        return asdict(self)


def bayes(setting: MultitaskSetting, prompts: int = 1000, seed: int = 0) -> Estimate:
    r"""Risk of $E[y \mid \text{prompt}]$, which no estimator beats; it has no closed form.

    Given the features the posterior is Gaussian and its variance does not depend on the labels, so only features are
    sampled: the mean of $\sigma^2 + \operatorname{tr}(\Sigma\, \mathrm{Cov}(\beta \mid X))$. A task with $n_k > d$
    examples is the same to the posterior as d of them with features $T \Sigma^{1/2}$, TᵀT a Wishart matrix (Bartlett's
    triangle), so the cost does not grow with n.

    Args:
        setting: the data.
        prompts: samples, at least 2.
        seed: seed of the samples.

    Raises:
        ValueError: if prompts < 2.

    Source: derived.

    >>> estimate = bayes(MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10), prompts=200)
    >>> print(f"{estimate.risk:.10f}")  # both tasks are known exactly: 10 (1 - 0.2² - 0.8²)
    3.2000000000
    """
    if prompts < 2:
        raise ValueError(f"prompts is {prompts}; a standard error needs at least 2 samples")
    rng = np.random.default_rng(seed)
    rows = int(np.minimum(setting.n, setting.d).sum())
    block = max(1, _ENTRIES // rows**2)
    sizes = [min(block, prompts - start) for start in range(0, prompts, block)]
    risks = np.concatenate([_posterior_risks(setting, size, rng) for size in sizes])
    spread = setting.M * (risks / setting.M).std(ddof=1)  # squares of the risks themselves may overflow
    return Estimate(float(risks.mean()), float(spread / np.sqrt(prompts)), prompts)


def _posterior_risks(setting: MultitaskSetting, size: int, rng: "np.random.Generator") -> Float[Array, " size"]:
    """σ² + tr(Σ Cov(β | X)) of `size` sampled prompts."""
    root = psd_factor(setting.Sigma)
    X = np.concatenate([_features(int(n), setting.d, size, rng) for n in setting.n], axis=1) @ root
    task = np.repeat(np.arange(setting.K), np.minimum(setting.n, setting.d))
    kernel = (X @ X.transpose(0, 2, 1)) * setting.R[np.ix_(task, task)] + setting.sigma2 * np.eye(len(task))
    variances = np.einsum("bii->bi", kernel)
    scale = 1.0 / np.sqrt(np.where(variances > 0.0, variances, 1.0))  # a row is 0 where Σ is singular
    eigenvalues, E = np.linalg.eigh(kernel * scale[:, :, None] * scale[:, None, :])
    # tr(Σ Cov) = tr Σ - |K^(-1/2) c|², with c the covariance of the labels with the query's task in units of Σ^½
    known = E.transpose(0, 2, 1) @ ((scale * setting.r[task])[:, :, None] * (X @ root))
    inverse = np.where(eigenvalues > _RANK * len(task), 1.0 / np.maximum(eigenvalues, _RANK), 0.0)
    explained = np.einsum("bi,bij->b", inverse, known**2)
    return np.maximum(setting.M - explained, setting.sigma2)  # rounding must not end below the noise


def _features(n: int, d: int, size: int, rng: "np.random.Generator") -> Float[Array, "size m d"]:
    """Rows, min(n, d) of them, whose Gram matrix is distributed as that of n standard normal examples."""
    if n <= d:
        return rng.standard_normal((size, n, d))
    # the Cholesky factor of a Wishart matrix has independent entries: normal ones above the diagonal, chi on it
    triangle = np.triu(rng.standard_normal((size, d, d)), 1)
    triangle[:, np.arange(d), np.arange(d)] = np.sqrt(rng.chisquare(n - np.arange(d), (size, d)))
    return triangle
