"""Every rung against brute force and simulation, its certificate, and the order of the ladder."""

import json
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_settings import per_example, random_setting
from scipy.optimize import minimize_scalar

from gladient.landscape import (
    AnyRung,
    bayes,
    best_order,
    fixed_decay,
    gradients,
    half_gate,
    key_gate,
    ladder,
    optimum,
    profile_risk,
    risk,
    scalar_gate,
    uniqueness,
)
from gladient.prompts import MultitaskSetting


def decay_weights(setting, gamma):
    """γ to the number of tokens after each example: examples, one delimiter per task, the query."""
    tokens = [(k, i) for k in range(setting.K) for i in [*range(setting.n[k]), -1]] + [(-1, -1)]
    return np.array([gamma ** (len(tokens) - 1 - t) for t, (_, i) in enumerate(tokens) if i >= 0])


def decay_risks(setting, gammas):
    """The printed profile risk over examples, for many γ at once."""
    examples = per_example(setting)
    weights = np.stack([decay_weights(setting, gamma) for gamma in gammas])
    weights = weights / weights.max(axis=1, keepdims=True)
    spread, energy = np.sum((weights @ examples.R) * weights, axis=1), np.sum(weights**2, axis=1)
    s, M = np.linalg.eigvalsh(setting.Sigma), setting.M
    gain = np.sum(s**2 / (s * (spread + energy)[:, None] + M * energy[:, None]), axis=1)
    return M - (weights @ examples.r) ** 2 * gain


@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_fixed_decay_equals_brute_force(K):
    rng = np.random.default_rng(K)
    grid = np.linspace(0.02, 1.0, 400)
    for _ in range(50):
        setting = random_setting(rng, K, d=3, max_log_n=1.3)
        risks = decay_risks(setting, grid)
        i = int(np.argmin(risks))
        around = (grid[max(i - 1, 0)], grid[min(i + 1, 399)])
        fine = minimize_scalar(
            lambda gamma, setting=setting: decay_risks(setting, [gamma])[0],
            bounds=around,
            method="bounded",
            options={"xatol": 1e-9},
        )
        best = fixed_decay(setting)
        assert best.risk <= min(fine.fun, risks[i]) * (1 + 1e-10)
        assert best.certificate.bracket is not None
        assert best.gamma is not None
        low, high = best.certificate.bracket
        assert low <= best.gamma <= high <= low + 1e-6
        if best.gamma > 0.02:
            np.testing.assert_allclose(best.risk, min(fine.fun, risks[i]), rtol=1e-8)
            np.testing.assert_allclose(best.risk, decay_risks(setting, [best.gamma])[0], rtol=1e-10)


def test_fixed_decay_has_all_digits_of_its_risk():
    rng = np.random.default_rng(2)
    around = 1.0 + 1e-4 * np.linspace(-1.0, 1.0, 2001)
    for _ in range(40):
        setting = random_setting(rng, int(rng.integers(1, 7)), d=3, max_log_n=1.0)
        best = fixed_decay(setting)
        assert best.gamma is not None
        assert best.risk <= decay_risks(setting, best.gamma**around).min() + 1e-14 * setting.M


def test_fixed_decay_at_any_length():
    for n in ([1], [10**9, 3], [3, 10**9], [10**9] * 4):
        r = np.linspace(0.1, 0.4, len(n))
        setting = MultitaskSetting.isotropic(n=n, r=r, d=6, sigma2=0.1)
        best = fixed_decay(setting)
        assert (
            optimum(setting).risk <= best.risk <= min(half_gate(setting).risk, profile_risk(np.ones(len(n)), setting))
        )


def test_fixed_decay_without_signal():
    assert fixed_decay(MultitaskSetting.isotropic(n=[4, 5], r=[0.0, 0.0], d=2)).risk == pytest.approx(2.0, rel=1e-15)


def key_gate_by_least_squares(setting):
    """The risk is quadratic in the weights (w_kj): expand that quadratic from its definition and minimise it."""
    s, M, n = np.linalg.eigvalsh(setting.Sigma), setting.M, setting.n
    K, d = setting.K, setting.d

    def loss(w):  # term by term over pairs of tasks
        w, total = w.reshape(K, d), M
        for j in range(d):
            for k in range(K):
                total -= 2 * s[j] ** 2 * n[k] * w[k, j] * setting.r[k]
                total += s[j] * n[k] * w[k, j] ** 2 * (s[j] ** 2 + M * s[j])
                for m in range(K):
                    total += s[j] ** 3 * n[k] * n[m] * w[k, j] * w[m, j] * setting.R[k, m]
        return total

    basis = np.eye(K * d)
    linear = np.array([(loss(e) - loss(-e)) / 2 for e in basis])
    hessian = np.array([[loss(e + f) - loss(e) - loss(f) + M for f in basis] for e in basis])
    scale = 1 / np.sqrt(np.diag(hessian))
    root = np.linalg.cholesky(hessian * np.outer(scale, scale))
    best = scale * np.linalg.lstsq(root.T, -np.linalg.solve(root, scale * linear), rcond=None)[0]
    return loss(best), best.reshape(K, d)


@pytest.mark.parametrize("K", [1, 2, 3])
def test_key_gate_solves_least_squares(K):
    rng = np.random.default_rng(K)
    for _ in range(70 if K < 3 else 30):
        setting = random_setting(rng, K, d=2, max_log_n=1.0, min_log_s=-1.0)
        exact, weights = key_gate_by_least_squares(setting)
        found = key_gate(setting)
        np.testing.assert_allclose(found.risk, exact, rtol=1e-8)
        np.testing.assert_allclose(found.omega, weights, rtol=1e-6, atol=1e-9)
        assert found.certificate.stationarity is not None
        assert found.certificate.stationarity < 1e-10


def test_key_gate_formula_and_isotropic_case():
    rng = np.random.default_rng(0)
    setting = random_setting(rng, K=4, d=5)
    root = np.sqrt(setting.n)
    R, r = setting.R * np.outer(root, root), root * setting.r
    s, M = np.linalg.eigvalsh(setting.Sigma), setting.M
    expected = M - sum(sj**2 * r @ np.linalg.solve(sj * (R + np.eye(4)) + M * np.eye(4), r) for sj in s)
    np.testing.assert_allclose(key_gate(setting).risk, expected, rtol=1e-11)
    isotropic = MultitaskSetting.isotropic(n=setting.n, r=setting.r, R=setting.R, d=5, sigma2=0.2)
    np.testing.assert_allclose(key_gate(isotropic).risk, optimum(isotropic).risk, rtol=1e-12)


def test_key_gate_of_small_tasks_beside_a_huge_one():
    """Against fractions: the eigenbasis of the tasks alone loses 1e-8 of M here."""
    n, r = [Fraction(37), Fraction(10**12), Fraction(46)], [Fraction(-1, 4), Fraction(-1, 2), Fraction(3, 4)]
    R = [[Fraction(x) for x in row] for row in ([1, 0.25, 0.125], [0.25, 1, -0.5], [0.125, -0.5, 1])]
    s, M = Fraction(1, 4), Fraction(1, 2)  # two directions, no noise
    A = [[s * n[k] * n[m] * R[k][m] + (s + M) * n[k] * (k == m) for m in range(3)] for k in range(3)]
    b = [n[k] * r[k] for k in range(3)]
    columns = [[*(row[:k]), value, *(row[k + 1 :])] for k in range(3) for row, value in zip(A, b, strict=True)]
    x = [determinant(columns[3 * k : 3 * k + 3]) / determinant(A) for k in range(3)]  # Cramer's rule
    expected = M - 2 * s**2 * sum(b[k] * x[k] for k in range(3))
    counts, matrix, vector = (np.array(value, dtype=float) for value in (n, R, r))
    setting = MultitaskSetting(counts, matrix, vector, 0.25 * np.eye(2))
    np.testing.assert_allclose(key_gate(setting).risk, float(expected), rtol=1e-13)


def determinant(A):
    (a, b, c), (d, e, f), (g, h, i) = A
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def simulated(setting, predictor, prompts, rng):
    """Mean squared error of `predictor(X, y, x)` over sampled prompts, and its standard error."""
    joint = np.block([[setting.R, setting.r[:, None]], [setting.r, 1.0]])
    eigenvalues, vectors = np.linalg.eigh(joint)
    mix = vectors * np.sqrt(np.clip(eigenvalues, 0, None))
    s, V = np.linalg.eigh(setting.Sigma)
    root, noise = (V * np.sqrt(np.clip(s, 0, None))) @ V.T, np.sqrt(setting.sigma2)
    task = np.repeat(np.arange(setting.K), setting.n)
    losses = np.empty(prompts)
    for b in range(prompts):
        tasks = mix @ rng.standard_normal((setting.K + 1, setting.d))
        X = rng.standard_normal((len(task), setting.d)) @ root
        y = np.sum(X * tasks[task], axis=1) + noise * rng.standard_normal(len(task))
        x = root @ rng.standard_normal(setting.d)
        losses[b] = (x @ tasks[-1] + noise * rng.standard_normal() - predictor(X, y, x)) ** 2
    return losses.mean(), losses.std() / np.sqrt(prompts)


@pytest.mark.parametrize("seed", range(3))
def test_key_gate_and_fixed_decay_match_simulation(seed):
    rng = np.random.default_rng(seed)
    setting = random_setting(rng, K=2, d=3, max_log_n=1.0, min_log_s=-1.0)
    task = np.repeat(np.arange(2), setting.n)
    key, decay = key_gate(setting), fixed_decay(setting)
    V, weights = key.directions, decay_weights(setting, decay.gamma)
    weights = weights / weights[-1]

    def by_key(X, y, x):
        return x @ V @ np.sum(key.omega.T[:, task] * (V.T @ (X * y[:, None]).T), axis=1)

    def by_decay(X, y, x):
        return x @ decay.P @ X.T @ (weights * y)

    for predictor, exact in ((by_key, key.risk), (by_decay, decay.risk)):
        mean, error = simulated(setting, predictor, 8000, rng)
        assert abs(mean - exact) < 4 * error


@pytest.mark.parametrize("seed", range(3))
def test_bayes_matches_simulated_posterior_mean(seed):
    rng = np.random.default_rng(seed)
    setting = random_setting(rng, K=2, d=3, max_log_n=1.2, min_log_s=-1.0, sigma2=0.3)
    task = np.repeat(np.arange(2), setting.n)

    def posterior_mean(X, y, x):
        kernel = setting.R[np.ix_(task, task)] * (X @ X.T) + setting.sigma2 * np.eye(len(task))
        return x @ (setting.r[task, None] * X).T @ np.linalg.solve(kernel, y)

    mean, error = simulated(setting, posterior_mean, 6000, rng)
    estimate = bayes(setting, prompts=4000, seed=seed)
    assert abs(mean - estimate.risk) < 4 * np.hypot(error, estimate.standard_error)


def test_bayes_edge_cases():
    # noiseless and enough examples: the tasks are known, the rest is the query task's own variance
    known = bayes(MultitaskSetting.isotropic(n=[4, 10**9], r=[0.5, 0.5], d=4), prompts=50)
    assert known.risk == pytest.approx(4 * 0.5, rel=1e-9)
    copies = MultitaskSetting([6, 6], np.ones((2, 2)), [0.8, 0.8], np.diag([1.0, 0.5, 0.0]))
    assert bayes(copies, prompts=50).risk == pytest.approx(1.5 * 0.36, rel=1e-9)
    with pytest.raises(ValueError, match="at least 2"):
        bayes(copies, prompts=1)


def test_bayes_repeats_with_its_seed():
    setting = random_setting(np.random.default_rng(0), K=2, d=3)
    assert bayes(setting, 50, seed=3) == bayes(setting, 50, seed=3)
    assert bayes(setting, 50, seed=3) != bayes(setting, 50, seed=4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    K=st.integers(1, 6),
    d=st.integers(1, 6),
    max_log_n=st.sampled_from([1.0, 3.0, 9.0]),
    min_log_s=st.sampled_from([-8.0, -2.0, 0.0]),
)
def test_order_and_certificates(seed, K, d, max_log_n, min_log_s):
    setting = random_setting(np.random.default_rng(seed), K, d, max_log_n=max_log_n, min_log_s=min_log_s)
    found = ladder(setting)
    risks = list(found.risks.values())
    for above, below in pairwise(risks):
        assert below <= above * (1 + 1e-10)
    assert all(gap >= -1e-10 * setting.M for gap in found.gaps.values())
    for rung in (found.scalar_gate, found.value_gate):
        certificate: Any = rung.certificate
        assert certificate.stationarity < 1e-6
        assert_bounded(rung.risk, certificate.lower_bound, setting)
    scalar, key = found.scalar_gate.certificate, found.key_gate.certificate
    assert scalar.kkt is not None
    assert scalar.kkt < 1e-6
    assert key.stationarity is not None
    assert key.stationarity < 1e-4


def assert_bounded(risk, lower_bound, setting):
    """As near as the certificate says, and never above, not by a rounding error."""
    slack = (1e-13 + 1e-15 * (setting.K + setting.d) * (1 + float(setting.n.sum()))) * setting.M
    assert risk - slack <= lower_bound <= risk


def test_bounds_lie_below_the_risk_at_any_length():
    rng = np.random.default_rng(1)
    settings = [random_setting(rng, *rng.integers(1, 7, 2), max_log_n=11.9, min_log_s=-8.0) for _ in range(200)]
    settings += [
        MultitaskSetting.isotropic(n=[n, 10], r=[0.2, r], d=3) for n in (1, 10**6, 8 * 10**10) for r in (0.8, 0)
    ]
    for setting in settings:
        for rung in (optimum(setting), scalar_gate(setting)):
            assert_bounded(rung.risk, rung.certificate.lower_bound, setting)
        order = best_order(setting)
        assert_bounded(order.risk, order.lower_bound, setting)


def test_bayes_is_the_last_rung():
    rng = np.random.default_rng(5)
    for _ in range(10):
        setting = random_setting(rng, K=3, d=4, max_log_n=1.5, sigma2=0.2)
        found = ladder(setting, bayes_prompts=400)
        assert found.bayes is not None
        assert found.bayes.risk - 4 * found.bayes.standard_error <= found.key_gate.risk
        assert list(found.gaps) == ["linear_attention", "fixed_decay", "scalar_gate", "value_gate", "key_gate"]


@pytest.mark.parametrize("scale", [1e-250, 1e-6, 1e6, 1e250])
def test_scale_of_the_features_is_a_unit(scale):
    setting = random_setting(np.random.default_rng(6), K=3, d=4, sigma2=0.3)
    scaled = MultitaskSetting(setting.n, setting.R, setting.r, scale * setting.Sigma, scale * setting.sigma2)
    for one, other in zip(ladder(setting).risks.values(), ladder(scaled).risks.values(), strict=True):
        np.testing.assert_allclose(other / scale, one, rtol=1e-10)
    spread, other = bayes(setting, 20).standard_error, bayes(scaled, 20).standard_error
    np.testing.assert_allclose(other / scale, spread, rtol=1e-7)
    best = optimum(scaled)
    np.testing.assert_allclose(risk(best.P, best.omega, scaled), best.risk, rtol=1e-10)
    np.testing.assert_allclose(gradients(scaled).n / scale, gradients(setting).n, rtol=1e-7)
    np.testing.assert_allclose(uniqueness(scaled).slope_bound, uniqueness(setting).slope_bound, rtol=1e-7)


def test_every_rung_speaks_for_itself() -> None:
    setting = random_setting(np.random.default_rng(0), 2, 3)
    found = ladder(setting, bayes_prompts=2)
    beside = ("fixed_rotation", "rotating_gate", "delta_rule", "gated_delta_rule", "filter_floor", "any_key_floor")
    for rung in (*found.rungs.values(), *(getattr(found, name) for name in beside), half_gate(setting)):
        assert isinstance(rung, AnyRung)
        assert json.loads(json.dumps(rung.numbers()))["risk"] == rung.risk
        assert rung.text
        assert rung.weights is None or rung.weights.shape == (2,)
