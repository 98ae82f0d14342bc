"""The delta rule's risk for Σ ∝ I: a weight per task and one variance, block by block, whatever the counts."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gladient._linalg import psd_factor, ratio
from gladient._types import Array, Float
from gladient.landscape.delta.keys import KeyMoments, key_moments
from gladient.landscape.gates.reduced import Reduced

__all__ = ["Isotropic", "Powers", "factored", "is_isotropic", "noise_share", "require_isotropic", "task_factors"]

_ZERO = 1e-140  # steps below it are taken for the limit of step 0: their squares have too few digits, or none


@dataclass(frozen=True)
class Powers:
    r"""What a block of n tokens does to the state, for G steps of K tasks, all [G, K].

    With $\varphi = 1 - \beta e_1$ and $\psi = 1 - 2 \beta e_1 + \beta^2 e_2$:

    Attributes:
        beta: β, the erase strength.
        write: the write strength over the largest of its row; the read-out absorbs the common factor.
        keep: $\varphi^n$, what is left of the weights of earlier tasks.
        keep_square: $\psi^n$, what is left of the variance.
        weight: weight of the block's own task, $\sum_{i<n} \varphi^i$ times what one token writes.
        mixing: $(\psi^n - \varphi^{2n}) / \beta^2$, the variance that the random keys add.
        noise: variance from label noise.
    """

    beta: Float[Array, "G K"]
    write: Float[Array, "G K"]
    keep: Float[Array, "G K"]
    keep_square: Float[Array, "G K"]
    weight: Float[Array, "G K"]
    mixing: Float[Array, "G K"]
    noise: Float[Array, "G K"]


@dataclass(frozen=True)
class Isotropic:
    r"""A setting with Σ = c I in the units of c = 1.

    The state's mean is $\sum_k w_k \beta_k$; the rest of $E|b|^2 / d$ is a variance ν. A token of task k takes

    $$w \leftarrow \varphi w + t s e_1\, 1_k, \qquad
      \nu \leftarrow \psi \nu + (e_2 - e_1^2)\, |\beta w - t s\, 1_k|_R^2 + t^2 (\text{extra} + \sigma^2 c_e),$$

    and since $\beta w - t s\,1_k$ shrinks by φ with every token, n tokens are sums of geometric series. All terms of ν
    are positive, so risks far below M keep their digits.

    Source: derived.
    """

    n: Float[Array, " K"]
    d: int
    sigma2: float
    scale: float
    offset: float
    moments: KeyMoments
    factor: Float[Array, "*G K J"]  # rows f_k: f_k · f_l = R_kl; first r_k, the part along the query's task
    R: Float[Array, "K K"]
    r: Float[Array, "*G K"]  # one for all rows of steps, or one for each
    step_unit: float

    @classmethod
    def of(cls, reduced: Reduced, keys: str, rule: str) -> "Isotropic":
        """The model of a reduced setting.

        Raises:
            ValueError: if the keys are unknown, or Σ is not a multiple of I; the rule says why it must be.
        """
        d = len(reduced.s)
        moments = key_moments(keys, d)
        require_isotropic(reduced, rule)
        scale = float(reduced.s.mean())
        return cls(
            n=reduced.n,
            d=d,
            sigma2=noise_share(reduced.sigma2, scale),
            scale=scale,
            offset=reduced.sigma2,
            moments=moments,
            factor=np.column_stack((reduced.r, factored(reduced.unexplained))),
            R=reduced.R,
            r=reduced.r,
            step_unit=1.0 / scale if keys == "gaussian" else 1.0,
        )

    def take(self, rows: NDArray[np.integer]) -> "Isotropic":
        """The model of these rows of steps."""
        return self if self.r.ndim == 1 else replace(self, r=self.r[rows], factor=self.factor[rows])

    @property
    def bound(self) -> float:
        """Largest stable step in the units of c = 1; half of it shrinks the error of one noiseless task most."""
        return 2.0 * (self.moments.erase / self.moments.square)

    def powers(self, steps: Float[Array, "G K"]) -> Powers:
        """Each block as one map."""
        of, n = self.moments, self.n
        # x = β e₁ = 1 - φ and y = 1 - ψ: powers of numbers near 1 are taken as log1p of what is missing. φ is below 0
        # for keys of length 1 with d = 1 alone; then its size has the logarithm, and an odd n the sign.
        write = ratio(steps, steps.max(axis=1, keepdims=True))
        x, y = of.erase * steps, np.clip(steps * (2.0 * of.erase - of.square * steps), 0.0, 1.0)
        zero = steps < _ZERO
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log_keep = n * np.where(x < 1.0, np.log1p(-np.minimum(x, 1.0)), np.log(np.abs(x - 1.0)))
            keep = np.exp(log_keep) * np.where((x > 1.0) & (n % 2 == 1), -1.0, 1.0)
            # (1 - φⁿ)/x; for φ near 1 by expm1, and where φ may be below 0 nothing cancels
            own = np.where(zero, n, np.where(x < 0.5, -np.expm1(log_keep), 1.0 - keep) / x)
            log_square = n * np.log1p(-y)
            series = np.where(y > 0.0, -np.expm1(log_square) / y, n)
            # ψⁿ - φ²ⁿ = ψⁿ (1 - (φ²/ψ)ⁿ), and ψ/φ² - 1 = spread (β/φ)²: the difference itself would have no digits
            split = -np.expm1(-n * np.log1p(of.spread * (steps / (1.0 - x)) ** 2)) / steps**2
            mixing = np.where(zero, n * of.spread, np.exp(log_square) * split)
        return Powers(
            beta=steps,
            write=write,
            keep=keep,
            keep_square=np.exp(log_square),
            weight=of.signal * of.erase * write * own,
            mixing=mixing if of.spread > 0.0 else np.zeros_like(keep),
            noise=(of.extra + self.sigma2 * of.noise) * write**2 * series,
        )

    def risks(self, steps: Float[Array, "G K"], decays: Float[Array, "G K"]) -> Float[Array, " G"]:
        """Risk after the best read-out scale, of many steps and decays at once."""
        p = self.powers(steps)
        z, nu = np.zeros((len(steps), self.factor.shape[-1])), np.zeros(len(steps))
        for k in range(len(self.n)):
            f = self.factor[..., k, :]
            u = p.beta[:, k, None] * z - (self.moments.signal * p.write[:, k, None]) * f
            nu = p.keep_square[:, k] * nu + p.mixing[:, k] * np.einsum("gj,gj->g", u, u) + p.noise[:, k]
            z = p.keep[:, k, None] * z + p.weight[:, k, None] * f
            z, nu = decays[:, k, None] * z, decays[:, k] ** 2 * nu
        # factor's first column is the query's task: signal and lost are both sums of squares
        signal, lost = z[:, 0] ** 2, np.einsum("gj,gj->g", z[:, 1:], z[:, 1:]) + nu
        return np.asarray(self.offset + self.scale * self.d * ratio(lost, signal + lost))


def noise_share(sigma2: float, scale: float) -> float:
    """σ² over a variance of the features; beyond 1e200 more noise changes no digit, and its square would overflow."""
    return min(sigma2 / scale, 1e200)


def is_isotropic(reduced: Reduced) -> bool:
    """Whether Σ is a multiple of I, up to rounding."""
    # far above the rounding of eigenvalues, and far below any spread that changes a digit that is shown
    return bool(reduced.s[-1] - reduced.s[0] <= 1e-12 * reduced.s[-1])


def require_isotropic(reduced: Reduced, rule: str) -> None:
    """Raises ValueError, with the rule and its cure, unless Σ is a multiple of I."""
    if not is_isotropic(reduced):
        raise ValueError(f"Sigma has eigenvalues from {reduced.s[0]:.4g} to {reduced.s[-1]:.4g}; {rule}")


def task_factors(R: Float[Array, "K K"], r: Float[Array, "B K"]) -> Float[Array, "B K J"]:
    """The `factor` of many r, with columns of 0 where one needs fewer."""
    factors = np.zeros((*r.shape, r.shape[1] + 1))
    factors[:, :, 0] = r
    for factor, one in zip(factors, r, strict=True):
        rest = factored(R - np.outer(one, one))
        factor[:, 1 : 1 + rest.shape[1]] = rest
    return factors


def factored(A: Array) -> Array:
    """F with F Fᵀ = A; exact zeros of A stay exact zeros, so that a task that is the query's leaves nothing over."""
    used = np.flatnonzero(np.abs(A).max(axis=1) > 1e-15)  # entries of A are at most 1: less is rounding of R - r rᵀ
    F = np.zeros((len(A), len(used)))
    if len(used):
        part = A[np.ix_(used, used)]
        try:
            F[used] = np.linalg.cholesky(part)
        except np.linalg.LinAlgError:
            F[used] = psd_factor(part)  # singular, or below 0 by rounding
    return F
