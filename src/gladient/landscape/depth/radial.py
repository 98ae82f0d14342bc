"""The radial recursion: second moments of a stack's states, task by task, whatever the number of examples."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gladient._types import Array, Float
from gladient.landscape.delta.isotropic import noise_share, require_isotropic
from gladient.landscape.depth.stack import Heads, longest_chain
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.prompts import MultitaskSetting

__all__ = ["Radial", "require_memory", "rescaled", "solve_form"]

_MOST = 4e9  # bytes of the largest matrix: what fits on a small machine
_RULE = (
    "several layers have an exact risk for Σ ∝ I alone: whiten x, or use two_layers_diagonal (two layers, P diagonal "
    "with Σ), landscape.risk (one layer) or wpgd.conditional_risk (by simulation)"
)


@lru_cache(maxsize=64)
def _radii(d: int, nodes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of ξ = |x|², x ~ N(0, I_d): Gauss-Laguerre, exact up to the power 2 nodes - 1 of ξ."""
    k = np.arange(nodes)
    off = np.sqrt(k[1:] * (k[1:] + d / 2 - 1))
    values, vectors = np.linalg.eigh(np.diag(2.0 * k + d / 2) + np.diag(off, 1) + np.diag(off, -1))
    return 2.0 * values, vectors[0] ** 2


@dataclass(frozen=True)
class Radial:
    r"""A setting with Σ = c I in the units of c = 1.

    The state of the recursion is $A = E\,S S^\top / d$, [H, H], and $m_l = E\,S \theta_l / d$ for every task l and the
    query's own, the rows of S being the heads' states. Given ξ a token maps $S \to \Delta S + (N S x + h y)\, x^\top$
    with $G = (1 - \xi\, t B u)^{-1}$, $N = G\, t (B - e)\, \Delta$, $h = G\, t\, a$; all expectations are over ξ alone.

    Source: derived.
    """

    n: Float[Array, " K"]
    R: Float[Array, "K K1"]  # last column: r
    d: int
    sigma2: float
    scale: float
    offset: float  # σ² in the units of the setting

    @classmethod
    def of(cls, setting: MultitaskSetting | Reduced) -> "Radial":
        """The model of a setting.

        Raises:
            ValueError: if Σ is not a multiple of I.
        """
        reduced = reduce(setting)
        require_isotropic(reduced, _RULE)
        scale = float(reduced.s.mean())
        R = np.column_stack((reduced.R, reduced.r))
        return cls(reduced.n, R, len(reduced.s), noise_share(reduced.sigma2, scale), scale, reduced.sigma2)

    @property
    def rate(self) -> float:
        """The order of a rate in the units of c = 1: about the best one of a single layer."""
        return float(1.0 / (self.n.sum() + self.d + self.sigma2 + 1.0))

    @property
    def M(self) -> float:
        """Risk of predicting 0, in the units of c = 1."""
        return self.d + self.sigma2

    def risk(self, share: Any) -> Any:
        """Risk in the units of the setting from (L - σ²) / d in those of c = 1."""
        return self.offset + self.scale * (self.d * share)

    def shares(self, heads: Heads) -> Any:
        """(L - σ²) / d of one stack or of many at once, in the units of c = 1."""
        g, Q = self.form(heads)
        f = heads.readout
        return 1.0 - (2.0 * np.einsum("...h,...h->...", g, f) - np.einsum("...h,...hi,...i->...", f, Q, f)) / self.d

    def form(self, heads: Heads) -> tuple[Any, Any]:
        r"""The g and Q of the risk $M - 2 g^\top f + f^\top Q f$ in the read-out f."""
        A, m = self.moments(heads)
        K, xi, weight = len(self.n), *_radii(self.d, longest_chain(heads.skips) + 1)
        t, e = heads.write[..., K], np.asarray(heads.erase)[..., None] * np.eye(A.shape[-1])
        G = _through(xi, t, heads)
        u = np.asarray(heads.own)[..., None, :, None] * xi[:, None, None]
        X = np.eye(A.shape[-1]) + u * (G @ (t[..., None] * (heads.skips - e))[..., None, :, :])
        X = X * np.asarray(heads.decay)[..., None, None, :]
        g = np.einsum("q,...qhi,...i->...h", weight * xi, X, m[..., K, :])
        return g, np.einsum("q,...qhi,...qji->...hj", weight * xi, X @ A[..., None, :, :], X)

    def moments(self, heads: Heads) -> tuple[Any, Any]:
        """A and m, [..., K + 1, H], after all blocks."""
        B, H, K = heads.skips, heads.skips.shape[-1], len(self.n)
        batch = np.broadcast_shapes(
            *(np.shape(value)[: np.ndim(value) - own] for value, own in zip(heads, _OWN, strict=True))
        )
        kind = np.result_type(*heads)
        A, m = np.zeros((*batch, H, H), kind), np.zeros((*batch, K + 1, H), kind)
        xi, weight = _radii(self.d, longest_chain(B) + 1)
        whole = bool(np.any(np.asarray(heads.erase) != 0) or np.any(np.asarray(heads.decay) != 1))
        require_memory(self._bytes(int(np.prod(batch)), H, len(xi), whole), H, K)
        for k, n in enumerate(self.n):
            token = _Token.of(heads, k, xi, weight, self.d, self.sigma2)
            A, m = (token.power if whole else token.series)(int(n), 2 * (len(xi) - 1), A, m, self.R[k], k)
            g = heads.gates[..., k]
            A, m = g[..., :, None] * A * g[..., None, :], g[..., None, :] * m
        return A, m

    def _bytes(self, batch: int, H: int, nodes: int, whole: bool) -> float:
        """Of the largest array: a token's matrix where it is needed, else its N at every node."""
        return 8.0 * batch * (float(H * H + H + 1) ** 2 if whole else float(nodes * H * H))


_OWN = Heads(readout=1, skips=2, label=1, write=2, gates=2, own=1, erase=1, decay=1)  # dimensions of each in a `Stack`


def require_memory(needed: float, H: int, K: int) -> None:
    """Raises ValueError where an array would not fit."""
    if needed > _MOST:
        raise ValueError(
            f"a stack of {H} heads on {K} tasks needs {needed / 1e9:.3g} GB at once, {_MOST / 1e9:g} GB at most: take "
            "fewer layers or tasks"
        )


def _through(xi: Array, t: Any, heads: Heads) -> Any:
    """G at every ξ, [..., Q, H, H]; u stands on the right of B, which is nilpotent: the inverse has no denominator."""
    B, u = heads.skips, np.asarray(heads.own)
    return np.linalg.inv(
        np.eye(B.shape[-1]) - xi[:, None, None] * (t[..., :, None] * B * u[..., None, :])[..., None, :, :]
    )


@dataclass(frozen=True)
class _Token:
    """One example of a task as a linear map of (A, m_l, 1), for any dimensions in front."""

    N: Any  # at every ξ, [..., H Q, H]
    back: Any  # ξ² / d times its transposes, [..., Q H, H]
    D: Any  # [..., H]
    N1: Any  # E ξ N / d
    h1: Any  # E ξ h / d
    mixed: Any  # E ξ² h N' / d as [..., H, H, H]: row of h, row of N, column of N
    hh: Any  # E ξ (ξ + σ²) h h' / d

    @classmethod
    def of(cls, heads: Heads, k: int, xi: Array, weight: Array, d: int, sigma2: float) -> "_Token":
        t, e = heads.write[..., k], np.asarray(heads.erase)[..., None] * np.eye(heads.skips.shape[-1])
        G, D = _through(xi, t, heads), np.asarray(heads.decay)
        N = G @ (t[..., :, None] * (heads.skips - e) * D[..., None, :])[..., None, :, :]
        h = np.einsum("...qhi,...i->...qh", G, t * heads.label)
        first, second = weight * xi / d, weight * xi**2 / d
        wide, H = np.moveaxis(N, -3, -2), N.shape[-1]
        return cls(
            N=wide.reshape(*wide.shape[:-3], -1, H),
            back=(second[:, None, None] * N.swapaxes(-1, -2)).reshape(*N.shape[:-3], -1, H),
            D=D,
            N1=np.einsum("q,...qhi->...hi", first, N),
            h1=np.einsum("q,...qh->...h", first, h),
            mixed=np.einsum("q,...qa,...qbc->...abc", second, h, N),
            hh=np.einsum("q,...qa,...qb->...ab", weight * xi * (xi + sigma2) / d, h, h),
        )

    def change(self, A: Any, m: Any, own: Any, one: Any, r: Array) -> tuple[Any, Any]:
        """The map minus 1, of (A, m_l, one): `own` is the m of the block's task, r its correlation with each l."""
        D, N1, H = self.D, self.N1, A.shape[-1]
        wide = self.N @ A  # one product for all ξ
        moved = wide.reshape(*wide.shape[:-2], H, -1) @ self.back
        side = N1 @ (A * D[..., None, :]) + self.h1[..., :, None] * (D * own)[..., None, :]
        side = side + np.einsum("...abc,...c->...ab", self.mixed, own)
        both = D[..., :, None] * D[..., None, :] - 1.0
        A = both * A + moved + side + np.swapaxes(side, -1, -2) + np.asarray(one)[..., None, None] * self.hh
        m = m @ np.swapaxes(N1, -1, -2) + (D - 1.0)[..., None, :] * m
        return A, m + (np.asarray(one)[..., None] * r)[..., None] * self.h1[..., None, :]

    def series(self, n: int, degree: int, A: Any, m: Any, r: Array, k: int) -> tuple[Any, Any]:
        """A block of n examples without decay or erasing: the map minus 1 is nilpotent, its power a polynomial in n.

        Every application reads a deeper layer, and the two factors of A have `degree` / 2 layers each.
        """
        total, one, choose = (A, m), 1.0, 1.0
        for j in range(degree):
            choose *= (n - j) / (j + 1)
            if choose == 0.0:
                break
            A, m = self.change(A, m, m[..., k, :], one, r)
            total, one = (total[0] + choose * A, total[1] + choose * m), 0.0
        return total

    def power(self, n: int, degree: int, A: Any, m: Any, r: Array, k: int) -> tuple[Any, Any]:
        """A block of n examples by squaring the matrix of one, [H² + H + 1]²."""
        H, batch = A.shape[-1], A.shape[:-2]
        size = H * H + H + 1
        basis = np.eye(size).reshape(size, *(1 for _ in batch), size)
        a, own, one = (
            basis[..., : H * H].reshape(size, *(1 for _ in batch), H, H),
            basis[..., H * H : -1],
            basis[..., -1],
        )
        a, own = np.broadcast_to(a, (size, *batch, H, H)), np.broadcast_to(own, (size, *batch, H))
        a, moved = self.change(a, own[..., None, :], own, one, np.ones(1))
        T = np.concatenate([a.reshape(size, *batch, -1), moved[..., 0, :], np.zeros((size, *batch, 1))], axis=-1)
        T = np.linalg.matrix_power(np.moveaxis(T, 0, -1) + np.eye(size), n)
        start = np.concatenate([A.reshape(*batch, -1), m[..., k, :], np.ones((*batch, 1))], axis=-1)
        A = np.einsum("...ij,...j->...i", T[..., : H * H, :], start).reshape(*batch, H, H)
        m = m @ np.swapaxes(T[..., H * H : -1, H * H : -1], -1, -2) + r[:, None] * T[..., None, H * H : -1, -1]
        return A, m


def rescaled(stack: Heads, scale: float) -> Heads:
    """Heads in the units of Σ = I: outputs are measured in Σ's variance."""
    return stack._replace(
        readout=stack.readout * scale, skips=stack.skips * scale, erase=np.asarray(stack.erase) * scale
    )


def solve_form(g: Array, Q: Array) -> Array:
    """The best read-out Q⁻¹ g, in units in which the diagonal of Q is 1; the least one where heads repeat others."""
    size = np.sqrt(np.diag(Q))
    size[size == 0.0] = 1.0  # a head that holds nothing
    solved = np.linalg.lstsq(Q / size[:, None] / size, g / size, rcond=1e-13)[0]
    return np.asarray(solved / size)
