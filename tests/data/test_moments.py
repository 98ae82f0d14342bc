"""The regression for the tasks' second moments: exact laws, a plain loop, and no bias whatever the distributions."""

import numpy as np
import pytest
import simulated

from gladient.data import Prompt, Prompts
from gladient.data.moments import moments
from gladient.prompts import MultitaskSetting

SETTING = MultitaskSetting([3, 5], [[1, 0.5], [0.5, 1]], [0.3, 0.8], np.diag([1.0, 0.5]), 0.4)
JOINT = np.array([[1, 0.5, 0.3], [0.5, 1, 0.8], [0.3, 0.8, 1]])


def test_without_noise_the_same_tasks_are_found_exactly() -> None:
    rng = np.random.default_rng(0)
    beta = rng.normal(size=(3, 2))
    X = rng.normal(size=(10, 3, 4, 2))
    prompts = [Prompt([(x[k], x[k] @ beta[k]) for k in range(2)], (x[2], x[2] @ beta[2])) for x in X]
    found = moments(Prompts.of(prompts), np.arange(10) % 2)
    np.testing.assert_allclose(found.C[0], np.einsum("ki,lj->klij", beta, beta), rtol=1e-9)


def test_plain_loops() -> None:
    prompts = simulated.prompts(SETTING, 12, np.random.default_rng(1))
    found = moments(Prompts.of(prompts), np.arange(12) % 3)
    for k in range(3):
        for other in range(3):
            left, right = np.zeros((4, 4)), np.zeros(4)
            for prompt in prompts:
                (X, y), (Z, w) = prompt.tasks[k], prompt.tasks[other]
                pairs = [(i, j) for i in range(len(y)) for j in range(len(w)) if k != other or i != j]
                for i, j in pairs:
                    left += np.kron(np.outer(X[i], X[i]), np.outer(Z[j], Z[j])) / len(pairs)
                    right += np.kron(X[i], Z[j]) * y[i] * w[j] / len(pairs)
            np.testing.assert_allclose(found.C[0, k, other].ravel(), np.linalg.solve(left, right), rtol=1e-9)


def test_a_block_left_out_is_as_if_it_never_came() -> None:
    prompts, block = simulated.prompts(SETTING, 12, np.random.default_rng(2)), np.arange(12) % 3
    found = moments(Prompts.of(prompts), block)
    without = moments(Prompts.of(prompts).take(np.flatnonzero(block != 1)), block[block != 1] // 2)
    for name in ("xx", "yy", "yyxx", "C"):
        np.testing.assert_allclose(getattr(found, name)[2], getattr(without, name)[0], rtol=1e-9)


@pytest.mark.parametrize("name", simulated.FEATURES)
def test_no_bias(name: str) -> None:
    """With features and noise that are far from Gaussian: 150 small data sets, z of each mean."""
    rng, draw = np.random.default_rng(3), simulated.FEATURES[name][0]

    def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.exponential(size=shape) - 1.0

    C = np.stack(
        [
            moments(Prompts.of(simulated.prompts(SETTING, 40, rng, draw, noise=skewed)), np.arange(40) % 8).C[0]
            for _ in range(150)
        ]
    )
    truth = JOINT[:, :, None, None] * np.eye(2)
    z = (C.mean(0) - truth) / (C.std(0, ddof=1) / np.sqrt(len(C)))
    assert np.abs(z).max() < 4.0


def test_a_feature_that_is_one_number_a_task() -> None:
    """Beside a level it leaves the antisymmetric part of C open, which is 0: 3000 prompts find the rest."""
    rng, prompts = np.random.default_rng(5), []
    for _ in range(3000):
        beta, tasks = rng.normal(size=2), []
        for _ in range(2):
            X = np.tile([1.0, rng.normal()], (4, 1))
            tasks.append((X, X @ beta + rng.normal(size=4)))
        prompts.append(Prompt(tasks[:1], tasks[1]))
    C = moments(Prompts.of(prompts), np.arange(3000) % 20).C
    error = np.sqrt(19 / 20 * ((C[1:] - C[1:].mean(0)) ** 2).sum(0))
    assert (np.abs(C[0] - np.eye(2)) < 4 * error).all()
    np.testing.assert_allclose(C[0, 0, 0], C[0, 0, 0].T, atol=1e-9)


def test_one_example_a_role_says_nothing_of_its_own_variance() -> None:
    found = moments(Prompts.of(simulated.prompts(SETTING, 30, np.random.default_rng(4), queries=1)), np.arange(30) % 2)
    assert np.isnan(found.C[0, 2, 2]).all()
    assert np.isfinite(found.C[0, :2]).all()
