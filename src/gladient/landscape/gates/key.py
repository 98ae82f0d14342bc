"""Key gates: one weight per task and direction of Σ."""

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import Certificate, KeyGate
from gladient.prompts import MultitaskSetting

__all__ = ["key_gate"]


def key_gate(setting: MultitaskSetting | Reduced) -> KeyGate:
    r"""Optimum of $\hat\beta = \sum_k W_k X_k^\top y_k$ over all matrices $W_k$, without order constraints.

    The best $W_k$ share the eigenvectors of Σ; along the j-th one, with $\tilde R_{kl} = \sqrt{n_k n_l} R_{kl}$,
    $\tilde r_k = \sqrt{n_k} r_k$,

    $$\sqrt{n}\,\omega_{\cdot j} = (s_j \tilde R + (s_j + M) I)^{-1} \tilde r, \qquad
      L = M - \sum_j s_j^2\, \tilde r^\top (s_j (\tilde R + I) + M I)^{-1} \tilde r.$$

    A key gate reaches it if its channels' weights are monotone in k, else with repeated channels. Equal to the value
    gate's risk when Σ ∝ I, in general lower.

    Source: derived.

    >>> key = key_gate(MultitaskSetting([25, 25], np.eye(2), [0.2, 0.8], np.diag([4.0, 1.0, 0.1])))
    >>> print(f"{key.risk:.10f}", key.omega.shape)
    2.0381727108 (2, 3)
    """
    reduced = reduce(setting)
    n, h, root = reduced.n, reduced.h, np.sqrt(reduced.n)[:, None]
    omega = _solve(reduced, np.broadcast_to(reduced.r_blocks[:, None], (len(n), len(h)))) / root
    # The eigenbasis loses the small tasks beside one of 10⁹ examples and more: one correction, from what is left over.
    left = root * (reduced.r[:, None] - h * (reduced.R @ (n[:, None] * omega)) - omega)
    omega += _solve(reduced, left) / root
    # The risk of exactly these weights, as a sum of squares: errors of the eigenbasis enter it squared. Of the part w_j
    # of M the error has (1 - h signal)² for the query's task, h² excess for the other tasks, h energy for label noise
    # and features.
    sums, energy = n[:, None] * omega, n @ omega**2
    signal, Rsums = reduced.r @ sums, reduced.R @ sums
    excess = np.clip(np.sum(sums * (Rsums - np.outer(reduced.r, signal)), axis=0), 0.0, None)
    risk = reduced.rest + np.sum(reduced.w * ((1.0 - h * signal) ** 2 + h**2 * excess + h * energy))
    residual = root * (h * Rsums + omega - reduced.r[:, None])
    scale = np.linalg.norm(reduced.r_blocks)
    stationarity = float(np.abs(residual).max() / scale) if scale > 0 else 0.0
    directions, readers, factor = reduced.maps
    return KeyGate(float(risk), omega * factor, directions, readers, Certificate(stationarity=stationarity))


def _solve(reduced: Reduced, b: Float[Array, "K d"]) -> Float[Array, "K d"]:
    """Column j of b over h_j R̃ + I, in the eigenbasis of R̃."""
    eigenvalues, E = reduced.block_eigen
    return np.asarray(E @ ((E.T @ b) / (np.outer(eigenvalues, reduced.h) + 1.0)))
