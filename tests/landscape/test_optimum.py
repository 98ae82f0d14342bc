"""The unconstrained optimum: generic optimiser, closed forms, limits, and a landscape with three stationary points."""

import numpy as np
import pytest
from random_settings import random_setting
from scipy.optimize import minimize

from gladient.landscape import linear_attention, optimum, profile_risk, risk
from gladient.prompts import MultitaskSetting


def generic_minimum(setting, rng, starts=6):
    """BFGS on the printed profile risk from random starts, in the coordinates u = √n ω."""
    s = np.linalg.eigvalsh(setting.Sigma)
    root = np.sqrt(setting.n)
    R, r = setting.R * np.outer(root, root), root * setting.r

    def objective(u):
        u = u / np.linalg.norm(u)
        signal, denominators = u @ r, s * (u @ R @ u + 1) + setting.M
        Ru, value = R @ u, -np.sum(s**2 / denominators) * signal**2
        slope = -2 * signal * r * np.sum(s**2 / denominators) + 2 * signal**2 * Ru * np.sum(s**3 / denominators**2)
        return setting.M + value, slope - (slope @ u) * u

    results = []
    for _ in range(starts):
        u = rng.standard_normal(setting.K)
        for _ in range(3):  # restarts let BFGS forget a poor curvature
            u = u / np.linalg.norm(u)
            u = minimize(objective, u, jac=True, method="BFGS", options={"gtol": 1e-12}).x
        results.append(objective(u)[0])
    return min(results)


@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 8])
def test_equals_generic_optimiser(K):
    rng = np.random.default_rng(K)
    for _ in range(10):
        setting = random_setting(rng, K, d=5)
        np.testing.assert_allclose(optimum(setting).risk, generic_minimum(setting, rng), rtol=1e-8)


def test_global_among_three_stationary_points():
    setting = MultitaskSetting(
        n=[10, 20000], R=np.eye(2), r=[0.1, 0.2], Sigma=np.diag([10.0] + [0.02] * 100), sigma2=0.01
    )
    best = optimum(setting)
    assert round(best.risk, 5) == 11.51664
    grid = min(profile_risk([np.cos(a), np.sin(a)], setting) for a in np.linspace(-0.01, 0.01, 401))
    assert best.risk <= grid <= best.risk * (1 + 1e-6)


ATTENTION = (0.8438, 0.7619, 0.6774, 0.6341, 0.6078, 0.5902)


@pytest.mark.parametrize(
    ("r", "wpgd"),
    [
        ((0.0, 1.0), (0.6875, 0.5238, 0.3548, 0.2683, 0.2157, 0.1803)),
        ((0.2, 0.8), (0.7875, 0.6762, 0.5613, 0.5024, 0.4667, 0.4426)),
        ((0.5, 0.5), ATTENTION),
        ((0.8, 0.2), (0.7875, 0.6762, 0.5613, 0.5024, 0.4667, 0.4426)),
    ],
)
def test_values_of_the_papers_experiment(r, wpgd):
    for n, attention, best in zip((10, 20, 40, 60, 80, 100), ATTENTION, wpgd, strict=True):
        setting = MultitaskSetting.isotropic(n=[n // 2, n // 2], r=r, d=10)
        assert round(linear_attention(setting).risk / 10, 4) == attention
        assert round(optimum(setting).risk / 10, 4) == best


@pytest.mark.parametrize("seed", range(5))
def test_isotropic_closed_form(seed):
    rng = np.random.default_rng(seed)
    drawn = random_setting(rng, K=3, d=2, sigma2=0.0)
    d, sigma2 = 6, 0.5
    setting = MultitaskSetting.isotropic(n=drawn.n, r=drawn.r, R=drawn.R, d=d, sigma2=sigma2)
    root = np.sqrt(setting.n)
    blocks = setting.R * np.outer(root, root) + (d + sigma2 + 1) * np.eye(3)
    expected = d + sigma2 - d * (root * setting.r) @ np.linalg.solve(blocks, root * setting.r)
    np.testing.assert_allclose(optimum(setting).risk, expected, rtol=1e-12)


def test_uncorrelated_closed_forms():
    n, r, d, sigma2 = np.array([3, 50, 700]), np.array([0.3, -0.5, 0.6]), 7, 0.4
    setting = MultitaskSetting.isotropic(n=n, r=r, d=d, sigma2=sigma2)
    c = d + sigma2 + 1
    best, attention = optimum(setting), linear_attention(setting)
    np.testing.assert_allclose(best.risk, d + sigma2 - d * np.sum(n * r**2 / (n + c)), rtol=1e-13)
    np.testing.assert_allclose(best.omega, (r / (n + c)) / np.abs(r / (n + c)).max(), rtol=1e-13)
    gain = d * np.sum(n * r) ** 2 / (n.sum() * c + np.sum(n**2))
    np.testing.assert_allclose(attention.risk, d + sigma2 - gain, rtol=1e-13)


def test_limit_of_many_examples():
    R = np.array([[1.0, 0.3, -0.2], [0.3, 1.0, 0.1], [-0.2, 0.1, 1.0]])
    r = np.array([0.4, -0.3, 0.5])
    Sigma = np.diag([3.0, 1.0, 0.2])
    # every task is known exactly: what is left is the variance of the query's task given all others
    limit = 0.1 + np.trace(Sigma) * (1 - r @ np.linalg.solve(R, r))
    risks = [optimum(MultitaskSetting([n] * 3, R, r, Sigma, 0.1)).risk - limit for n in (10**3, 10**6, 10**9)]
    assert risks[0] > risks[1] > risks[2] > 0
    np.testing.assert_allclose(risks[1] / risks[2], 1000, rtol=1e-3)


def test_nothing_helps_without_correlation():
    best = optimum(MultitaskSetting.isotropic(n=[5, 5], r=[0.0, 0.0], d=3, sigma2=0.2))
    assert best.risk == pytest.approx(3.2, rel=1e-15)
    assert not best.P.any()
    assert best.omega.tolist() == [1.0, 1.0]


def test_singular_correlations_and_covariance():
    # two copies of one task, and directions that x never takes
    Sigma = np.diag([2.0, 1.0, 0.0, 0.0])
    twice = MultitaskSetting([4, 6], np.ones((2, 2)), [0.6, 0.6], Sigma, 0.1)
    once = MultitaskSetting([10], np.ones((1, 1)), [0.6], Sigma, 0.1)
    best = optimum(twice)
    np.testing.assert_allclose([best.risk], optimum(once).risk, rtol=1e-13)
    np.testing.assert_allclose(best.omega, [1.0, 1.0], rtol=1e-12)
    opposite = MultitaskSetting([4, 6], [[1.0, -1.0], [-1.0, 1.0]], [0.6, -0.6], Sigma, 0.1)
    np.testing.assert_allclose([optimum(opposite).risk], optimum(once).risk, rtol=1e-13)


def test_counts_of_very_different_sizes():
    # the large task is useless, so the single example is all there is
    both = MultitaskSetting.isotropic(n=[1, 10**9], r=[0.9, 0.0], d=4)
    alone = MultitaskSetting.isotropic(n=[1], r=[0.9], d=4)
    np.testing.assert_allclose(optimum(both).risk, optimum(alone).risk, rtol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(20):
        setting = random_setting(rng, K=4, d=6, max_log_n=9.0, min_log_s=-6.0)
        best = optimum(setting)
        np.testing.assert_allclose(risk(best.P, best.omega, setting), best.risk, rtol=1e-10)


def test_minimiser_has_no_extra_square_roots_of_sigma():
    # the poster's form P* ∝ Σ^{-1/2} (γ/M Σ + I)^{-1} Σ^{-1/2}, given its best scale, loses to P* ∝ (γ/M Σ + I)^{-1}
    s = np.array([3.0, 1.5, 0.7, 0.2])
    setting = MultitaskSetting([3, 3], [[1.0, 0.3], [0.3, 1.0]], [0.2, 0.7], np.diag(s), 0.3)
    best = optimum(setting)
    form = best.P @ np.diag(1 / s)
    at_zero, at_one, at_minus = (risk(c * form, best.omega, setting) for c in (0.0, 1.0, -1.0))
    curvature, slope = (at_one + at_minus) / 2 - at_zero, (at_one - at_minus) / 2
    printed = at_zero - slope**2 / (4 * curvature)
    assert best.risk < printed
    assert (round(best.risk, 4), round(printed, 4)) == (4.5504, 5.0898)
