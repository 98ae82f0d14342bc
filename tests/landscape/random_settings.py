"""Random valid settings for the tests of the landscape, and a plain expansion to one task per example."""

import numpy as np

from gladient.prompts import MultitaskSetting


def random_setting(
    rng: np.random.Generator,
    K: int,
    d: int,
    *,
    max_log_n: float = 2.0,
    min_log_s: float = -2.0,
    sigma2: float | None = None,
) -> MultitaskSetting:
    """Correlations of any sign from random directions, rotated Σ with eigenvalues over several decades."""
    directions = rng.standard_normal((K + 1, K + int(rng.integers(1, 4))))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    joint = directions @ directions.T
    np.fill_diagonal(joint, 1.0)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    Sigma = (basis * 10 ** rng.uniform(min_log_s, 1.0, d)) @ basis.T
    return MultitaskSetting(
        n=np.floor(10 ** rng.uniform(0.0, max_log_n, K)),
        R=joint[:K, :K],
        r=joint[:K, K],
        Sigma=(Sigma + Sigma.T) / 2,
        sigma2=float(rng.choice([0.0, 0.1, 1.0])) if sigma2 is None else sigma2,
    )


def per_example(setting: MultitaskSetting) -> MultitaskSetting:
    """The same data, each example counted as a separate task: the paper's R and r, one row per example."""
    task = np.repeat(np.arange(setting.K), setting.n)
    return MultitaskSetting(
        n=np.ones(len(task)),
        R=setting.R[np.ix_(task, task)],
        r=setting.r[task],
        Sigma=setting.Sigma,
        sigma2=setting.sigma2,
    )
