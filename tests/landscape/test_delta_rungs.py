"""The best steps and decays against published digits, against the gates, and against brute force."""

import numpy as np
import pytest
from delta_oracles import one_kind

from gladient.landscape import (
    delta_risk,
    delta_rule,
    gated_delta_rule,
    ladder,
    linear_attention,
    optimum,
    scalar_gate,
)
from gladient.landscape.delta import critical_step_risk
from gladient.prompts import MultitaskSetting

# risk / d for d = 10, n / 2 examples of each task, no noise: r, n, delta, gated, one step per task
TABLE = [
    ((0.0, 1.0), 20, 0.5905, 0.4189, 0.4189),
    ((0.0, 1.0), 100, 0.0255, 0.0129, 0.0129),
    ((0.2, 0.8), 20, 0.6744, 0.6174, 0.6173),
    ((0.2, 0.8), 100, 0.3676, 0.3664, 0.3662),
    ((0.5, 0.5), 20, 0.7480, 0.7480, 0.7314),
    ((0.5, 0.5), 100, 0.5822, 0.5822, 0.5433),
    ((0.8, 0.2), 20, 0.7619, 0.7619, 0.6090),
    ((0.8, 0.2), 100, 0.5902, 0.5902, 0.3354),
]
UNIT = [(20, 0.6433, 0.5915, 0.5914), (100, 0.3685, 0.3680, 0.3677)]


def returns_itself(found, setting, keys="gaussian"):
    again = delta_risk(setting, found.steps, decays=found.decays, keys=keys)
    assert again == pytest.approx(found.risk, rel=1e-12, abs=1e-13 * setting.M)
    assert found.decays[-1] == 1.0
    assert found.certificate.attained == bool(found.steps.any())


@pytest.mark.parametrize(("r", "n", "delta", "gated", "free"), TABLE)
def test_table(r, n, delta, gated, free):
    setting = MultitaskSetting.isotropic(n=[n // 2] * 2, r=r, d=10)
    for found, expected in (
        (delta_rule(setting), delta),
        (gated_delta_rule(setting), gated),
        (gated_delta_rule(setting, per_task=True), free),
    ):
        assert round(found.risk / 10, 4) == expected
        returns_itself(found, setting)


@pytest.mark.parametrize(("n", "delta", "gated", "free"), UNIT)
def test_table_of_unit_keys(n, delta, gated, free):
    setting = MultitaskSetting.isotropic(n=[n // 2] * 2, r=[0.2, 0.8], d=10)
    found = [delta_rule(setting, keys="unit"), gated_delta_rule(setting, keys="unit")]
    found.append(gated_delta_rule(setting, True, keys="unit"))
    assert [round(one.risk / 10, 4) for one in found] == [delta, gated, free]
    for one in found:
        returns_itself(one, setting, "unit")


def test_one_task_with_noise():
    for n, expected in ((20, 0.3331), (100, 0.1239)):
        assert round(delta_rule(MultitaskSetting.isotropic(n=[n], r=[1], d=10, sigma2=1.0)).risk / 10, 4) == expected


def test_two_dips():
    setting = MultitaskSetting.isotropic(n=[50] * 4, r=[0.6, 0, 0, 0.6], d=5)
    best, gated = delta_rule(setting), gated_delta_rule(setting)
    assert (round(best.risk / 5, 4), round(best.steps[0], 4)) == (0.6403, 0.1429)
    assert (round(gated.risk / 5, 4), gated.steps[0], gated.certificate.attained) == (0.5714, 0.0, False)


def test_the_best_step_may_be_none():
    setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10)
    found = delta_rule(setting)
    assert not found.certificate.attained
    assert found.risk == pytest.approx(linear_attention(setting).risk, rel=1e-13)


@pytest.mark.parametrize("kind", ["isotropic", "general"])
def test_order_of_the_rungs(kind):
    rng = np.random.default_rng(0)
    for index in range(12):
        setting = one_kind(rng, "gaussian", kind, most=60)
        found = ladder(setting)
        delta, gated = found.delta_rule, found.gated_delta_rule
        slack = 1 + 1e-11
        assert delta.risk <= found.linear_attention.risk * slack
        assert gated.risk <= min(delta.risk, found.scalar_gate.risk) * slack
        returns_itself(delta, setting)
        returns_itself(gated, setting)
        if kind == "isotropic":
            assert gated.risk <= critical_step_risk(setting).risk * slack
        if index % 8 == 0:
            free = gated_delta_rule(setting, per_task=True)
            assert free.risk <= gated.risk * slack
            returns_itself(free, setting)


def test_steps_per_task_beat_every_value_gate_of_positive_weights():
    for r, R in (((0.8, 0.2), 0.0), ((0.3, 0.6), 0.2), ((0.5, 0.4), 0.3)):
        setting = MultitaskSetting([6, 9], [[1, R], [R, 1]], r, np.eye(5), 0.1)
        assert (optimum(setting).omega > 0).all()
        assert gated_delta_rule(setting, per_task=True).risk < optimum(setting).risk * (1 - 1e-6)


def test_work_does_not_depend_on_the_counts():
    found, points = [], []
    for n in (100, 10**9, 10**12):
        setting = MultitaskSetting.isotropic(n=[n] * 3, r=[0.2, 0.1, 0.8], d=10, sigma2=0.1)
        best = gated_delta_rule(setting)
        found.append(best.risk)
        points.append(best.certificate.points)
    assert max(points) < 500  # the scales of the step: ten a factor e
    assert found[0] > found[1] > found[2] > 0.1 + 10 * (1 - 0.8**2 - 0.1**2 - 0.2**2)


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_scale_of_the_features_is_a_unit(scale):
    for Sigma in (np.eye(4), np.diag([2.0, 1.0, 0.3, 0.1])):
        one = MultitaskSetting([9, 30], np.eye(2), [0.3, 0.7], Sigma, 0.3)
        other = MultitaskSetting(one.n, one.R, one.r, scale * Sigma, scale * 0.3)
        for rung in (delta_rule, gated_delta_rule):
            assert rung(other).risk / scale == pytest.approx(rung(one).risk, rel=1e-9)
            assert rung(other).steps * scale == pytest.approx(rung(one).steps, rel=1e-3)
    noise = MultitaskSetting.isotropic(n=[5, 5], r=[0.1, 0.2], d=3, sigma2=1e260)
    tiny = MultitaskSetting(noise.n, noise.R, noise.r, 1e-260 * np.eye(3), 1e260)
    for setting in (noise, tiny):
        assert gated_delta_rule(setting).risk == pytest.approx(1e260)


def test_gates_alone_for_step_0_are_the_scalar_gate():
    rng = np.random.default_rng(9)
    for _ in range(30):
        setting = one_kind(rng, "gaussian", "isotropic")
        found = gated_delta_rule(setting)
        if not found.certificate.attained:
            assert found.risk == pytest.approx(scalar_gate(setting).risk, rel=1e-12)
