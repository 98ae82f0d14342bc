r"""What each gate family can reach with features of any distribution.

The risk of weighted steps knows the features by two matrices alone: Σ and $F = E[y^2 x x^\top]$ over sources' examples.
F is $2\Sigma^2 + M\Sigma$ if they are Gaussian; for others their own F stands in its place (*derived*):

$$L(P, \omega) = M - 2 (\omega^\top r) \operatorname{tr}(P \Sigma^2) +
    \operatorname{tr}\!\big(P^\top \Sigma P\,[(\omega^\top R\,\omega - \|\omega\|^2)\,\Sigma^2 + \|\omega\|^2 F]\big).$$

With $\Sigma^{-1} F \Sigma^{-1} = U \operatorname{diag}(g) U^\top$, $w_j = (U^\top \Sigma U)_{jj}$,
$t = \omega^\top R\,\omega / \|\omega\|^2$ and $x = (\omega^\top r)^2 / \|\omega\|^2$ the best P leaves
$M - x\,\phi(t)$, $\phi(t) = \sum_j w_j / (t - 1 + g_j)$. Best weights maximise $x / (1 + c\,t)$ for one c between
$1/(g_{max} - 1)$ and $1/(g_{min} - 1)$, found by a scan.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from gladient._types import Array, Float
from gladient.prompts import MultitaskSetting, PromptLayout

__all__ = ["GATES", "Step", "best_steps", "gaussian_yyxx"]

GATES = ("linear_attention", "fixed_decay", "scalar_gate", "value_gate", "key_gate")
_NULL = 1e-9  # directions of less than this part of the largest variance carry no task
_SCAN = 17


@dataclass(frozen=True, eq=False)
class Step:
    r"""The best step of a gate family: $\hat\beta = \sum_k W_k X_k^\top (\gamma^{\text{steps}} \odot y_k)$.

    Attributes:
        risk: expected squared error of the query's prediction.
        omega: weight of one example of each task, [K] (the mean for a decay); for the key gate of each task and
            direction with tasks in it, [K, directions].
        matrices: W, [K, d, d].
        gamma: the gate on every token; 1 for all but the fixed decay.
    """

    risk: float
    omega: Array
    matrices: Float[Array, "K d d"]
    gamma: float = 1.0


def gaussian_yyxx(setting: MultitaskSetting) -> Float[Array, "d d"]:
    """E[y² x xᵀ] of Gaussian features, 2 Σ² + M Σ."""
    return np.asarray(2.0 * setting.Sigma @ setting.Sigma + setting.M * setting.Sigma)


def best_steps(setting: MultitaskSetting, yyxx: Float[Array, "d d"]) -> dict[str, Step]:
    """The best step of every gate family, by name, from no gate to key gates.

    Args:
        setting: the data but for the features' fourth moments.
        yyxx: F, E[y² x xᵀ] over a source's examples.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> for name, step in best_steps(setting, gaussian_yyxx(setting)).items():
    ...     print(f"{name:16} {step.risk:.6f}")
    linear_attention 6.527778
    fixed_decay      5.432705
    scalar_gate      5.277778
    value_gate       5.277778
    key_gate         5.277778
    """
    problem = _Problem(setting, yyxx)
    return {
        "linear_attention": problem.step(np.ones(setting.K)),
        "fixed_decay": problem.decay(),
        "scalar_gate": problem.step(problem.search(problem.monotone)),
        "value_gate": problem.step(problem.search(problem.free)),
        "key_gate": problem.key(),
    }


class _Problem:
    """A setting with Σ⁻¹ F Σ⁻¹ diagonalised, and tasks in the block-reduced form: u = √n ω."""

    def __init__(self, setting: MultitaskSetting, yyxx: Array) -> None:
        self.setting, self.n = setting, setting.n.astype(np.float64)
        self.root = np.sqrt(self.n)
        self.R, self.r = setting.R * np.outer(self.root, self.root), setting.r * self.root
        s, V = np.linalg.eigh(setting.Sigma)
        kept = s > _NULL * s[-1]
        s, V = s[kept], V[:, kept]
        g, U = np.linalg.eigh(V.T @ yyxx @ V / np.outer(s, s))
        self.g = g.clip(1.0 + _NULL)  # F - Σ² is a covariance
        self.w = s @ U**2
        self.U, self.inverse = V @ U, (V / s) @ V.T  # Σ⁻¹ on its range

    def phi(self, t: Float[Array, " *N"]) -> Float[Array, " *N"]:
        return np.asarray(np.sum(self.w / (np.asarray(t)[..., None] - 1.0 + self.g), axis=-1))

    def value(self, u: Float[Array, " K"]) -> float:
        """What the weights take off the risk of predicting 0."""
        energy = float(u @ u)
        return float((u @ self.r) ** 2 / energy * self.phi(np.array(u @ self.R @ u / energy))) if energy else 0.0

    def search(self, inner: Callable[[float], Array]) -> Float[Array, " K"]:
        """Best weights of a family: a scan over c, then tangents of 1/φ until the weights stay."""
        low, high = 1.0 / (self.g[[-1, 0]] - 1.0)
        u = max((inner(float(c)) for c in np.geomspace(low, high, _SCAN)), key=self.value)
        while self.value(u) > 0.0:
            pull = self.w / (u @ self.R @ u / (u @ u) - 1.0 + self.g) ** 2
            better = inner(float(pull.sum() / (pull @ (self.g - 1.0))))
            if self.value(better) <= self.value(u) * (1.0 + 1e-14):
                return np.asarray(u / self.root / np.abs(u / self.root).max())
            u = better
        return np.ones_like(u)

    def free(self, c: float) -> Float[Array, " K"]:
        """Any weights."""
        return np.asarray(np.linalg.solve(c * self.R + np.eye(len(self.r)), self.r))

    def monotone(self, c: float) -> Float[Array, " K"]:
        """Weights 0 ≤ ω_1 ≤ … ≤ ω_K with P of either sign."""
        rises = self.root[:, None] * np.tri(len(self.r))
        factor = np.linalg.cholesky(c * self.R + np.eye(len(self.r))).T
        found = [rises @ nnls(factor @ rises, np.linalg.solve(factor.T, s * self.r))[0] for s in (1.0, -1.0)]
        return max(found, key=self.value)

    def step(self, omega: Float[Array, " K"]) -> Step:
        """Weights with the best P for them."""
        u = self.root * omega
        P = self._P(float(u @ self.r), float(u @ self.R @ u), float(u @ u))
        return Step(self.setting.M - self.value(u), omega, omega[:, None, None] * P)

    def _P(self, signal: float, total: float, energy: float) -> Float[Array, "d d"]:
        middle = (self.U * (signal / (total - energy + energy * self.g))) @ self.U.T
        return np.asarray(middle @ self.inverse)

    def decay(self) -> Step:
        """One γ on every token: a scan over rates, refined around the best."""
        layout = PromptLayout(tuple(self.setting.n.tolist()), d=1)
        steps = layout.length - 1.0 - np.arange(layout.length)
        n, R, r = self.n, self.setting.R, self.setting.r

        def moments(rates: Array) -> tuple[Array, Array]:
            each = np.exp(-rates[:, None] * steps)
            sums = np.stack([each[:, block].sum(1) for block in layout.blocks], axis=1)
            return sums, sum(np.sum(each[:, block] ** 2, axis=1) for block in layout.blocks)

        def values(rates: Array) -> Array:
            sums, energy = moments(rates)
            return (sums @ r) ** 2 / energy * self.phi(np.einsum("ak,kl,al->a", sums, R, sums) / energy)

        rates = np.append(0.0, np.geomspace(1e-4 / layout.length, 30.0, 400))
        while True:
            i = int(np.argmax(values(rates)))
            low, best, high = rates[max(i - 1, 0)], rates[i], rates[min(i + 1, len(rates) - 1)]
            if high - low <= 1e-9 * max(high, 1e-3):
                break
            rates = np.unique(np.append(np.linspace(low, high, 33), best))
        (sums,), (energy,) = moments(np.array([best]))
        P = self._P(float(sums @ r), float(sums @ R @ sums), float(energy))
        risk = self.setting.M - float(values(np.array([best]))[0])
        return Step(risk, sums / n, np.repeat(P[None], len(n), 0), float(np.exp(-best)))

    def key(self) -> Step:
        r"""One matrix per task: along the j-th direction $(\tilde R + (g_j - 1) I)^{-1} \tilde r$."""
        u = np.stack([np.linalg.solve(self.R + (g - 1.0) * np.eye(len(self.r)), self.r) for g in self.g], axis=1)
        omega = u / self.root[:, None]
        matrices = np.einsum("ij,kj,lj->kil", self.U, omega, self.U) @ self.inverse
        return Step(self.setting.M - float(self.w @ (self.r @ u)), omega, matrices)
