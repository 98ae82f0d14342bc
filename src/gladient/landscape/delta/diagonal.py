"""The delta rule's risk for any Σ: one variance per direction, n tokens as one contour integral."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gladient._linalg import ratio
from gladient._types import Array, Float
from gladient.landscape.delta.isotropic import factored, noise_share
from gladient.landscape.gates.reduced import Reduced

__all__ = ["Diagonal"]

# Nodes of the contour. Against tokens one by one the variance has an error of 7e-8 with 16, 4e-10 with 20, 2e-12 with
# 24 and 5e-14 with 28; with 32 it is 1e-12 again.
_NODES = 24
_FEWEST = 8  # examples from which on that holds: for fewer the contour comes near the branch cut of log
_ENTRIES = 2_000_000  # numbers held at once in an intermediate array: 16 MB


def _contour() -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Nodes of the upper half of the contour around the negative axis, [nodes/2], and the contour's slope there."""
    # The four constants are Weideman's, optimal for singularities on the negative axis. The other half of the contour
    # is the conjugate: twice the imaginary part counts it.
    angle = np.pi * (np.arange(_NODES // 2) + 0.5) / (_NODES // 2)
    cot, sin = 1.0 / np.tan(0.6407 * angle), np.sin(0.6407 * angle)
    zeta = _NODES * (0.5017 * angle * cot - 0.6122 + 0.2645j * angle)
    return zeta, _NODES * (0.5017 * (cot - 0.6407 * angle / sin**2) + 0.2645j)


_CONTOUR = _contour()


@dataclass(frozen=True)
class Diagonal:
    r"""A setting in the eigenbasis of Σ = V diag(s) Vᵀ, keys k = x, the largest s in units of 1.

    In this basis the state's second moments are diagonal. Its mean is $\sum_k w_{kj} \beta_{kj}$ in direction j, the
    rest a variance ν_j. With $\varphi = 1 - \beta s$ and
    $T = \mathrm{diag}(\varphi^2) + \beta^2 (\mathrm{diag}(s^2) + s s^\top)$ a token of task k takes

    $$w \leftarrow \varphi w + t s\, 1_k, \qquad
      \nu \leftarrow T \nu + (\mathrm{diag}(s^2) + s s^\top)\, |\beta w - t\, 1_k|_R^2 + t^2 \sigma^2 s.$$

    n tokens are one integral over z of $z^n (z - T)^{-1}$, the inverse by Sherman and Morrison: no power of a
    matrix, and the difference of $T^n$ and $\varphi^{2n}$ is taken under the integral, where nothing cancels.

    Source: derived; the contour is the modified Talbot contour of Weideman (SIAM J. Numer. Anal. 44, 2006).
    """

    n: Float[Array, " K"]
    s: Float[Array, " d"]
    sigma2: float
    scale: float
    offset: float
    factor: Float[Array, "K J"]

    @classmethod
    def of(cls, reduced: Reduced) -> "Diagonal":
        """The model of any reduced setting."""
        scale = float(reduced.s[-1])
        noise = noise_share(reduced.sigma2, scale)
        factor = np.column_stack((reduced.r, factored(reduced.unexplained)))
        return cls(reduced.n, reduced.s / scale, noise, scale, reduced.sigma2, factor)

    @property
    def d(self) -> int:
        """Number of features."""
        return len(self.s)

    @property
    def step_unit(self) -> float:
        """What a step in the units of this class is in the units of the setting."""
        return 1.0 / self.scale

    @property
    def bound(self) -> float:
        r"""Largest stable step: $\sum_j \beta s_j / (1 - \beta s_j) = 2$."""
        low, high = 0.0, 1.0  # at β s = 1 in the largest direction the sum has no bound
        for _ in range(100):  # more halvings than float64 has digits
            middle = (low + high) / 2
            stable = middle < 1.0 and np.sum(middle * self.s / (1.0 - middle * self.s)) <= 2.0
            low, high = (middle, high) if stable else (low, middle)
        return low

    def risks(self, steps: Float[Array, "G K"], decays: Float[Array, "G K"]) -> Float[Array, " G"]:
        """Risk after the best read-out, of many steps and decays at once."""
        rows = max(1, _ENTRIES // (len(self.s) * (self.factor.shape[1] + 2 * _NODES)))
        parts = [slice(start, start + rows) for start in range(0, len(steps), rows)]
        return np.concatenate([self._risks(steps[part], decays[part]) for part in parts])

    def _risks(self, steps: Array, decays: Array) -> Array:
        s, G = self.s, len(steps)
        write = ratio(steps, steps.max(axis=1, keepdims=True))
        z, nu = np.zeros((G, self.factor.shape[1], len(s))), np.zeros((G, len(s)))
        for k, (n, f) in enumerate(zip(self.n, self.factor, strict=True)):
            beta, t = steps[:, k, None], write[:, k, None]
            u = beta[:, :, None] * z - t[:, :, None] * f[:, None]
            nu = self._variance(n, beta, nu, np.einsum("gjd,gjd->gd", u, u), t**2 * self.sigma2)
            x = beta * s
            with np.errstate(invalid="ignore", divide="ignore"):
                log_keep = n * np.log1p(-x)
                weight = np.where(x > 0.0, -np.expm1(log_keep) * s / np.where(x > 0.0, x, 1.0), n * s)
            z = np.exp(log_keep)[:, None] * z + (t * weight)[:, None] * f[:, None]
            z, nu = decays[:, k, None, None] * z, decays[:, k, None] ** 2 * nu
        # factor's first column is the query's task: signal and lost are both sums of squares
        signal, lost = z[:, 0] ** 2, np.einsum("gjd,gjd->gd", z[:, 1:], z[:, 1:]) + nu
        return np.asarray(self.offset + self.scale * (ratio(lost, signal + lost) @ s))

    def _variance(self, n: float, beta: Array, nu: Array, error: Array, noise: Array) -> Array:
        """ν after n tokens of one task, from ν, |β w - t 1_k|² and t² σ²."""
        s, x = self.s, beta * self.s
        if n < _FEWEST:
            for _ in range(int(n)):
                mixed = error + beta**2 * nu
                nu = (1.0 - x) ** 2 * nu + s**2 * mixed + s * (mixed @ s)[:, None] + noise * s
                error = (1.0 - x) ** 2 * error
            return nu
        # z = e^(zeta/n) and step = z - 1. T's eigenvalues are at most 1, near 1 for small β, and z - T is formed from
        # step and 1 - T: z and T themselves would cancel.
        zeta, slope = _CONTOUR
        step = np.expm1(zeta / n)[:, None, None]
        weights = (np.exp(zeta) * (1.0 + step[:, 0, 0]) * slope / n)[:, None, None]
        y = error / (step + x * (2.0 - x))  # error over z - φ², as 1 - φ² = x (2 - x)
        v = nu + s**2 * y + s * (y @ s)[:, :, None] + noise * s / step
        gap = step + 2.0 * x * (1.0 - x)  # z minus T's diagonal φ² + x²
        v, own = v / gap, s / gap
        v = v + beta**2 * own * ((v @ s) / (1.0 - beta[:, 0] ** 2 * (own @ s)))[:, :, None]
        return np.asarray(np.clip((2.0 / _NODES) * np.sum((weights * v).imag, axis=0), 0.0, None))
