"""Weighted steps that are fitted to prompts: no theory, alternating least squares."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from gladient._types import Array, Float
from gladient.data import Prompt

__all__ = ["fit_step", "step_errors"]

_ROUNDS = 60
_RIDGE = 1e-6  # of the mean square: keeps directions without tasks solvable


def fit_step(
    prompts: Sequence[Prompt], omega: Float[Array, " K"], gate: str
) -> tuple[Float[Array, "d d"], Float[Array, " K"]]:
    r"""P and ω that minimise the squared error of $x^\top P \sum_k \omega_k X_k^\top y_k$ on prompts.

    Args:
        prompts: in units in which features are white.
        omega: where the weights start.
        gate: linear_attention keeps ω = 1, scalar_gate has $0 \le \omega_1 \le \dots \le \omega_K$, value_gate any ω.
    """
    h = np.stack([[X.T @ y for X, y in prompt.sources] for prompt in prompts])  # [G, K, d]
    A = np.stack([prompt.query[0].T @ prompt.query[0] / len(prompt.query[1]) for prompt in prompts])
    c = np.stack([prompt.query[0].T @ prompt.query[1] / len(prompt.query[1]) for prompt in prompts])
    P = _best_P(np.einsum("k,gki->gi", omega, h), A, c)
    for _ in range(0 if gate == "linear_attention" else _ROUNDS):
        u = np.einsum("ij,gkj->gki", P, h)
        omega = _best_omega(np.einsum("gki,gij,glj->kl", u, A, u), np.einsum("gki,gi->k", u, c), gate)
        P = _best_P(np.einsum("k,gki->gi", omega, h), A, c)
    scale = np.abs(omega).max()
    return P * scale, omega / scale


def step_errors(prompts: Sequence[Prompt], P: Float[Array, "d d"], omega: Float[Array, " K"]) -> Float[Array, " G"]:
    """Mean squared error on each prompt's queries."""

    def error(prompt: Prompt) -> float:
        beta = P @ sum(w * (X.T @ y) for w, (X, y) in zip(omega, prompt.sources, strict=True))
        return float(np.mean((prompt.query[1] - prompt.query[0] @ beta) ** 2))

    return np.array([error(prompt) for prompt in prompts])


def _best_P(v: Array, A: Array, c: Array) -> Array:
    d = v.shape[1]
    left = np.einsum("gij,gk,gl->ikjl", A, v, v).reshape(d * d, d * d)
    right = np.einsum("gi,gk->ik", c, v).ravel()
    left += _RIDGE * np.trace(left) / len(left) * np.eye(len(left))
    return np.asarray(np.linalg.solve(left, right).reshape(d, d))


def _best_omega(H: Array, b: Array, gate: str) -> Array:
    H = H + _RIDGE * np.trace(H) / len(H) * np.eye(len(H))
    if gate == "value_gate":
        return np.asarray(np.linalg.solve(H, b))
    rises, factor = np.tri(len(b)), np.linalg.cholesky(H).T
    found = rises @ nnls(factor @ rises, np.linalg.solve(factor.T, b))[0]
    return np.asarray(found if found.any() else np.ones_like(b))
