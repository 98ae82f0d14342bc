"""Several layers in plain code: tokens one after the other, on cubature nodes and on drawn prompts."""

import numpy as np

from gladient.landscape.depth import Stack
from gladient.prompts import MultitaskSetting


def random_correlations(rng, K):
    directions = rng.standard_normal((K + 1, K + 2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    joint = directions @ directions.T
    np.fill_diagonal(joint, 1.0)
    return joint[:K, :K], joint[:K, K]


def random_setting(rng, n, d, scale=1.0, sigma2=None):
    R, r = random_correlations(rng, len(n))
    noise = scale * rng.random() if sigma2 is None else sigma2
    return MultitaskSetting(n, R, r, scale * np.eye(d), noise)


def random_stack(rng, H, K, size, *, plain=False):
    """Heads with skips, erasing, decay and writes of any size; without these if plain."""
    skips = size * np.tril(rng.standard_normal((H, H)), -1)
    return Stack(
        size * rng.standard_normal(H),
        skips,
        gates=rng.random((H, K)),
        write=None if plain else rng.uniform(-0.2, 1.2, (H, K + 1)),
        label=rng.standard_normal(H),
        own=rng.uniform(0, 1, H),
        erase=0.0 if plain else size * rng.uniform(0, 1, H),
        decay=1.0 if plain else rng.uniform(0.5, 1, H),
    )


def label_weights(x, n, stack):
    """What each label counts in the prediction, [N, T], for features x, [N, T, d]; the query is last."""
    N, T, d = x.shape
    task = np.repeat(np.arange(len(n) + 1), [*n, 1])
    H = len(stack.readout)
    s = np.zeros((N, H, d, T))  # states as linear maps of the labels
    for t in range(T):
        k, X = task[t], x[:, t]
        if t and task[t - 1] != k:
            s = s * stack.gates[:, k - 1][:, None, None]
        s = s * stack.decay[:, None, None]
        o = np.zeros((N, H, T))
        for h in range(H):
            read = np.einsum("Ndt,Nd->Nt", s[:, h], X)
            v = np.einsum("m,Nmt->Nt", stack.skips[h], o) - stack.erase[h] * read
            if t < T - 1:
                v[:, t] += stack.label[h]
            w = stack.write[h, k] * v
            o[:, h] = read + stack.own[h] * (X**2).sum(1)[:, None] * w
            s[:, h] += X[:, :, None] * w[:, None]
    return np.einsum("h,Nht->Nt", stack.readout, o)


def risk_given_features(w, x, setting):
    """Expected squared error given the features, [N], of a prediction Σ w_j y_j."""
    task = np.repeat(np.arange(setting.K), setting.n)
    S = np.stack([np.einsum("Nj,Njd->Nd", w[:, :-1] * (task == k), x[:, :-1]) for k in range(setting.K)], 1)
    query = x[:, -1]
    return (
        (query**2).sum(1)
        + setting.sigma2 * (1 + (w[:, :-1] ** 2).sum(1))
        - 2 * np.einsum("k,Nkd,Nd->N", setting.r, S, query)
        + np.einsum("kl,Nkd,Nld->N", setting.R, S, S)
    )


def hermite(tokens, d, nodes, Sigma):
    """Features on a product Gauss-Hermite rule, [N, T, d], and weights; exact up to the power 2 nodes - 1."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    grid = np.stack(np.meshgrid(*[z] * (tokens * d), indexing="ij"), -1).reshape(-1, tokens, d)
    weights = np.prod(np.stack(np.meshgrid(*[w / w.sum()] * (tokens * d), indexing="ij"), -1), -1).ravel()
    return grid * np.sqrt(np.diag(Sigma)), weights


def cubature(setting, stack, nodes):
    x, weights = hermite(int(setting.n.sum()) + 1, setting.d, nodes, setting.Sigma)
    return weights @ risk_given_features(label_weights(x, setting.n, stack), x, setting)


def simulated(rng, setting, stack, prompts):
    """Mean squared error of drawn prompts, and its standard error: labels run through the states themselves."""
    K, d = setting.K, setting.d
    joint = np.block([[setting.R, setting.r[:, None]], [setting.r[None], np.ones((1, 1))]])
    values, vectors = np.linalg.eigh(joint)
    theta = np.einsum("lm,pmd->pld", vectors * np.sqrt(values.clip(0)), rng.standard_normal((prompts, K + 1, d)))
    s = [np.zeros((prompts, d)) for _ in stack.readout]
    for k in range(K + 1):
        for _ in range(1 if k == K else setting.n[k]):
            x = rng.standard_normal((prompts, d)) * np.sqrt(np.diag(setting.Sigma))
            y = (x * theta[:, k]).sum(1) + np.sqrt(setting.sigma2) * rng.standard_normal(prompts)
            outputs: list[np.ndarray] = []
            for h in range(len(s)):
                s[h] = stack.decay[h] * s[h]
                read = (s[h] * x).sum(1)
                value = stack.label[h] * y if k < K else 0.0
                value = value + sum(stack.skips[h, m] * o for m, o in enumerate(outputs)) - stack.erase[h] * read
                write = stack.write[h, k] * value
                outputs.append(read + stack.own[h] * (x * x).sum(1) * write)
                s[h] = s[h] + write[:, None] * x
        if k < K:
            s = [stack.gates[h, k] * one for h, one in enumerate(s)]
    errors = (y - sum(f * o for f, o in zip(stack.readout, outputs, strict=True))) ** 2
    return errors.mean(), errors.std(ddof=1) / np.sqrt(prompts)
