"""Prompts of a setting with features of any distribution."""

from collections.abc import Callable

import numpy as np

from gladient._linalg import psd_factor
from gladient.data import Prompt
from gladient.prompts import MultitaskSetting

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def sparse(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Variance 1, fourth moment 10: seven in ten are 0."""
    return np.where(rng.random(shape) < 0.3, rng.standard_normal(shape), 0.0) / np.sqrt(0.3)


def signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Variance 1, fourth moment 1."""
    return rng.choice([-1.0, 1.0], shape)


FEATURES = {"gaussian": (gaussian, 3.0), "sparse": (sparse, 10.0), "signs": (signs, 1.0)}  # and E[x⁴]


def prompts(
    setting: MultitaskSetting,
    count: int,
    rng: np.random.Generator,
    draw: Draw = gaussian,
    *,
    queries: int = 4,
    noise: Draw = gaussian,
) -> list[Prompt]:
    joint = np.ones((setting.K + 1, setting.K + 1))
    joint[:-1, :-1], joint[:-1, -1], joint[-1, :-1] = setting.R, setting.r, setting.r
    tasks, features = psd_factor(joint), psd_factor(setting.Sigma)

    def examples(beta: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        X = draw(rng, (n, setting.d)) @ features
        return X, X @ beta + np.sqrt(setting.sigma2) * noise(rng, (n,))

    found = []
    for _ in range(count):
        betas = tasks @ rng.standard_normal((setting.K + 1, setting.d))
        *sources, query = map(examples, betas, [*setting.n.tolist(), queries])
        found.append(Prompt(sources, query))
    return found


def fourth_moments(setting: MultitaskSetting, kurtosis: float) -> np.ndarray:
    """E[y² x xᵀ] of features Σ^½ e with independent e and Σ diagonal: E[e⁴] is the kurtosis."""
    Sigma = setting.Sigma
    return 2 * Sigma @ Sigma + (kurtosis - 3) * np.diag(np.diag(Sigma)) ** 2 + setting.M * Sigma
