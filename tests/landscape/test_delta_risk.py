"""The delta rule's risk against plain moments, against simulation, at its limits, and its errors."""

import time

import numpy as np
import pytest
from delta_oracles import bound, one_kind, plain_risk, scalar_moments, simulated
from random_settings import random_setting

from gladient.landscape import delta_risk, linear_attention, profile_risk
from gladient.prompts import MultitaskSetting

KINDS = [("gaussian", "isotropic"), ("gaussian", "general"), ("unit", "isotropic"), ("nlms", "isotropic")]
PAPER = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)


def random_rule(rng, setting, keys, share):
    """One step or one per task, up to a share of the bound, and decays in half of the cases."""
    steps = rng.uniform(0.0, share, setting.K if rng.random() < 0.5 else None) * bound(setting, keys)
    decays = rng.uniform(0.0, 1.0, setting.K) if rng.random() < 0.5 else None
    return steps, decays, np.broadcast_to(steps, setting.K), np.ones(setting.K) if decays is None else decays


@pytest.mark.parametrize(("keys", "kind"), KINDS)
def test_plain_moments(keys, kind):
    rng = np.random.default_rng(0)
    for _ in range(60):
        setting = one_kind(rng, keys, kind)
        steps, decays, rows, kept = random_rule(rng, setting, keys, 1.0)
        if keys == "gaussian":
            expected, _ = plain_risk(setting, rows, rows, kept)
        else:
            expected = scalar_moments(setting, rows[None], kept[None], keys)[0][0]
        found = delta_risk(setting, steps, decays=decays, keys=keys)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * setting.M)


@pytest.mark.parametrize(("keys", "kind"), KINDS)
def test_simulation(keys, kind):
    rng = np.random.default_rng(1)
    scores = []
    for _ in range(100):
        setting = one_kind(rng, keys, kind, most=10)
        steps, decays, rows, kept = random_rule(rng, setting, keys, 0.6)
        if keys == "gaussian":
            P = plain_risk(setting, rows, rows, kept)[1]
        else:
            P = scalar_moments(setting, rows[None], kept[None], keys)[1][0] * np.eye(setting.d)
        mean, error = simulated(rng, setting, rows, kept, keys, P, 2000)
        scores.append((mean - delta_risk(setting, steps, decays=decays, keys=keys)) / max(error, 1e-12 * setting.M))
    assert np.abs(scores).max() < 4.0
    assert 0.6 < np.std(scores) < 1.4


def test_numbers_of_one_constant_step():
    two = MultitaskSetting.isotropic(n=[50] * 4, r=[0.6, 0, 0, 0.6], d=5)
    assert round(delta_risk(two, 0.0026) / 5, 4) == 0.6765
    assert round(delta_risk(two, 0.1440) / 5, 4) == 0.6403
    mixed = MultitaskSetting.isotropic(n=[20, 20], r=[0.8, -0.2], d=10)
    assert round(delta_risk(mixed, 0.0) / 10, 4) == 0.8839
    assert round(delta_risk(mixed, 0.1345) / 10, 3) == 0.987
    one = MultitaskSetting.isotropic(n=[30], r=[1.0], d=10)
    assert delta_risk(one, 1 / 12) == pytest.approx(10 * (11 / 12) ** 30, rel=1e-12)


@pytest.mark.parametrize("kind", ["isotropic", "general"])
def test_small_steps_are_gated_linear_attention(kind):
    rng = np.random.default_rng(2)
    for _ in range(30):
        setting = one_kind(rng, "gaussian", kind)
        decays = rng.uniform(0.3, 1.0, setting.K)
        decays[-1] = 1.0
        weights = np.cumprod(decays[::-1])[::-1]
        tiny, unit = 1e-9 / np.trace(setting.Sigma), 1e-6 * setting.M
        assert delta_risk(setting, 0.0) == pytest.approx(linear_attention(setting).risk, rel=1e-11)
        assert delta_risk(setting, 0.0, decays=decays) == pytest.approx(profile_risk(weights, setting), rel=1e-11)
        assert delta_risk(setting, tiny, decays=decays) == pytest.approx(profile_risk(weights, setting), abs=unit)
        steps = rng.uniform(0.1, 1.0, setting.K)
        assert delta_risk(setting, tiny * steps) == pytest.approx(profile_risk(steps, setting), abs=unit)


def test_equal_eigenvalues_are_the_limit_of_unequal_ones():
    rng = np.random.default_rng(3)
    for n in (3, 40, 10**6, 10**12):
        setting = MultitaskSetting([n, 5, n], np.eye(3), [0.2, -0.3, 0.7], 2.0 * np.eye(4), 0.4)
        near = MultitaskSetting(setting.n, setting.R, setting.r, np.diag(2.0 + 1e-11 * np.arange(4)), 0.4)
        for step in (0.0, 1e-13, 1e-6, *rng.uniform(0.0, 0.16, 5)):
            found = delta_risk(near, step, decays=[0.5, 0.9, 1.0])
            assert found == pytest.approx(delta_risk(setting, step, decays=[0.5, 0.9, 1.0]), rel=1e-9)


def test_huge_counts_in_milliseconds():
    for Sigma in (np.eye(10), np.diag(np.geomspace(0.1, 1, 10))):
        setting = MultitaskSetting([10**12, 10**12], np.eye(2), [0.2, 0.8], Sigma, 0.5)
        start = time.perf_counter()
        risks = [delta_risk(setting, step) for step in (0.0, 1e-12, 1e-6, 0.05)]
        assert (time.perf_counter() - start) / 4 < 0.05
        assert all(setting.sigma2 < risk < setting.M for risk in risks)
    # one task, a long way past its start: the noise's floor β σ² / (2 - (d + 2) β), read out as well as it can be
    one = MultitaskSetting.isotropic(n=[10**12], r=[1.0], d=10, sigma2=0.5)
    floor = 0.05 * 0.5 / (2 - 12 * 0.05)
    assert delta_risk(one, 0.05) == pytest.approx(0.5 + 10 * floor / (1 + floor), rel=1e-12)


def test_risks_far_below_the_signal_keep_their_digits():
    one = MultitaskSetting.isotropic(n=[700], r=[1.0], d=10)
    assert delta_risk(one, 1 / 12) == pytest.approx(10 * (11 / 12) ** 700, rel=1e-11)
    assert delta_risk(one, 1 / 12) < 1e-24
    last = MultitaskSetting.isotropic(n=[9, 700], r=[0.0, 1.0], d=10)
    assert delta_risk(last, 1 / 12, decays=[0, 1]) == pytest.approx(10 * (11 / 12) ** 700, rel=1e-11)


def test_a_task_with_step_0_is_skipped():
    setting = MultitaskSetting.isotropic(n=[9, 30], r=[0.3, 0.5], d=4, sigma2=0.2)
    one = MultitaskSetting.isotropic(n=[30], r=[0.5], d=4, sigma2=0.2)
    assert delta_risk(setting, [0.0, 0.1]) == pytest.approx(delta_risk(one, 0.1), rel=1e-13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": -0.1}, r"between 0 and 0\.166667"),
        ({"steps": [0.1, 0.17]}, r"between 0 and 0\.166667"),
        ({"steps": float("nan")}, "between 0 and"),
        ({"steps": 2.1, "keys": "unit"}, "between 0 and 2,"),
        ({"steps": [0.1, 0.1, 0.1]}, r"steps has shape \(3,\); give one number, or one per task, \[2\]"),
        ({"steps": 0.1, "decays": [1.0]}, "decays has shape"),
        ({"steps": 0.1, "decays": [1.0, 1.1]}, "a decay lies between 0"),
        ({"steps": 0.1, "keys": "l2"}, "keys is 'l2'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        delta_risk(PAPER, **arguments)


def test_bad_settings():
    with pytest.raises(ValueError, match="infinite for d ≤ 2"):
        delta_risk(MultitaskSetting.isotropic(n=[5], r=[1.0], d=2), 0.1, keys="nlms")
    general = MultitaskSetting([5], [[1.0]], [1.0], np.diag([3.0, 2.0, 0.7]))
    with pytest.raises(ValueError, match='use keys="gaussian"'):
        delta_risk(general, 0.1, keys="unit")
    with pytest.raises(ValueError, match=f"between 0 and {bound(general, 'gaussian'):.6f}"):
        delta_risk(general, 1.01 * bound(general, "gaussian"))


def test_the_bound_is_where_the_risk_stops_converging():
    rng = np.random.default_rng(5)
    for _ in range(10):
        setting = random_setting(rng, 1, 4, sigma2=1.0)
        with pytest.raises(ValueError, match="mean-square stability"):
            delta_risk(setting, 1.0001 * bound(setting, "gaussian"))
        assert np.isfinite(delta_risk(setting, 0.9999 * bound(setting, "gaussian")))
