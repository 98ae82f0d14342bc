"""The block-reduced form of a setting: K tasks and d directions, whatever the number of examples."""

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np

from gladient._types import Array, ArrayLike, Float
from gladient.prompts import MultitaskSetting

__all__ = ["Moments", "Reduced", "reduce"]

# For features that are not Gaussian: directions with less than this part of the largest variance carry no task, as
# rounding of Σ⁻¹FΣ⁻¹ grows with the inverse square of a variance; and g - 1, an estimate, counts as this much at the
# least.
_NULL = 1e-9
_TINY = float(np.finfo(np.float64).tiny)

# What is asked of one setting shares its eigenvalues; settings are frozen, so these stay true as long as one lives.
_REDUCED: "WeakKeyDictionary[MultitaskSetting, Reduced]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Moments:
    r"""What the risk knows of the token weights: three numbers.

    Attributes:
        signal: $\omega^\top r$.
        excess: $\omega^\top (R - r r^\top) \omega$, the part of the tasks that the query's task does not explain.
        energy: $\|\omega\|^2$.
    """

    signal: float
    excess: float
    energy: float

    @property
    def x(self) -> float:
        r"""Aligned share $(\omega^\top r)^2 / \|\omega\|^2$."""
        return self.signal**2 / self.energy if self.energy > 0.0 else 0.0

    @property
    def t(self) -> float:
        r"""Rayleigh quotient $\omega^\top R \omega / \|\omega\|^2$; the paper's γ is 1 + t."""
        return (self.excess + self.signal**2) / self.energy if self.energy > 0.0 else 0.0


@dataclass(frozen=True)
class Reduced:
    r"""A setting as the risk knows it: K tasks, whatever the number of examples, and d directions of the features.

    The features enter by Σ and $F = E[y^2 x x^\top]$ over an example alone. With
    $\Sigma^{-1} F \Sigma^{-1} = U \operatorname{diag}(g)\, U^\top$ the best P for weights whose sums are
    `Moments` leaves, in the j-th direction, the share $l / (l + h_j\,\text{signal}^2)$,
    $l = h_j\,\text{excess} + \text{energy}$, of $w_j$.

    Attributes:
        n: examples of each task, as floats.
        R: correlations of the tasks.
        r: their correlations with the query's task.
        w: $(U^\top \Sigma U)_{jj}$; the eigenvalues s of Σ, ascending, for Gaussian features.
        h: $1 / (g_j - 1)$; s / (s + M) for Gaussian features, whose F is 2 Σ² + M Σ.
        M: risk of predicting 0.
        rest: the part of M that no direction has: σ², and the variance of directions without tasks.
        Sigma: covariance of the features; None for the search of weights alone.
        F: E[y² x xᵀ] of features that are not Gaussian, else None.
        times: directions that share an entry of w and h, for the search of weights alone.

    Source: derived; arXiv 2504.04308, section 4, for Gaussian features.
    """

    n: Float[Array, " K"]
    R: Float[Array, "K K"]
    r: Float[Array, " K"]
    w: Float[Array, " d"]
    h: Float[Array, " d"]
    M: float
    rest: float
    Sigma: Float[Array, "d0 d0"] | None = None
    F: Float[Array, "d0 d0"] | None = None
    times: Float[Array, " d"] | None = None

    def require_gaussian(self, what: str) -> None:
        """Raises ValueError where the features' own fourth moments stand in place of Gaussian ones."""
        if self.F is not None:
            raise ValueError(f"{what} is known for Gaussian features alone; leave out F")

    @property
    def s(self) -> Float[Array, " d"]:
        """Eigenvalues of Σ, ascending, for what needs Gaussian features."""
        self.require_gaussian("this risk")
        return self.w

    @property
    def sigma2(self) -> float:
        """Noise variance, for what needs Gaussian features."""
        self.require_gaussian("this risk")
        return self.rest

    @cached_property
    def maps(self) -> tuple[Float[Array, "d0 d"], Float[Array, "d d0"], Float[Array, " d"]]:
        r"""A, B and a factor c: the best matrix for the j-th direction's weight ω_j is a multiple of A diag(c ω) B.

        U, $U^\top \Sigma^{-1}$ and h; for Gaussian features the eigenvectors of Σ and 1 / (s + M), which is h / s and
        does not divide by an s of 0. Most answers do without.
        """
        Sigma = np.diag(self.w) if self.Sigma is None else self.Sigma
        if self.F is None:
            V = np.linalg.eigh(Sigma)[1]
            return V, V.T, 1.0 / (self.w + self.M)
        _, _, U, inverse = _diagonalised(Sigma, self.F)
        return U, U.T @ inverse, self.h

    @cached_property
    def pairs(self) -> Float[Array, "K K"]:
        """n_k n_l R_kl: what ωᵀRω sums over examples."""
        return np.asarray(self.R * self.n[:, None] * self.n)

    @cached_property
    def unexplained(self) -> Float[Array, "K K"]:
        """R - r rᵀ: correlations of the tasks given the query's task."""
        explained = np.outer(self.r, self.r)
        return np.asarray(np.subtract(self.R, explained, out=explained))

    @property
    def r_blocks(self) -> Float[Array, " K"]:
        r"""$\tilde r_k = \sqrt{n_k}\, r_k$."""
        return np.asarray(np.sqrt(self.n) * self.r)

    @cached_property
    def r_unit(self) -> Float[Array, " K"]:
        """The correlations r over the largest one: their squares do not vanish, however small r is; 0 if r is 0."""
        return np.asarray(self.r / (np.abs(self.r).max() or 1.0))

    @cached_property
    def block_eigen(self) -> tuple[Float[Array, " K"], Float[Array, "K K"]]:
        r"""Eigenvalues λ (ascending) and eigenvectors of $\tilde R_{kl} = \sqrt{n_k n_l}\, R_{kl}$."""
        root = np.sqrt(self.n)
        eigenvalues, E = np.linalg.eigh(self.R * root[:, None] * root)
        return np.clip(eigenvalues, 0.0, None), E

    @property
    def spectrum(self) -> tuple[Float[Array, " K"], Float[Array, " K"]]:
        r"""λ and $a = E^\top \tilde r$, of `r_unit`: the best weights do not depend on the size of r."""
        eigenvalues, E = self.block_eigen
        return eigenvalues, E.T @ (np.sqrt(self.n) * self.r_unit)

    def moments(self, omega: Float[Array, " K"]) -> Moments:
        """Moments of weights that are constant within each task."""
        return self.summed_moments(self.n * omega, float(self.n @ omega**2))

    def summed_moments(self, sums: Float[Array, " K"], energy: float) -> Moments:
        """Moments from each task's sum of weights and the total of the squared weights."""
        # R - r rᵀ first, then the product: ωᵀRω - (ωᵀr)² would cancel where the query's task is one of the prompt's
        excess = float(sums @ self.unexplained @ sums)
        return Moments(float(sums @ self.r), max(excess, 0.0), energy)

    def risk(self, m: Moments) -> float:
        r"""Profile risk $\text{rest} + \sum_j w_j \frac{l_j}{l_j + h_j\,\text{signal}^2}$.

        $l_j = h_j\,\text{excess} + \text{energy}$. Every term is positive: no cancellation, however small the risk is
        beside M.
        """
        if m.energy == 0.0:
            return self.M
        lost = self.h * m.excess + m.energy
        return self.rest + float((self.w * (lost / (lost + self.h * m.signal**2))).sum())

    def risks(
        self, signal: Float[Array, " G"], excess: Float[Array, " G"], energy: Float[Array, " G"]
    ) -> Float[Array, " G"]:
        """`risk` of many moments, energies positive; one loop over the distinct directions."""
        total = np.full_like(signal, self.rest)
        h, place = np.unique(self.h, return_inverse=True)  # directions of one h differ in nothing but w
        for each, w in zip(h, np.bincount(place, self.w), strict=True):
            lost = each * excess + energy
            total += w * (lost / (lost + each * signal**2))
        return total

    def profile_slope(self, omega: Float[Array, " K"], m: Moments) -> Float[Array, " K"]:
        r"""Gradient of the profile risk in ω, whose moments are m, times $\|u\| / M$ to be free of scale, u = √n ω."""
        # The risk is M - Σ_j w_j h_j signal² / D_j, with D_j = h_j (excess + signal²) + energy: one term from signal²,
        # one from ωᵀRω = excess + signal², one from the energy.
        own = self.n * omega
        D = self.h * (m.excess + m.signal**2) + m.energy
        pairs, share = self.n * (self.R @ own), self.w / self.M * self.h
        slope = (
            -np.sum(share / D) * m.signal * self.n * self.r
            + np.sum(share * self.h / D**2) * m.signal**2 * pairs
            + np.sum(share / D**2) * m.signal**2 * own
        )
        return np.asarray(2.0 * slope * np.sqrt(m.energy))

    def P(self, m: Moments) -> Float[Array, "d0 d0"]:
        r"""Best $P = (\omega^\top r) [(\omega^\top R \omega - \|\omega\|^2) \Sigma + \|\omega\|^2 F \Sigma^{-1}]^{-1}$.

        For Gaussian features the bracket is $(\omega^\top R \omega + \|\omega\|^2) \Sigma + M \|\omega\|^2 I$.
        """
        A, B, factor = self.maps
        if m.energy == 0.0:
            return np.zeros((len(A), len(A)))
        return np.asarray((A * (factor * m.signal / (m.energy + self.h * (m.excess + m.signal**2)))) @ B)

    @cached_property
    def power(self) -> Float[Array, " d"]:
        """The product w h in units of `unit`, so that no scale of Σ overflows, once for each direction."""
        # Both with a largest entry near 1, by powers of 2, which cost no digit: where Σ is nothing beside σ² the
        # product of the numbers themselves underflows.
        w, h = (np.ldexp(value, -np.frexp(value.max())[1]) for value in (self.w, self.h))
        return np.asarray(w * h / (w * h).max() * (1.0 if self.times is None else self.times))

    @cached_property
    def unit(self) -> float:
        """What `gain` is a multiple of: the largest w h, 0 where that underflows."""
        return float((self.w * self.h).max())

    def gain(self, t: float) -> float:
        r"""$\phi(t) = \sum_j w_j h_j / (1 + h_j t)$ in units of `unit`: the risk is M - x φ(t)."""
        return float((self.power / (1.0 + self.h * t)).sum())

    def secant(self, t0: float, t1: float) -> tuple[float, float]:
        r"""Line A + B t through $1/\phi$ at t0 and t1 (the tangent if they are equal), without cancellation.

        With $v_j = w_j h_j / ((1 + h_j t_0)(1 + h_j t_1))$ both are sums of positive terms: the slope
        $B = \sum_j v_j h_j / (\phi(t_0)\, \phi(t_1))$ and $A = \sum_j v_j / (\phi(t_0)\, \phi(t_1))$.
        """
        # 1/φ(t1) - 1/φ(t0) has no digits where t0 and t1 are near; term by term t1 - t0 divides out.
        first = self.power / (1.0 + self.h * t0)
        v, scale = first / (1.0 + self.h * t1), float(first.sum()) * self.gain(t1)
        return float(v.sum()) / scale, float(v @ self.h) / scale

    @property
    def rounding(self) -> float:
        """Relative error of sums over all tasks and directions: 4 units in the last place for each term."""
        return 4.0 * float(np.finfo(np.float64).eps) * (len(self.n) + len(self.w))

    @cached_property
    def most_c(self) -> float:
        r"""The largest c that a tangent of $1/\phi$ asks weights for: that at t = 0."""
        # 1/φ is concave, so its tangents get flatter and cut the axis higher as t grows: c = B/A falls
        A, B = self.secant(0.0, 0.0)
        return B / A


def reduce(setting: "MultitaskSetting | Reduced", F: Float[Array, "d d"] | None = None) -> Reduced:
    r"""A setting with its features diagonalised, once; `landscape`'s functions of weights take it for the setting.

    Args:
        setting: the data; one that is reduced comes back as it is.
        F: E[y² x xᵀ] over an example, [d, d], symmetric, of features that are not Gaussian. The risk of weighted steps
            knows no other moment of theirs, so every answer about weights is exact for them too. Gaussian features
            have 2 Σ² + M Σ.

    Raises:
        ValueError: if F has the wrong shape, is not finite or not symmetric, or came with a reduced setting.

    Source: derived.

    >>> from gladient.landscape import optimum
    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)
    >>> signs = setting.M * np.eye(10)  # x_j = ±1: E[y² x xᵀ] is M I; for Gaussian features it is (M + 2) I
    >>> print(f"{optimum(setting).risk:.4f} {optimum(reduce(setting, F=signs)).risk:.4f}")
    5.2778 5.0000
    """
    if isinstance(setting, Reduced):
        if F is not None:
            raise ValueError("F came with a setting that is reduced; reduce(setting, F) takes both at once")
        return setting
    if F is not None:
        return _reduced(setting, F)
    if setting not in _REDUCED:
        _REDUCED[setting] = _reduced(setting, None)
    return _REDUCED[setting]


def _reduced(setting: MultitaskSetting, F: Float[Array, "d d"] | None) -> Reduced:
    n, M = setting.n.astype(np.float64), setting.M
    if F is None:
        w = np.clip(np.linalg.eigvalsh(setting.Sigma), 0.0, None)
        # No h is 0, so that `power` is a number: where Σ is nothing beside σ² the weights are those of c → 0, r itself.
        h, rest = np.maximum(w / (w + M), _TINY), setting.sigma2
    else:
        w, h, _, _ = _diagonalised(setting.Sigma, _checked(F, setting.d))
        rest = setting.sigma2 + max(0.0, float(np.trace(setting.Sigma)) - float(w.sum()))
    w.flags.writeable = h.flags.writeable = False
    return Reduced(n=n, R=setting.R, r=setting.r, w=w, h=h, M=M, rest=rest, Sigma=setting.Sigma, F=F)


def _checked(F: ArrayLike, d: int) -> Array:
    array = np.asarray(F, dtype=np.float64)
    if array.shape != (d, d):
        raise ValueError(f"F has shape {array.shape} for {d} features; it must be E[y² x xᵀ], [{d}, {d}]")
    # 1e-9 is far above the rounding of products, and what is no moment at all is off by far more
    if not np.isfinite(array).all() or np.abs(array - array.T).max() > 1e-9 * np.abs(array).max():
        raise ValueError("F is not a symmetric matrix of finite numbers; it must be E[y² x xᵀ]")
    return array


def _diagonalised(Sigma: Array, F: Array) -> tuple[Array, Array, Array, Array]:
    r"""w, h and U of $\Sigma^{-1} F \Sigma^{-1}$, and $\Sigma^{-1}$, on the directions of Σ that are not null."""
    s, V = np.linalg.eigh(Sigma)
    kept = s > _NULL * s[-1]
    s, V = s[kept], V[:, kept]
    # Σ⁻¹FΣ⁻¹ in the eigenbasis of Σ, where it stays symmetric to the last digit
    g, U = np.linalg.eigh(V.T @ F @ V / np.outer(s, s))
    # F - Σ² is a covariance, that of x y given the task, so g ≥ 1; an estimate may fall below.
    return s @ U**2, 1.0 / (g.clip(1.0 + _NULL) - 1.0), V @ U, (V / s) @ V.T
