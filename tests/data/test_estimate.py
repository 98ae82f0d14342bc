"""From simulated prompts back to their setting: consistency, honest standard errors, units that do not matter."""

import re

import numpy as np
import pytest
import simulated
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gladient import landscape
from gladient.data import Prompt, estimate_setting
from gladient.prompts import MultitaskSetting

SETTING = MultitaskSetting([8, 8], [[1, 0.5], [0.5, 1]], [0.4, 0.8], np.diag([0.4, 0.2]), 0.4)
PAPER = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10, sigma2=1.0)


def scaled(prompts: list[Prompt], A: np.ndarray, shift: np.ndarray, trend: np.ndarray) -> list[Prompt]:
    """Other features, and labels with a common linear part."""
    tasks = [[(X @ A + shift, 3.0 * y + (X @ A) @ trend + 5.0) for X, y in prompt.tasks] for prompt in prompts]
    return [Prompt(sources, query) for *sources, query in tasks]


@pytest.mark.slow
def test_risks_are_within_two_percent() -> None:
    """The mean over four data sets of 300 prompts; each of them is within 8%."""
    ladder = landscape.ladder(PAPER)
    ratios = []
    for seed in range(4):
        found = estimate_setting(simulated.prompts(PAPER, 300, np.random.default_rng(seed), queries=25)).points[0]
        estimated = landscape.ladder(landscape.reduce(found.setting, found.yyxx)).risks
        ratios.append([risk / (ladder.risks[name] / PAPER.M) for name, risk in estimated.items()])
    np.testing.assert_allclose(np.mean(ratios, axis=0), 1.0, atol=0.02)
    np.testing.assert_allclose(ratios, 1.0, atol=0.08)


def test_it_is_consistent() -> None:
    """The root mean square error of r falls as one over the root of the prompts."""

    def error(count: int) -> float:
        rng = np.random.default_rng(0)
        found = [estimate_setting(simulated.prompts(SETTING, count, rng)).setting.r for _ in range(6)]
        return float(np.sqrt(np.mean((np.array(found) - SETTING.r) ** 2)))

    assert 2.0 < error(40) / error(480) < 7.0  # 3.5 in the limit


@pytest.mark.slow
@pytest.mark.parametrize("name", simulated.FEATURES)
def test_standard_errors_cover(name: str) -> None:
    """95% intervals from 60 data sets of 120 prompts; a correlation near 1 with sparse features is the worst case.

    Errors that are half as large would hold in 67%. Clusters of five make half as many blocks of the jackknife.
    """
    rng, inside = np.random.default_rng(1), []
    for _ in range(60):
        prompts = simulated.prompts(SETTING, 120, rng, simulated.FEATURES[name][0])
        found = estimate_setting(prompts, clusters=[i // 5 for i in range(120)])
        errors = found.standard_errors
        inside.append(
            np.abs(
                [
                    (found.setting.R[0, 1] - 0.5) / errors["R"][0, 1],
                    *((found.setting.r - SETTING.r) / errors["r"]),
                    (found.setting.sigma2 - 0.4) / errors["sigma2"],
                ]
            )
            < 1.96
        )
    assert np.mean(inside, axis=0).min() >= (0.7 if name == "sparse" else 0.85)
    assert 0.85 <= np.mean(inside) <= 0.99


@settings(max_examples=4, deadline=None)
@example(1541)
@given(st.integers(0, 10**6))
def test_units_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prompts = simulated.prompts(SETTING, 30, rng)
    moved = scaled(prompts, rng.normal(size=(2, 2)) + 3 * np.eye(2), rng.normal(size=2), rng.normal(size=2))
    try:
        first = estimate_setting(prompts)
    except ValueError as refused:  # 30 prompts may not tell that the tasks of a role differ
        with pytest.raises(ValueError, match=re.escape(str(refused).split(" (")[0])):
            estimate_setting(moved)
        return
    second = estimate_setting(moved)
    np.testing.assert_allclose(second.setting.R, first.setting.R, atol=1e-8)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(second.setting.Sigma), np.linalg.eigvalsh(first.setting.Sigma), atol=1e-8
    )
    for name, errors in first.errors(prompts).items():
        np.testing.assert_allclose(second.errors(moved)[name], errors, rtol=1e-4)  # where a search ends


def test_the_transform_goes_both_ways() -> None:
    prompts = simulated.prompts(SETTING, 40, np.random.default_rng(2))
    transform = estimate_setting(prompts, intercept=True).transform
    X, y = prompts[0].query
    assert transform.features(X).shape == (4, 3)
    np.testing.assert_allclose(transform.predictions(X, transform.labels(X, y)), y)


def test_directions_without_tasks_come_and_go() -> None:
    """A level that no task has: the estimate is clipped at 0 with some clusters left out, and not with others."""
    estimated = estimate_setting(simulated.prompts(SETTING, 60, np.random.default_rng(4)), intercept=True)
    ranks = {int((np.linalg.eigvalsh(point.setting.Sigma) > 1e-9).sum()) for point in estimated.points}
    assert len(ranks) == 2
    assert np.isfinite(estimated.predict_ladder()["key_gate"].risk_error)


def test_predictions_hold_on_fresh_prompts() -> None:
    rng = np.random.default_rng(3)
    estimated = estimate_setting(simulated.prompts(SETTING, 400, rng, simulated.sparse))
    errors = estimated.errors(simulated.prompts(SETTING, 800, rng, simulated.sparse))
    for name, gate in estimated.predict_ladder().items():
        gain = errors["linear_attention"] - errors[name]
        measured, error = gain.mean(), gain.std(ddof=1) / np.sqrt(len(gain))
        assert abs(measured - gate.gain) < 4.0 * np.hypot(error, gate.gain_error) + 1e-12


def test_another_length_is_predicted_from_the_same_prompts() -> None:
    rng = np.random.default_rng(4)
    long = MultitaskSetting([20, 20], SETTING.R, SETTING.r, SETTING.Sigma, SETTING.sigma2)
    prompts = simulated.prompts(long, 150, rng)
    estimated = estimate_setting(prompts, n=[2, 2])
    assert estimated.setting.n.tolist() == [2, 2]
    short, longer = estimated.predict_ladder(), estimated.predict_ladder([20, 20])
    assert all(longer[name].risk < short[name].risk for name in short)
    shown = [Prompt([(X[:2], y[:2]) for X, y in prompt.sources], prompt.query) for prompt in prompts]
    np.testing.assert_allclose(estimated.errors(shown)["value_gate"], estimated.errors(prompts)["value_gate"])
