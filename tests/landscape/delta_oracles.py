"""The delta rule in plain code, token by token: its moments, and a simulation of it."""

import math

import numpy as np
from random_settings import random_setting

from gladient.prompts import MultitaskSetting


def one_kind(rng, keys, kind, *, K=None, most=14):
    """A random setting of a kind ("isotropic", "general"), with its number of examples kept small."""
    d = int(rng.integers(6 if keys == "nlms" else 1, 9))
    drawn = random_setting(rng, int(rng.integers(1, 4)) if K is None else K, d, min_log_s=-1.0)
    n = rng.integers(1, most, drawn.K)
    Sigma = drawn.Sigma if kind == "general" else 10 ** rng.uniform(-1, 1) * np.eye(d)
    return MultitaskSetting(n, drawn.R, drawn.r, Sigma, drawn.sigma2)


def bound(setting, keys):
    """The largest stable step, by bisection of the spectral radius of the map of E[b bᵀ]."""
    if keys != "gaussian":
        return 2.0
    s = np.linalg.eigvalsh(setting.Sigma)
    low, high = 0.0, 1.0 / s.max()
    for _ in range(60):
        beta = (low + high) / 2
        T = np.diag(1 - 2 * beta * s + 2 * beta**2 * s**2) + beta**2 * np.outer(s, s)
        low, high = (beta, high) if np.linalg.eigvalsh(T)[-1] < 1 else (low, beta)
    return low


def second_moments(setting, erase, write, decays):
    """E[b bᵀ] and E[b θ_0ᵀ] for gaussian keys by Isserlis' formula, one token after the other; free erase and write."""
    d, S, M = setting.d, setting.Sigma, setting.M
    A, B = np.zeros((d, d)), np.zeros((setting.K + 1, d, d))
    R = np.column_stack((setting.R, setting.r))
    for k, n in enumerate(setting.n):
        q, t = erase[k], write[k]
        for _ in range(n):
            X = B[k] @ S
            H = X - q * (S @ X + (S @ X).T + np.sum(B[k] * S) * S)
            A = (
                A - q * (S @ A + A @ S) + q**2 * (2 * S @ A @ S + np.sum(A * S) * S)
                + t * (H + H.T) + t**2 * (M * S + 2 * S @ S)
            )  # fmt: skip
            B = np.stack([(np.eye(d) - q * S) @ B[m] + t * R[k, m] * S for m in range(setting.K + 1)])
        A, B = decays[k] ** 2 * A, decays[k] * B
    return A, B[-1]


def plain_risk(setting, erase, write, decays):
    """Risk after the best read-out matrix, and that matrix."""
    A, B = second_moments(setting, erase, write, decays)
    P = B.T @ np.linalg.pinv(A, rcond=1e-14, hermitian=True)
    return setting.M - np.trace(setting.Sigma @ P @ B), P


def scalar_moments(setting, steps, decays, keys, write=None):
    """Risks and read-outs for Σ = c I of rows of steps and decays, [G, K], by the table of moments."""
    d, c = setting.d, setting.Sigma[0, 0]
    e1, e2, c1, c3, c2, ce = token_moments(setting, keys)
    G, write = len(steps), steps if write is None else write
    a, m = np.zeros(G), np.zeros((G, setting.K + 1))
    R = np.column_stack((setting.R, setting.r))
    for k, n in enumerate(setting.n):
        q, t = steps[:, k], write[:, k]
        for _ in range(n):
            a = (
                (1 - 2 * q * e1 + q**2 * e2) * a + 2 * t * (c1 - q * c3) * m[:, k]
                + t**2 * (c2 + setting.sigma2 * ce)
            )  # fmt: skip
            m = (1 - q * e1)[:, None] * m + (t * c1)[:, None] * R[k]
        a, m = decays[:, k] ** 2 * a, decays[:, k, None] * m
    safe = np.where(a > 0, a, 1.0)
    return setting.sigma2 + c * d * (1.0 - m[:, -1] ** 2 / safe), m[:, -1] / safe


def token_moments(setting, keys):
    """e1, e2, c1, c3, c2, ce of one token for Σ = c I, by the table of moments."""
    d, c = setting.d, setting.Sigma[0, 0]
    mu = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    return {
        "gaussian": (c, (d + 2) * c * c, c, (d + 2) * c * c, (d + 2) * c * c, c),
        "unit": (1 / d, 1 / d, mu * c**0.5 / d, mu * c**0.5 / d, c, 1 / d),
        "nlms": (1 / d, 1 / d, 1 / d, 1 / d, 1 / d, 1 / (c * d * max(d - 2, 1e-9))),
    }[keys]


def block_risks(setting, steps, decays, keys):
    """Risks of rows of steps and decays, [G, K]: a block of n tokens is the n-th power of one token's matrix.

    The state is (a, m, 1) in the eigenbasis of Σ, one a and one m for a direction of it, or one each for Σ = c I.
    """
    s = np.linalg.eigvalsh(setting.Sigma)
    general = keys == "gaussian" and s[-1] - s[0] > 1e-12 * s[-1]
    D = len(s) if general else 1
    if not general:
        e1, e2, c1, c3, c2, ce = token_moments(setting, keys)
    G, eye = len(steps), np.eye(D)
    R = np.column_stack((setting.R, setting.r))
    a, m = np.zeros((G, D)), np.zeros((G, setting.K + 1, D))
    for k, n in enumerate(setting.n):
        q = steps[:, k, None]
        T = np.zeros((G, 2 * D + 1, 2 * D + 1))
        T[:, -1, -1] = 1.0
        if general:
            outer, q2 = np.outer(s, s), q[:, :, None] ** 2
            T[:, :D, :D] = eye * (1 - 2 * q * s + 2 * q**2 * s**2)[:, None] + q2 * outer
            T[:, :D, D : 2 * D] = 2 * q[:, :, None] * (eye * (s * (1 - 2 * q * s))[:, None] - q[:, :, None] * outer)
            T[:, :D, -1] = q**2 * (setting.M * s + 2 * s**2)
            keep, write = 1 - q * s, q * s
        else:
            T[:, 0, 0], T[:, 0, 1] = (1 - 2 * q * e1 + q**2 * e2)[:, 0], (2 * q * (c1 - q * c3))[:, 0]
            T[:, 0, 2] = (q**2 * (c2 + setting.sigma2 * ce))[:, 0]
            keep, write = 1 - q * e1, q * c1
        T[:, D : 2 * D, D : 2 * D], T[:, D : 2 * D, -1] = eye * keep[:, None], write
        block = np.linalg.matrix_power(T, int(n))
        a = (block @ np.concatenate((a, m[:, k], np.ones((G, 1))), axis=1)[:, :, None])[:, :D, 0]
        m = keep[:, None] ** int(n) * m + R[k][:, None] * block[:, None, D : 2 * D, -1]
        a, m = decays[:, k, None] ** 2 * a, decays[:, k, None, None] * m
    gain = m[:, -1] ** 2 / np.where(a > 0, a, 1.0)
    return setting.M - gain @ (s if general else [s.sum()])


def simulated(rng, setting, steps, decays, keys, P, prompts):
    """Mean and standard error of the risk given the prompt, of prompts run through the rule itself."""
    d, K = setting.d, setting.K
    joint = np.block([[setting.R, setting.r[:, None]], [setting.r[None], np.ones((1, 1))]])
    values, vectors = np.linalg.eigh(joint)
    theta = np.einsum("lm,pmd->pld", vectors * np.sqrt(values.clip(0)), rng.standard_normal((prompts, K + 1, d)))
    values, vectors = np.linalg.eigh(setting.Sigma)
    half = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    b = np.zeros((prompts, d))
    for k, n in enumerate(setting.n):
        for _ in range(n):
            x = rng.standard_normal((prompts, d)) @ half
            y = np.sum(x * theta[:, k], axis=1) + math.sqrt(setting.sigma2) * rng.standard_normal(prompts)
            length = np.linalg.norm(x, axis=1)
            key = x if keys == "gaussian" else x / length[:, None]
            value = y / length if keys == "nlms" else y
            b = b + steps[k] * key * (value - np.sum(key * b, axis=1))[:, None]
        b = decays[k] * b
    off = theta[:, -1] - b @ P.T
    risks = setting.sigma2 + np.einsum("pi,ij,pj->p", off, setting.Sigma, off)
    return risks.mean(), risks.std(ddof=1) / math.sqrt(prompts)
