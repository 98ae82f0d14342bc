"""The block-reduced form of a setting: K tasks and d directions, whatever the number of examples."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gladient._types import Array
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
    """A setting with Σ = V diag(s) Vᵀ diagonalised and the counts as floats."""

    n: Float[Array, " K"]
    R: Float[Array, "K K"]
    r: Float[Array, " K"]
    s: Float[Array, " d"]
    V: Float[Array, "d d"]
    M: float
    sigma2: float

    @property
    def R_blocks(self) -> Float[Array, "K K"]:
        r"""$\tilde R_{kl} = \sqrt{n_k n_l}\, R_{kl}$."""
        root = np.sqrt(self.n)
        return np.asarray(self.R * root[:, None] * root)

    @property
    def r_blocks(self) -> Float[Array, " K"]:
        r"""$\tilde r_k = \sqrt{n_k}\, r_k$."""
        return np.asarray(np.sqrt(self.n) * self.r)

    def moments(self, omega: Float[Array, " K"]) -> Moments:
        """Moments of weights that are constant within each task."""
        return self.summed_moments(self.n * omega, float(self.n @ omega**2))

    def summed_moments(self, sums: Float[Array, " K"], energy: float) -> Moments:
        """Moments from each task's sum of weights and the total of the squared weights."""
        excess = float(sums @ (self.R - np.outer(self.r, self.r)) @ sums)
        return Moments(float(sums @ self.r), max(excess, 0.0), energy)

    def risk(self, m: Moments) -> float:
        r"""Profile risk $\sigma^2 + \sum_j s_j \frac{l_j}{l_j + s_j\,\text{signal}^2}$.

        $l_j = s_j (\text{energy} + \text{excess}) + M\,\text{energy}$. Every term is positive: no cancellation,
        however small the risk is beside M.
        """
        if m.energy == 0.0:
            return self.M
        lost = self.s * (m.energy + m.excess) + self.M * m.energy
        return float(self.sigma2 + np.sum(self.s * lost / (lost + self.s * m.signal**2)))

    def P(self, m: Moments) -> Float[Array, "d d"]:
        r"""Best $P = (\omega^\top r) [(\omega^\top R \omega + \|\omega\|^2) \Sigma + M \|\omega\|^2 I]^{-1}$."""
        if m.energy == 0.0:
            return np.zeros_like(self.V)
        p = m.signal / (self.s * (m.energy + m.excess + m.signal**2) + self.M * m.energy)
        return np.asarray((self.V * p) @ self.V.T)

    def gain(self, t: float) -> float:
        r"""$\phi(t) = \sum_j s_j^2 / (s_j (1 + t) + M)$: the risk is $M - x\,\phi(t)$."""
        return float(np.sum(self.s**2 / (self.s * (1.0 + t) + self.M)))

    def secant(self, t0: float, t1: float) -> tuple[float, float]:
        r"""Line A + B t through $1/\phi$ at t0 and t1 (the tangent if they are equal), without cancellation."""
        D0, D1 = (self.s * (1.0 + t) + self.M for t in (t0, t1))
        scale = self.gain(t0) * self.gain(t1)
        A = np.sum(self.s**2 * (self.s + self.M) / (D0 * D1)) / scale
        B = np.sum(self.s**3 / (D0 * D1)) / scale
        return float(A), float(B)


def reduce(setting: MultitaskSetting) -> Reduced:
    """Block-reduced form of `setting`; the only place where Σ is decomposed."""
    s, V = np.linalg.eigh(setting.Sigma)
    return Reduced(
        n=setting.n.astype(np.float64),
        R=setting.R,
        r=setting.r,
        s=np.clip(s, 0.0, None),
        V=V,
        M=setting.M,
        sigma2=setting.sigma2,
    )
