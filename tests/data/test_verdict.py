"""Right or alarmed: one verdict of each kind on made data, culprits by name, and predictors without gates beside."""

from typing import Any

import numpy as np
import pytest
import simulated

from gladient.data import CrossFit, Prompt, baselines, cross_fit, judge
from gladient.data.intervals import mean_intervals, studentised
from gladient.data.ungated import lower_risk
from gladient.data.verdict import POWER
from gladient.prompts import MultitaskSetting

HELPS = MultitaskSetting([8, 8], [[1, 0.0], [0.0, 1]], [0.0, 0.95], np.diag([0.4, 0.4]), 0.2)
SAME = MultitaskSetting([8, 8], [[1, 1.0], [1.0, 1]], [1.0, 1.0], np.diag([0.25, 0.25]), 0.5)


def made(setting: MultitaskSetting = HELPS, count: int = 60, change=lambda i, k, X, y: (X, y)) -> CrossFit:
    found = []
    for i, prompt in enumerate(simulated.prompts(setting, count, np.random.default_rng(0))):
        *sources, query = [change(i, k, X, y) for k, (X, y) in enumerate(prompt.tasks)]
        found.append(Prompt(sources, query))
    return cross_fit(found)


@pytest.fixture(scope="module")
def helps() -> CrossFit:
    return made(count=120)


def test_it_helps(helps: CrossFit) -> None:
    found = judge(helps)
    gain = helps.gains[found.gate]
    assert found.kind == "helps"
    assert found.text.startswith("Yes: a ")
    assert 0 < gain.low < gain.measured < gain.high
    assert f"{gain.measured:.4g} (95%: {gain.low:.3g} to {gain.high:.3g})" in found.text


def test_it_does_not_help() -> None:
    """One task for all roles: no weights are better than equal ones."""
    found = judge(made(SAME, 150))
    assert found.kind == "does not help"
    assert found.text.startswith("No: ")
    assert all(verdict.kind == "does not help" for verdict in found.gates.values())


def test_it_cannot_be_told_and_how_many_prompts_would_tell() -> None:
    crossed = made(MultitaskSetting([3, 3], [[1, 0.3], [0.3, 1]], [0.3, 0.7], np.diag([0.2, 0.2]), 0.6), 40)
    found = judge(crossed)
    assert found.kind == "cannot be told"
    verdict, gain = found.gates[found.gate], crossed.gains[found.gate]
    assert gain.low <= 0 < gain.high
    assert verdict.prompts is not None
    small = 0.01 * crossed.risks["linear_attention"].measured
    needed = 40 * (POWER * gain.measured_error / max(gain.predicted, small)) ** 2
    assert verdict.prompts == pytest.approx(max(needed, 80), rel=0.05)
    assert f"about {verdict.prompts} prompts would tell" in verdict.text


FAILS: dict[str, Any] = {
    # each prompt's features around a home of their own, the sources' far from the query's
    "features": (lambda i, k, X, y: (home(i) + 0.1 * X, 0.1 * y + home(i) @ [1, -1] * (i % 7 - 3))),
    # one prompt whose labels are 40 times larger
    "outliers": (lambda i, k, X, y: (X, y * (40.0 if i == 31 else 1.0))),
    # labels that grow from fold to fold
    "drift": (lambda i, k, X, y: (X, y * np.exp(i / 12))),
}


def home(i: int) -> np.ndarray:
    return np.random.default_rng(1000 + i).normal(size=2)


@pytest.mark.parametrize("culprit", FAILS)
def test_the_model_fails_and_the_culprit_is_named(culprit: str) -> None:
    found = judge(made(change=FAILS[culprit]))
    assert found.kind == "the model fails", found.text
    assert culprit in {each.kind for each in found.gates[found.gate].culprits}
    assert found.text.startswith("Do not trust the prediction: ")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda i, k, X, y: (X, 0 * y + np.cos(7.0 * i) + 0.1 * np.cos(1e6 * X[:, 0])), "--intercept"),
        (lambda i, k, X, y: (X, y + 1e9 * (i == 7)), r"prompt 8 holds 9.% of the squares"),
        (lambda i, k, X, y: (X, np.cos(1e6 * X[:, 0])), "the one fit to all examples is what the data support"),
    ],
)
def test_no_spread_is_no_verdict_that_no_weights_help(change, cause: str) -> None:
    with pytest.raises(ValueError, match=rf"it cannot be told whether weights help: .*{cause}"):
        made(change=change)


def test_no_culprit_where_the_model_holds(helps: CrossFit) -> None:
    from gladient.data.culprits import culprits

    assert culprits(helps, "value_gate") == ()


def test_ends_beyond_student_and_bootstrap() -> None:
    """Of skewed means the studentised end is the farther one; of any, Student's is never passed over."""
    rng = np.random.default_rng(0)
    inside = {"used": 0, "normal": 0}
    for _ in range(300):
        values = rng.standard_t(5, 40) ** 2 * 0.6  # of mean 1
        (low, high), error = mean_intervals(values[:, None], range(40))[0], values.std(ddof=1) / np.sqrt(40)
        assert low <= values.mean() - 1.96 * error
        assert high >= max(values.mean() + 1.96 * error, studentised(values[:, None], range(40))[0, 1])
        inside["used"] += low <= 1 <= high
        inside["normal"] += abs(values.mean() - 1) <= 1.96 * error
    assert inside["used"] > 0.85 * 300 > inside["normal"]


def test_intervals_see_clusters_and_columns_of_one_number() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=20), 5)
    alone = mean_intervals(np.column_stack([values, 0 * values + 3]), range(100))
    together = mean_intervals(np.column_stack([values, 0 * values + 3]), [i // 5 for i in range(100)])
    assert np.diff(together[0]) > 1.8 * np.diff(alone[0])
    np.testing.assert_allclose(together[1], 3.0)


def test_baselines_against_loops(helps: CrossFit) -> None:
    found = baselines(helps)
    ridge, constant = [], []
    for fold in helps.of.folds:
        transform, penalty = fold.estimated.transform, fold.estimated.setting.sigma2 * np.eye(2)
        for i in fold.held_out.tolist():
            moved = transform.prompt(helps.of.prompts[i])
            X, y = moved.sources[-1]
            beta = np.linalg.solve(X.T @ X + penalty, X.T @ y)
            ridge.append(np.mean((moved.query[1] - moved.query[0] @ beta) ** 2))
            raw = helps.of.prompts[i]
            constant.append(np.mean((raw.query[1] - raw.sources[-1][1].mean()) ** 2) / transform.scale**2)
    assert found["last_ridge"].risk == pytest.approx(np.mean(ridge))
    assert found["last_mean"].risk == pytest.approx(np.mean(constant))
    assert found["one_fit"].risk == pytest.approx(1.0, abs=0.2)
    assert found["mixed_model"].risk == pytest.approx(found["ridge"].risk, rel=0.2)
    assert "last_ridge has a lower measured risk" in lower_risk(helps, found)


def test_without_statsmodels(helps: CrossFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gladient.data.ungated.have", lambda module: False)
    found = baselines(helps)["mixed_model"]
    assert (
        found.text == found.to_json()["note"] == "not run: statsmodels is not installed (pip install 'gladient[data]')"
    )
