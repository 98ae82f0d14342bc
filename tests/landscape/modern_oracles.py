"""Plain recursions and simulations of rules that rotate, erase along other keys, or take several steps."""

import numpy as np


def plain_floor(setting, gain):
    """σ² + Σ s_j V_00, one example after the other; gain(s, v, sigma2) is what V e e'V is multiplied by."""
    s = np.linalg.eigvalsh(setting.Sigma)
    joint = np.block([[np.ones((1, 1)), setting.r[None]], [setting.r[:, None], setting.R]])
    V = np.repeat(joint[None], len(s), axis=0)
    for k in np.repeat(np.arange(setting.K) + 1, setting.n):
        g = gain(s, V[:, k, k], setting.sigma2)
        V = V - g[:, None, None] * V[:, :, k, None] * V[:, None, k, :]
    return setting.sigma2 + s @ V[:, 0, 0]


def linear_gain(s, v, sigma2):
    return s / (2 * s * v + s @ v + sigma2)


def prompts(setting, count, rng):
    """x [B, N, d], y [B, N], the task of each example, the query's x and y; Σ diagonal."""
    joint = np.block([[np.ones((1, 1)), setting.r[None]], [setting.r[:, None], setting.R]])
    values, vectors = np.linalg.eigh(joint)
    mix = vectors * np.sqrt(np.clip(values, 0, None))
    theta = np.einsum("ij,bjd->bid", mix, rng.standard_normal((count, setting.K + 1, setting.d)))
    task = np.repeat(np.arange(setting.K), setting.n)
    x = rng.standard_normal((count, len(task) + 1, setting.d)) * np.sqrt(np.diag(setting.Sigma))
    y = np.einsum("bnd,bnd->bn", x, theta[:, np.append(task + 1, 0)])
    y = y + np.sqrt(setting.sigma2) * rng.standard_normal(y.shape)
    return x[:, :-1], y[:, :-1], task, x[:, -1], y[:, -1]


def z_score(setting, predict, exact, rng, count=20_000):
    """How many standard errors the simulated risk of predict(x, y, task, query) lies from the exact one."""
    x, y, task, query, target = prompts(setting, count, rng)
    loss = (predict(x, y, task, query) - target) ** 2
    return (loss.mean() - exact) / (loss.std() / np.sqrt(count))


def turned(x, angle):
    """(x_j, 0) turned by the angle in every pair of channels, as [.., 2, d]; one angle, or one for each pair."""
    return np.stack([np.cos(angle) * x, np.sin(angle) * x], axis=-2)


def rotating_state(setting, turns, step=0.0):
    """Prediction of one head: keys turn by the delimiters' turns before them; read at the last angle.

    With a step it is the delta rule, whose query erases too; else gated linear attention. Queries are W x turned by
    the last angle and `read`.
    """
    cumulated = np.concatenate((np.zeros_like(turns[:1]), np.cumsum(turns, axis=0)))

    def predict(x, y, task, query, W, read=0.0):
        b = np.zeros((len(x), 2, x.shape[2]))
        for t, k in enumerate(task):
            key = turned(x[:, t], cumulated[k])
            error = y[:, t] - step * np.einsum("bcd,bcd->b", b, key) if step else y[:, t]
            b = b + error[:, None, None] * key
        last = cumulated[-1]
        if step:
            key = turned(query, last)
            b = step * b
            b = b - step * np.einsum("bcd,bcd->b", b, key)[:, None, None] * key
        return np.einsum("bcd,bcd->b", b, turned(query @ W.T, last + read))

    return predict


def block_risk(setting, rules):
    """Risk of blocks b_l <- b_l - α_l x x' Σ_m ρ_m b_m + τ_l y x, Σ = I, Gaussian keys, best read-out.

    rules(k, i) gives (α, ρ, τ), each [L], for the i-th example of task k.
    """
    d, corr = setting.d, np.column_stack((setting.r, setting.R))
    L = len(rules(0, 0)[0])
    a, m = np.zeros((L, L)), np.zeros((L, setting.K + 1))
    for k, count in enumerate(setting.n):
        for i in range(count):
            al, rh, ta = (np.asarray(one) for one in rules(k, i))
            ra, rm = rh @ a, rh @ m
            cross = np.outer(a @ rh, al)
            wr = np.outer(m[:, k + 1], ta) - (d + 2) * rm[k + 1] * np.outer(al, ta)
            extra = (d + 2 + setting.sigma2) * np.outer(ta, ta)
            a = a - cross - cross.T + (d + 2) * (ra @ rh) * np.outer(al, al) + wr + wr.T + extra
            m = m - np.outer(al, rm) + np.outer(ta, corr[k])
    g = np.linalg.lstsq(a, m[:, 0], rcond=1e-13)[0]
    return d + setting.sigma2 - d * g @ m[:, 0]
