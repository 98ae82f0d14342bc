"""The optimal schedule, the critical step, and the slopes at step 0, each against plain computations."""

import numpy as np
import pytest
from delta_oracles import one_kind, plain_risk, scalar_moments
from scipy.optimize import minimize

from gladient.landscape import advantage, delta_risk, delta_rule, ladder, optimum
from gladient.landscape.delta import critical_step_risk, delta_schedule
from gladient.prompts import MultitaskSetting


def one_example_each(n, gamma):
    """One task that drifts: n tasks of one example."""
    steps = np.arange(n)
    return np.ones(n, dtype=int), gamma ** np.abs(steps[:, None] - steps), gamma ** (n - 1.0 - steps)


def test_table_of_one_task():
    for n, expected in ((20, 0.3318), (100, 0.1180)):
        found = delta_schedule(MultitaskSetting.isotropic(n=[n], r=[1.0], d=10, sigma2=1.0))
        assert round(found.risk / 10, 4) == expected
        assert len(found.steps) == len(found.decays) == n == len(found.errors) - 1


def test_without_noise_the_step_is_constant():
    setting = MultitaskSetting.isotropic(n=[40], r=[0.9], d=10)
    found = delta_schedule(setting)
    np.testing.assert_allclose(found.steps, 1 / 12, rtol=1e-14)
    assert found.risk == pytest.approx(10 * (1 - 0.81 * (1 - (11 / 12) ** 40)), rel=1e-13)
    assert found.risk == pytest.approx(delta_rule(setting).risk, rel=1e-12)
    nlms = delta_schedule(setting, keys="nlms")
    np.testing.assert_allclose(nlms.steps, 1.0, rtol=1e-14)
    assert nlms.errors[-1] == pytest.approx(0.9**40, rel=1e-12)


def test_heads_of_the_table():
    # one head per task, each with its own schedule, tasks uncorrelated: L = d - d Σ r_k² (1 - e_n)
    for r, n, expected in (((0.2, 0.8), 50, 0.3288), ((0.5, 0.5), 10, 0.7095), ((0.8, 0.2), 10, 0.6049)):
        e = delta_schedule(MultitaskSetting.isotropic(n=[n], r=[1.0], d=10)).errors[-1]
        assert round(1 - sum(np.square(r)) * (1 - e), 4) == expected


@pytest.mark.parametrize("keys", ["gaussian", "unit", "nlms"])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_schedule_is_its_own_risk_and_no_rule_does_better(keys, gamma):
    rng = np.random.default_rng(0)
    for d, sigma2, scale in ((3, 0.0, 1.0), (4, 0.5, 2.0), (6, 2.0, 0.3)):
        n, R, r = one_example_each(6, gamma)
        setting = MultitaskSetting(n, R, 0.8 * r, scale * np.eye(d), sigma2)
        found = delta_schedule(setting, keys=keys)
        # the oracle decays after a task, the schedule before the next one
        rows, kept = found.steps[None], np.append(found.decays[1:], 1.0)[None]
        assert scalar_moments(setting, rows, kept, keys)[0][0] == pytest.approx(found.risk, rel=1e-11)
        assert delta_risk(setting, found.steps, decays=kept[0], keys=keys) == pytest.approx(found.risk, rel=1e-11)

        def other(x, setting=setting, kept=kept):
            steps, write = np.exp(x[None, :6]), np.exp(x[None, 6:12])
            return scalar_moments(setting, steps, np.append(x[12:], 1.0)[None], keys, write)[0][0]

        for _ in range(4):
            start = np.concatenate((np.log(np.tile(found.steps, 2)), kept[0, :-1])) + 0.5 * rng.standard_normal(17)
            assert minimize(other, start, method="L-BFGS-B").fun >= found.risk * (1 - 1e-9)


def test_one_drifting_task_of_blocks():
    # a chain of tasks with several examples each
    gammas = [0.9, 0.5]
    R = np.array([[1, 0.9, 0.45], [0.9, 1, 0.5], [0.45, 0.5, 1]])
    setting = MultitaskSetting([3, 4, 5], R, 0.7 * R[2], np.eye(3), 0.2)
    found = delta_schedule(setting)
    np.testing.assert_allclose(found.decays[[3, 7]], gammas)
    assert (np.delete(found.decays, [3, 7]) == 1.0).all()
    assert found.risk < delta_rule(setting).risk


def test_one_example_of_each_task():
    setting = MultitaskSetting.drifting(40, 0.95, d=10)
    found = ladder(setting)
    assert [round(found.risks[name] / 10, 4) for name in ("linear_attention", "scalar_gate")] == [0.7950, 0.6572]
    assert found.scalar_gate.risk == pytest.approx(found.value_gate.risk, rel=1e-12)
    assert found.scalar_gate.risk < found.fixed_decay.risk < found.scalar_gate.risk * (1 + 1e-5)
    schedule = delta_schedule(setting)
    assert (schedule.decays[1:] == 0.95).all()
    assert delta_risk(setting, schedule.steps, decays=np.full(40, 0.95)) == pytest.approx(schedule.risk, rel=1e-12)
    assert schedule.risk * (1 - 1e-14) <= found.gated_delta_rule.risk < schedule.risk * (1 + 1e-3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (MultitaskSetting.isotropic(n=[5, 5], r=[0.5, 0.5], d=3), "not a chain"),
        (MultitaskSetting([5], [[1.0]], [1.0], np.diag([1.0, 2.0])), "Sigma has eigenvalues from 1 to 2"),
        (MultitaskSetting.isotropic(n=[10**7], r=[0.5], d=3), "1e6 at most"),
    ],
)
def test_bad_schedules(setting, message):
    with pytest.raises(ValueError, match=message):
        delta_schedule(setting)


def test_critical_step():
    rng = np.random.default_rng(1)
    for _ in range(40):
        setting = one_kind(rng, "gaussian", "isotropic")
        found = critical_step_risk(setting)
        step, c = found.steps[0], setting.Sigma[0, 0]
        assert step == pytest.approx(1 / ((setting.d + 2) * c))
        assert delta_risk(setting, step, decays=found.decays) == pytest.approx(found.risk, rel=1e-10)
        # the closed form at any decays, without R
        decays = rng.uniform(0, 1, setting.K)
        phi, later = (setting.d + 1) / (setting.d + 2), np.append(np.cumsum(setting.n[::-1])[::-1][1:], 0)
        w, gates = (1 - phi**setting.n) * phi**later, np.append(np.cumprod(decays[-2::-1])[::-1], 1.0)
        share = (w @ (setting.r * gates)) ** 2 / ((1 + setting.sigma2 / c / (setting.d + 2)) * (w @ gates**2))
        closed = critical_step_risk(setting, decays=decays).risk
        assert closed == pytest.approx(setting.M - setting.d * c * share, rel=1e-11)
        assert found.risk <= closed * (1 + 1e-12)


def test_decays_are_ratios_of_relevance():
    for R in (np.eye(3), 0.3 + 0.7 * np.eye(3)):
        setting = MultitaskSetting([7, 20, 4], R, [0.1, 0.4, 0.5], np.eye(6), 0.3)
        np.testing.assert_allclose(critical_step_risk(setting).decays, [0.25, 0.8, 1.0], rtol=1e-12)
    with pytest.raises(ValueError, match="use gated_delta_rule"):
        critical_step_risk(MultitaskSetting([5], [[1.0]], [1.0], np.diag([1.0, 2.0])))


def test_slope_of_steps_at_the_best_weights():
    rng, seen = np.random.default_rng(2), 0
    while seen < 20:
        setting = one_kind(rng, "gaussian", "isotropic")
        slope = advantage(setting).delta_slope
        if slope is None:
            continue
        seen += 1
        n, c, d = setting.n, setting.Sigma[0, 0], setting.d
        D = d + 1 + setting.sigma2 / c
        omega = np.linalg.solve(setting.R * n + D * np.eye(setting.K), setting.r)
        omega *= np.sign(omega.sum())

        def risk(eps, setting=setting, omega=omega, c=c):
            rows = np.ones((1, setting.K))
            return scalar_moments(setting, eps * omega[None] / c, rows, "gaussian", omega[None])[0][0]

        h = 1e-4 / (1 + setting.n.sum())
        numeric = (8 * (risk(h) - risk(-h)) - (risk(2 * h) - risk(-2 * h))) / (12 * h)
        assert slope == pytest.approx(numeric, rel=1e-5, abs=1e-6 * setting.M)
        assert risk(0.0) == pytest.approx(optimum(setting).risk, rel=1e-10)
        assert advantage(setting).delta_strict == (slope < 0)
    mixed = MultitaskSetting.isotropic(n=[5, 5], r=[0.5, -0.4], d=3)
    assert (advantage(mixed).delta_slope, advantage(mixed).delta_strict) == (None, False)
    single = advantage(MultitaskSetting.isotropic(n=[1], r=[0.5], d=3))
    assert (single.delta_slope, single.delta_strict) == (0.0, False)


def test_slope_of_a_constant_step():
    rng = np.random.default_rng(3)
    for _ in range(40):
        setting = one_kind(rng, "gaussian", "isotropic")
        c = setting.Sigma[0, 0]
        h = 1e-4 / (1 + setting.n.sum()) / c
        rows, write = np.array([-2, -1, 1, 2])[:, None] * h * np.ones(setting.K), np.ones((4, setting.K))
        low2, low, high, high2 = scalar_moments(setting, rows, write, "gaussian", write)[0]
        numeric = (8 * (high - low) - (high2 - low2)) / (12 * h) / c
        assert advantage(setting).step_slope == pytest.approx(numeric, rel=1e-5, abs=1e-6 * setting.M)
    assert advantage(MultitaskSetting([5], [[1.0]], [1.0], np.diag([1.0, 2.0]))).step_slope is None


def test_when_a_constant_step_helps():
    # two uncorrelated tasks: (r1 - r2) / (r1 + r2) < (d + 1)(h - 1) / (h (h + d + 1 + σ²))
    for h, d, sigma2 in ((5, 3, 0.0), (20, 10, 1.0), (200, 4, 0.3)):
        edge = (d + 1) * (h - 1) / (h * (h + d + 1 + sigma2))
        for side in (-1, 1):
            ratio = edge * (1 + 0.01 * side)
            setting = MultitaskSetting.isotropic(n=[h, h], r=[0.3 * (1 + ratio), 0.3 * (1 - ratio)], d=d, sigma2=sigma2)
            slope = advantage(setting).step_slope
            assert slope is not None
            assert np.sign(slope) == side
            assert (delta_rule(setting).steps[0] > 0) >= (side < 0)


def test_erase_and_write_apart():
    # the same write with erase 0 is gated linear attention: the oracle's own check
    setting = one_kind(np.random.default_rng(4), "gaussian", "general")
    ones = np.ones(setting.K)
    assert plain_risk(setting, 0 * ones, ones, ones)[0] == pytest.approx(delta_risk(setting, 0.0), rel=1e-10)
