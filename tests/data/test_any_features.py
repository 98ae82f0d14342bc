"""The ladder with the features' own fourth moments: that of the theory if they are Gaussian, and simulation if not."""

from itertools import pairwise

import numpy as np
import pytest
import simulated

from gladient import landscape
from gladient.data._estimate import _error
from gladient.data._ladder import GATES, _Problem, best_steps, gaussian_yyxx
from gladient.prompts import MultitaskSetting

HARD = MultitaskSetting([4, 4], [[1, 0.5], [0.5, 1]], [0.4, 0.8], np.diag([0.6, 0.2, 0.1]), 0.1)


def random_setting(rng: np.random.Generator) -> MultitaskSetting:
    K, d = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    factor = rng.standard_normal((K + 1, rng.integers(1, 6))) + rng.standard_normal()
    joint = factor @ factor.T + 1e-3 * np.eye(K + 1)
    joint /= np.sqrt(np.outer(np.diag(joint), np.diag(joint)))
    Sigma = np.diag(rng.gamma(0.5, size=d) + 1e-3)
    return MultitaskSetting(rng.integers(1, 20, K), joint[:-1, :-1], joint[:-1, -1], Sigma, rng.gamma(1.0))


def test_gaussian_features_give_the_ladder() -> None:
    rng = np.random.default_rng(0)
    for _ in range(25):
        setting = random_setting(rng)
        steps, ladder = best_steps(setting, gaussian_yyxx(setting)), landscape.ladder(setting)
        for name in GATES:
            assert steps[name].risk == pytest.approx(getattr(ladder, name).risk, abs=1e-11 * setting.M), name
        for name in ("linear_attention", "scalar_gate", "value_gate"):
            k = int(np.argmax(np.abs(steps[name].omega)))
            P = steps[name].matrices[k] / steps[name].omega[k]
            assert landscape.risk(P, steps[name].omega, setting) == pytest.approx(steps[name].risk, rel=1e-9)


@pytest.mark.parametrize("name", simulated.FEATURES)
def test_predicted_risks_are_simulated(name: str) -> None:
    draw, kurtosis = simulated.FEATURES[name]
    steps = best_steps(HARD, simulated.fourth_moments(HARD, kurtosis))
    prompts = simulated.prompts(HARD, 2500, np.random.default_rng(1), draw)
    for gate, step in steps.items():
        errors = np.array([_error(step, prompt) for prompt in prompts])
        z = (errors.mean() - step.risk) / (errors.std(ddof=1) / np.sqrt(len(errors)))
        assert abs(z) < 4.0, gate


def test_gaussian_moments_mislead_where_features_are_sparse() -> None:
    """The Gaussian optimum is 30% worse than the step of the features' own moments, and 10% better on paper."""
    own = simulated.fourth_moments(HARD, 30.0)

    def risk(step, F: np.ndarray) -> float:
        omega, n = step.omega, HARD.n
        P = step.matrices[-1] / omega[-1]
        total, energy = (n * omega) @ HARD.R @ (n * omega), n @ omega**2
        Sigma2 = HARD.Sigma @ HARD.Sigma
        middle = (total - energy) * Sigma2 + energy * F
        return HARD.M - 2 * (n * omega) @ HARD.r * np.trace(P @ Sigma2) + np.trace(P.T @ HARD.Sigma @ P @ middle)

    naive, best = (best_steps(HARD, F)["value_gate"] for F in (gaussian_yyxx(HARD), own))
    assert risk(best, own) == pytest.approx(best.risk, rel=1e-9)
    assert risk(naive, own) > 1.3 * best.risk
    assert naive.risk < 0.9 * best.risk


def test_no_weights_are_better() -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        setting = random_setting(rng)
        steps = best_steps(setting, simulated.fourth_moments(setting, 6.0))
        problem = _Problem(setting, simulated.fourth_moments(setting, 6.0))
        free = rng.standard_normal((300, setting.K))
        for omega, gate in [(w, "value_gate") for w in free] + [(np.sort(np.abs(w)), "scalar_gate") for w in free]:
            assert problem.step(omega).risk >= steps[gate].risk - 1e-12 * setting.M


def test_the_ladder_goes_down() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        setting = random_setting(rng)
        risks = [step.risk for step in best_steps(setting, simulated.fourth_moments(setting, 1.5)).values()]
        assert all(below <= above + 1e-9 * setting.M for above, below in pairwise(risks))
