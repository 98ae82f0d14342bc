"""The block-reduced form of a setting: K tasks and d directions, whatever the number of examples."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gladient._types import Array, Float
from gladient.prompts import MultitaskSetting

__all__ = ["Moments", "Reduced", "reduce"]


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
    """A setting with the eigenvalues s of Σ, ascending, and the counts as floats."""

    n: Float[Array, " K"]
    R: Float[Array, "K K"]
    r: Float[Array, " K"]
    s: Float[Array, " d"]
    M: float
    sigma2: float
    Sigma: Float[Array, "d d"] | None = None  # None: for the search of weights alone
    times: Float[Array, " d"] | None = None  # directions that share an eigenvalue, for the search of weights alone

    @cached_property
    def V(self) -> Float[Array, "d d"]:
        """Eigenvectors of Σ as columns, in the order of s; most answers do without."""
        return np.asarray(np.linalg.eigh(np.diag(self.s) if self.Sigma is None else self.Sigma)[1])

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
        excess = float(sums @ self.unexplained @ sums)
        return Moments(float(sums @ self.r), max(excess, 0.0), energy)

    def risk(self, m: Moments) -> float:
        r"""Profile risk $\sigma^2 + \sum_j s_j \frac{l_j}{l_j + s_j\,\text{signal}^2}$.

        $l_j = s_j (\text{energy} + \text{excess}) + M\,\text{energy}$; in code divided by M. Every term is positive:
        no cancellation, however small the risk is beside M.
        """
        if m.energy == 0.0:
            return self.M
        lost = self.share * (m.energy + m.excess) + m.energy
        return self.sigma2 + float((self.s * (lost / (lost + self.share * m.signal**2))).sum())

    def risks(
        self, signal: Float[Array, " G"], excess: Float[Array, " G"], energy: Float[Array, " G"]
    ) -> Float[Array, " G"]:
        """`risk` of many moments, energies positive; one loop over the distinct eigenvalues of Σ."""
        total = np.full_like(signal, self.sigma2)
        for s, count in zip(*np.unique(self.s, return_counts=True), strict=True):
            share = s / self.M
            lost = share * (energy + excess) + energy
            total += count * s * (lost / (lost + share * signal**2))
        return total

    def profile_slope(self, omega: Float[Array, " K"], m: Moments) -> Float[Array, " K"]:
        r"""Gradient of the profile risk in ω, whose moments are m, times $\|u\| / M$ to be free of scale, u = √n ω."""
        own = self.n * omega
        D = self.share * (m.excess + m.signal**2 + m.energy) + m.energy
        pairs = self.n * (self.R @ own)
        slope = (
            -np.sum(self.share**2 / D) * m.signal * self.n * self.r
            + np.sum(self.share**3 / D**2) * m.signal**2 * (pairs + own)
            + np.sum(self.share**2 / D**2) * m.signal**2 * own
        )
        return np.asarray(2.0 * slope * np.sqrt(m.energy))

    def P(self, m: Moments) -> Float[Array, "d d"]:
        r"""Best $P = (\omega^\top r) [(\omega^\top R \omega + \|\omega\|^2) \Sigma + M \|\omega\|^2 I]^{-1}$."""
        if m.energy == 0.0:
            return np.zeros((len(self.s), len(self.s)))
        p = m.signal / (self.s * (m.energy + m.excess + m.signal**2) + self.M * m.energy)
        return np.asarray((self.V * p) @ self.V.T)

    @cached_property
    def share(self) -> Float[Array, " d"]:
        """S / M: each direction's part in the risk of predicting 0."""
        return np.asarray(self.s / self.M)

    @cached_property
    def power(self) -> Float[Array, " d"]:
        """(s / max s)², so that no scale of Σ overflows, once for each direction."""
        return np.asarray((self.s / self.s.max()) ** 2 * (1.0 if self.times is None else self.times))

    def gain(self, t: float) -> float:
        r"""$\phi(t) = \sum_j s_j^2 / (s_j (1 + t) + M)$ in units of `unit`: the risk is M - x φ(t)."""
        return float((self.power / (1.0 + self.share * (1.0 + t))).sum())

    @property
    def unit(self) -> float:
        """What `gain` is a multiple of: (max s)² / M."""
        return float(self.s.max() * self.share.max())

    def secant(self, t0: float, t1: float) -> tuple[float, float]:
        r"""Line A + B t through $1/\phi$ at t0 and t1 (the tangent if they are equal), without cancellation."""
        first = self.power / (1.0 + self.share * (1.0 + t0))
        weight, scale = first / (1.0 + self.share * (1.0 + t1)), float(first.sum()) * self.gain(t1)
        slope = float(weight @ self.share) / scale
        return float(weight.sum()) / scale + slope, slope

    @property
    def rounding(self) -> float:
        """Relative error of sums over all tasks and directions: 4 units in the last place for each term."""
        return 4.0 * float(np.finfo(np.float64).eps) * (len(self.n) + len(self.s))

    @cached_property
    def most_c(self) -> float:
        r"""The largest c that a tangent of $1/\phi$ asks weights for: that at t = 0."""
        A, B = self.secant(0.0, 0.0)
        return B / A


def reduce(setting: MultitaskSetting) -> Reduced:
    """Block-reduced form of `setting`; the only place where Σ is decomposed."""
    return Reduced(
        n=setting.n.astype(np.float64),
        R=setting.R,
        r=setting.r,
        s=np.clip(np.linalg.eigvalsh(setting.Sigma), 0.0, None),
        M=setting.M,
        sigma2=setting.sigma2,
        Sigma=setting.Sigma,
    )
