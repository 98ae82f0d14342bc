"""The best scalar gate against brute force, and where it is known to attain the optimum or linear attention."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_settings import per_example, random_setting
from scipy.optimize import minimize

from gladient.landscape import half_gate, linear_attention, optimum, profile_risk, risk, scalar_gate
from gladient.prompts import MultitaskSetting


def brute_force(setting, rng, starts=20):
    """L-BFGS-B over the steps p ≥ 0, ω = cumulative sums of p, from random starts with random steps closed."""
    s, n = np.linalg.eigvalsh(setting.Sigma), setting.n.astype(float)
    scale = np.sqrt(np.cumsum(n[::-1])[::-1])

    def objective(q):
        omega = np.cumsum(q / scale)
        signal, energy = (n * omega) @ setting.r, n @ omega**2 + 1e-300
        Rw = n * (setting.R @ (n * omega))
        D = s * (omega @ Rw + energy) + setting.M * energy
        common = np.sum(s**2 / D)
        dD = np.sum(s**3 / D**2) * 2 * (Rw + n * omega) + np.sum(s**2 / D**2) * setting.M * 2 * n * omega
        slope = -2 * signal * common * n * setting.r + signal**2 * dD
        return setting.M - signal**2 * common, np.cumsum(slope[::-1])[::-1] / scale

    best = np.inf
    for _ in range(starts):
        q = rng.exponential(size=setting.K) * (rng.random(setting.K) < 0.7)
        if not q.any():
            continue
        for _ in range(3):
            q = q / q.max()
            options = {"ftol": 1e-16, "gtol": 1e-13, "maxiter": 2000}
            result = minimize(
                objective, q, jac=True, method="L-BFGS-B", bounds=[(0, None)] * setting.K, options=options
            )
            q = result.x if result.x.any() else q
        best = min(best, result.fun)
    return best


@pytest.mark.slow
@pytest.mark.parametrize("K", [1, 2, 3, 4, 5])
def test_equals_brute_force_on_the_cone(K):
    rng = np.random.default_rng(10 + K)
    for _ in range(15):
        setting = random_setting(rng, K, d=4)
        best = scalar_gate(setting)
        np.testing.assert_allclose(best.risk, brute_force(setting, rng), rtol=1e-8)
        assert (np.diff(best.omega, prepend=0.0) >= 0).all()
        np.testing.assert_allclose(risk(best.P, best.omega, setting), best.risk, rtol=1e-11)


def test_no_random_monotone_weights_do_better():
    rng = np.random.default_rng(1)
    for K in (6, 20):
        setting = random_setting(rng, K, d=6, max_log_n=4.0)
        best = scalar_gate(setting)
        for scale in (1e-3, 1e-1, 10.0):
            for _ in range(100):
                steps = np.diff(best.omega, prepend=0.0) + scale * rng.exponential(size=K) * (rng.random(K) < 0.3)
                assert profile_risk(np.cumsum(steps), setting) >= best.risk * (1 - 1e-12)


def test_attains_the_optimum_when_later_tasks_are_closer():
    setting = MultitaskSetting.isotropic(n=[30] * 4, r=[0.0, 0.1, 0.4, 0.7], d=8, sigma2=0.3)
    np.testing.assert_allclose(scalar_gate(setting).risk, optimum(setting).risk, rtol=1e-13)
    np.testing.assert_allclose(scalar_gate(setting).omega, optimum(setting).omega, atol=1e-13)


def test_is_linear_attention_when_later_tasks_are_farther():
    setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)
    assert scalar_gate(setting).omega.tolist() == [1.0, 1.0]
    np.testing.assert_allclose(scalar_gate(setting).risk, linear_attention(setting).risk, rtol=1e-14)


def test_preconditioner_takes_the_sign():
    # the useful task comes last and is the query's opposite: weights stay in the cone, P is negative
    best = scalar_gate(MultitaskSetting.isotropic(n=[25, 25], r=[0.0, -0.8], d=10))
    assert best.omega.tolist() == [0.0, 1.0]
    assert best.P[0, 0] < 0


def test_half_gate_equals_explicit_tokens():
    rng = np.random.default_rng(3)
    for K in (1, 2, 4):
        setting = random_setting(rng, K, d=3, max_log_n=1.2)
        half, tokens = half_gate(setting), []
        for k, count in enumerate(setting.n):
            tokens += [k] * count + [-1]  # the delimiter
        tokens += [-1]  # the query
        each = np.array([0.5 ** (len(tokens) - 1 - i) for i, task in enumerate(tokens) if task >= 0])
        np.testing.assert_allclose(half.risk, profile_risk(each, per_example(setting)), rtol=1e-12)
        np.testing.assert_allclose(half.risk, risk(half.P, each / each[-1], per_example(setting)), rtol=1e-12)
        sums = [each[np.repeat(np.arange(K), setting.n) == k].mean() for k in range(K)]
        np.testing.assert_allclose(half.omega, sums / each[-1], rtol=1e-12)


def test_half_gate_forgets_all_but_a_few_examples():
    long, longer = (half_gate(MultitaskSetting.isotropic(n=[n, n], r=[0.2, 0.8], d=10)) for n in (60, 10**9))
    np.testing.assert_allclose(long.risk, longer.risk, rtol=1e-14)
    np.testing.assert_allclose(long.risk, 10 - 10 * (2 * 0.8) ** 2 / (4 + (4 / 3) * 11), rtol=1e-14)


any_setting = {
    "seed": st.integers(0, 2**32 - 1),
    "K": st.integers(1, 6),
    "d": st.integers(1, 5),
    "max_log_n": st.sampled_from([1.0, 3.0, 9.0]),
}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(**any_setting)
def test_ladder_order(seed, K, d, max_log_n):
    setting = random_setting(np.random.default_rng(seed), K, d, max_log_n=max_log_n)
    none, scalar, best = linear_attention(setting).risk, scalar_gate(setting).risk, optimum(setting).risk
    assert setting.sigma2 <= best <= scalar * (1 + 1e-11) <= none * (1 + 2e-11) <= setting.M * (1 + 3e-11)
    assert best <= half_gate(setting).risk * (1 + 1e-11)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(**any_setting)
def test_invariances(seed, K, d, max_log_n):
    rng = np.random.default_rng(seed)
    setting, order = random_setting(rng, K, d, max_log_n=max_log_n), rng.permutation(K)
    permuted = MultitaskSetting(
        setting.n[order], setting.R[np.ix_(order, order)], setting.r[order], setting.Sigma, setting.sigma2
    )
    np.testing.assert_allclose(optimum(permuted).risk, optimum(setting).risk, rtol=1e-9)
    flipped = MultitaskSetting(setting.n, setting.R, -setting.r, setting.Sigma, setting.sigma2)
    np.testing.assert_allclose(scalar_gate(flipped).risk, scalar_gate(setting).risk, rtol=1e-9)
    twice = np.repeat(np.arange(setting.K), 2)  # every task cut in two
    split = MultitaskSetting(
        setting.n[twice], setting.R[np.ix_(twice, twice)], setting.r[twice], setting.Sigma, setting.sigma2
    )
    whole = MultitaskSetting(2 * setting.n, setting.R, setting.r, setting.Sigma, setting.sigma2)
    np.testing.assert_allclose(scalar_gate(split).risk, scalar_gate(whole).risk, rtol=1e-9)
    np.testing.assert_allclose(optimum(split).risk, optimum(whole).risk, rtol=1e-9)
