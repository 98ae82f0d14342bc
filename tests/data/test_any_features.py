"""The ladder with the features' own fourth moments: the Gaussian one, brute force, simulation."""

from itertools import pairwise

import numpy as np
import pytest
import simulated
from scipy.optimize import minimize

from gladient import landscape
from gladient.data import Prompts
from gladient.data.estimate import GATES, _errors
from gladient.landscape import reduce
from gladient.prompts import MultitaskSetting

HARD = MultitaskSetting([4, 4], [[1, 0.5], [0.5, 1]], [0.4, 0.8], np.diag([0.6, 0.2, 0.1]), 0.1)
KURTOSES = (1.0, 3.0, 30.0)  # signs, Gaussian, one in ten not 0


def random_setting(rng: np.random.Generator) -> MultitaskSetting:
    K, d = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    factor = rng.standard_normal((K + 1, rng.integers(1, 6))) + rng.standard_normal()
    joint = factor @ factor.T + 1e-3 * np.eye(K + 1)
    joint /= np.sqrt(np.outer(np.diag(joint), np.diag(joint)))
    Sigma = np.diag(rng.gamma(0.5, size=d) + 1e-3)
    return MultitaskSetting(rng.integers(1, 20, K), joint[:-1, :-1], joint[:-1, -1], Sigma, rng.gamma(1.0))


def risk_by_loss(setting: MultitaskSetting, F: np.ndarray, omega: np.ndarray, P: np.ndarray | None = None) -> float:
    """The loss over P and ω as it is written, without the package's algebra; with the best P if none is given."""
    n, Sigma = setting.n, setting.Sigma
    signal, total, energy = n * omega @ setting.r, n * omega @ setting.R @ (n * omega), n @ omega**2
    middle = (total - energy) * Sigma @ Sigma + energy * F
    P = signal * Sigma @ np.linalg.inv(middle) if P is None else P
    return float(setting.M - 2 * signal * np.trace(P @ Sigma @ Sigma) + np.trace(P.T @ Sigma @ P @ middle))


def test_gaussian_features_give_the_ladder() -> None:
    rng = np.random.default_rng(0)
    for _ in range(25):
        setting = random_setting(rng)
        own = landscape.ladder(reduce(setting, simulated.fourth_moments(setting, 3.0)))
        for name, risk in landscape.ladder(setting).risks.items():
            assert own.risks[name] == pytest.approx(risk, abs=1e-11 * setting.M), name
        for name in ("linear_attention", "scalar_gate", "value_gate"):
            rung = getattr(own, name)
            assert landscape.risk(rung.P, rung.omega, setting) == pytest.approx(rung.risk, rel=1e-9)


@pytest.mark.parametrize("kurtosis", KURTOSES)
def test_brute_force(kurtosis: float) -> None:
    """No minimum of the plain loss lies below the rungs or their bounds, and the rungs are points of the loss."""
    rng = np.random.default_rng(int(kurtosis))
    for _ in range(8):
        setting = random_setting(rng)
        F = simulated.fourth_moments(setting, kurtosis)
        reduced = reduce(setting, F)
        best, scalar = landscape.optimum(reduced), landscape.scalar_gate(reduced)
        for rung in (best, scalar, landscape.linear_attention(reduced)):
            assert rung.certificate.lower_bound is not None
            assert rung.certificate.lower_bound <= rung.risk * (1 + 1e-14) <= rung.risk + 1e-12 * setting.M
            assert rung.risk - rung.certificate.lower_bound <= 1e-12 * setting.M
            assert risk_by_loss(setting, F, rung.omega, rung.P) == pytest.approx(rung.risk, abs=1e-12 * setting.M)

        def free(omega: np.ndarray, setting: MultitaskSetting = setting, F: np.ndarray = F) -> float:
            return risk_by_loss(setting, F, omega)

        for start in rng.standard_normal((4, setting.K)):
            assert minimize(free, start).fun >= best.risk - 1e-11 * setting.M
            rising = minimize(lambda root: free(np.cumsum(root**2) + 1e-12), start)
            assert rising.fun >= scalar.risk - 1e-11 * setting.M
        for rate in np.geomspace(1e-3, 5.0, 40):
            steps = [np.exp(-rate * np.arange(n)) for n in setting.n]
            ends = np.exp(-rate * (np.cumsum(setting.n[::-1] + 1)[::-1] - setting.n - 1))
            sums = np.array([part.sum() for part in steps]) * ends
            m = reduced.summed_moments(
                sums, float(sum((part @ part) * end**2 for part, end in zip(steps, ends, strict=True)))
            )
            assert landscape.fixed_decay(reduced).risk <= reduced.risk(m) + 1e-12 * setting.M


@pytest.mark.parametrize("kurtosis", KURTOSES)
def test_stationary_points_are_stationary_and_the_best_is_among_them(kurtosis: float) -> None:
    rng = np.random.default_rng(int(kurtosis))
    for _ in range(10):
        setting = random_setting(rng)
        F = simulated.fourth_moments(setting, kurtosis)
        found = landscape.stationary_points(reduce(setting, F))
        assert not found.undecided
        assert min(point.risk for point in found.points) == pytest.approx(
            landscape.optimum(reduce(setting, F)).risk, abs=1e-12 * setting.M
        )
        for point in found.points:
            step = 1e-6 * np.eye(setting.K)
            slope = [
                (risk_by_loss(setting, F, point.omega + e) - risk_by_loss(setting, F, point.omega - e)) / 2e-6
                for e in step
            ]
            assert np.abs(slope).max() < 1e-8 * setting.M


def test_what_needs_gaussian_features_says_so() -> None:
    reduced = reduce(HARD, simulated.fourth_moments(HARD, 1.0))
    found = landscape.advantage(reduced)
    assert found.strict
    assert found.delta_slope is None
    assert landscape.uniqueness(reduced).paper_margin is None
    for function in (landscape.delta_rule, landscape.gated_delta_rule, landscape.gradients):
        with pytest.raises(ValueError, match="Gaussian features alone"):
            function(reduced)
    for F, wrong in ((np.eye(2), "shape"), (np.diag([1.0, 1.0, np.nan]), "finite"), (np.triu(np.ones((3, 3))), "symm")):
        with pytest.raises(ValueError, match=wrong):
            reduce(HARD, F)


@pytest.mark.parametrize("name", simulated.FEATURES)
def test_predicted_risks_are_simulated(name: str) -> None:
    draw, kurtosis = simulated.FEATURES[name]
    found = landscape.ladder(reduce(HARD, simulated.fourth_moments(HARD, kurtosis)))
    prompts = Prompts.of(simulated.prompts(HARD, 2500, np.random.default_rng(1), draw))
    for gate in GATES:
        rung = getattr(found, gate)
        errors = _errors(rung, prompts, tuple(HARD.n.tolist()))
        z = (errors.mean() - rung.risk) / (errors.std(ddof=1) / np.sqrt(len(errors)))
        assert abs(z) < 4.0, gate


def test_gaussian_moments_mislead_where_features_are_sparse() -> None:
    """The Gaussian optimum is 30% worse than the step of the features' own moments, and 10% better on paper."""
    own = simulated.fourth_moments(HARD, 30.0)
    naive, best = landscape.optimum(HARD), landscape.optimum(reduce(HARD, own))
    assert risk_by_loss(HARD, own, naive.omega, naive.P) > 1.3 * best.risk
    assert naive.risk < 0.9 * best.risk


def test_the_ladder_goes_down() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        setting = random_setting(rng)
        risks = landscape.ladder(reduce(setting, simulated.fourth_moments(setting, 1.5))).risks.values()
        assert all(below <= above + 1e-9 * setting.M for above, below in pairwise(risks))
