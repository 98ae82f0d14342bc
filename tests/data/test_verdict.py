"""Right or alarmed: one verdict of each kind on made data, culprits by name, and predictors without gates beside."""

import re
from typing import Any

import numpy as np
import pytest
import simulated

from gladient.data import CrossFit, Prompt, RefusedError, ask, baselines, cross_fit, judge
from gladient.data.intervals import mean_intervals, studentised
from gladient.data.ungated import lower_risk
from gladient.data.verdict import POWER, judge_refusal
from gladient.prompts import MultitaskSetting

HELPS = MultitaskSetting([8, 8], [[1, 0.0], [0.0, 1]], [0.0, 0.95], np.diag([0.4, 0.4]), 0.2)
SAME = MultitaskSetting([8, 8], [[1, 1.0], [1.0, 1]], [1.0, 1.0], np.diag([0.25, 0.25]), 0.5)


def draw(setting: MultitaskSetting = HELPS, count: int = 60, change=lambda i, k, X, y: (X, y)) -> list[Prompt]:
    found = []
    for i, prompt in enumerate(simulated.prompts(setting, count, np.random.default_rng(0))):
        *sources, query = [change(i, k, X, y) for k, (X, y) in enumerate(prompt.tasks)]
        found.append(Prompt(sources, query))
    return found


def made(*given, **options) -> CrossFit:
    return cross_fit(draw(*given, **options))


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
    assert found.culprits[0].kind == culprit, found.culprits
    assert found.text.startswith("Do not trust the prediction: ")
    assert f"The likely culprit: {culprit}: " in found.text


def test_the_culprit_is_what_removes_the_disagreement() -> None:
    """Labels that grow, and one prompt whose labels are large: without that prompt they still grow."""
    found = judge(made(change=lambda i, k, X, y: (X, y * np.exp(i / 30) * (6.0 if i == 51 else 1.0))))
    assert [each.kind for each in found.culprits] == ["drift", "outliers"]
    assert [each.explains for each in found.culprits] == [True, False]


def test_a_drift_is_told_beside_a_gain_that_was_measured() -> None:
    found = judge(made(count=200, change=lambda i, k, X, y: (X, y * np.exp(i / 300))))
    assert found.kind == "helps"
    assert "But the data drift: held-out errors rise from fold to fold" in found.text


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda i, k, X, y: (X, 0 * y + np.cos(7.0 * i) + 0.1 * np.cos(1e6 * X[:, 0])), "--intercept"),
        (lambda i, k, X, y: (X, y + 1e9 * (i == 7)), r"prompt 8 holds 9.% of the labels' squares"),
        (lambda i, k, X, y: (X, np.cos(1e6 * X[:, 0])), "the one fit to all examples is what the data support"),
        (lambda i, k, X, y: (0 * X + [i % 7, i * i % 5], y), "the examples of a role do not reach all 2 features"),
        (lambda i, k, X, y: (np.column_stack([X, X[:, 0] * (i == 3)]), y), "feature 3 of 3 is .*0 in every example"),
    ],
)
def test_no_setting_is_no_verdict_that_no_weights_help(change, cause: str) -> None:
    """The baselines are measured all the same."""
    prompts = draw(change=change)
    answer = ask(prompts)
    assert answer.found is None
    assert answer.verdicts.kind == "cannot be told"
    assert re.search(rf"It cannot be told from these data: .*{cause}", answer.verdicts.text)
    assert answer.split is not None
    beside = baselines(answer.split)
    assert all(np.isfinite(each.risk) for name, each in beside.items() if name != "mixed_model")
    assert lower_risk(None, beside).endswith(f"{min(each.risk for each in beside.values()):.4g}")
    with pytest.raises(RefusedError, match="it cannot be told whether weights help"):
        cross_fit(prompts)


@pytest.mark.parametrize(
    ("variance", "error", "plain", "kind"),
    [
        (-0.004, 0.003, True, "does not help"),
        (-0.004, 0.01, True, "cannot be told"),
        (-0.004, 0.003, False, "cannot be told"),
        (-0.4, 0.1, True, "the model fails"),
        (None, 0.0, True, "cannot be told"),
    ],
)
def test_what_a_refusal_means(variance: float | None, error: float, plain: bool, kind: str) -> None:
    """That nothing helps is said where the variance of the tasks is shown to be below a hundredth."""
    assert judge_refusal(RefusedError("…", variance=variance, error=error, plain=plain), 100).kind == kind


def test_a_source_of_noise_is_no_refusal() -> None:
    """Its tasks do not differ, and gating helps: the theory weighs it 0."""
    found = judge(made(count=150, change=lambda i, k, X, y: (X, np.cos(1e6 * X[:, 0])) if k == 0 else (X, y)))
    assert found.kind == "helps"


def test_too_few_for_folds() -> None:
    answer = ask(draw(count=2))
    assert (answer.found, answer.split, answer.verdicts.kind) == (None, None, "cannot be told")
    with pytest.raises(ValueError, match="1 prompt came"):
        ask(draw(count=1))


def test_no_culprit_where_the_model_holds(helps: CrossFit) -> None:
    assert judge(helps).culprits == ()


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
    found, ridge, constant = baselines(helps.of.split), [], []
    white = helps.estimated.transform.unmapped.features

    def errors(tasks: list, penalty: float) -> list[float]:
        betas = [np.linalg.solve(X.T @ X + penalty * np.eye(2), X.T @ y) for (X, y), _ in tasks]
        return [np.mean((y - X @ beta) ** 2) for (_, (X, y)), beta in zip(tasks, betas, strict=True)]

    for fold in helps.of.folds:
        fitted = [prompt.tasks for i in fold.fitted.tolist() for prompt in [helps.of.prompts[i]]]
        X, y = (np.concatenate([task[part] for tasks in fitted for task in tasks]) for part in (0, 1))
        fit = np.linalg.lstsq(np.column_stack([np.ones(len(X)), X]), y)[0]
        scale = np.sqrt(np.mean((y - fit[0] - X @ fit[1:]) ** 2))

        def moved(tasks, fit=fit, scale=scale) -> list:
            """The last source and the query, white, without the fit to the fold's own prompts."""
            return [(white(X), (y - fit[0] - X @ fit[1:]) / scale) for X, y in tasks[-2:]]

        known = [moved(tasks) for tasks in fitted]
        best = min(np.geomspace(0.01, 1000.0, 11), key=lambda penalty: np.mean(errors(known, penalty)))
        for tasks in (helps.of.prompts[i].tasks for i in fold.held_out.tolist()):
            ridge += errors([moved(tasks)], best)
            constant.append(np.mean((tasks[-1][1] - tasks[-2][1].mean()) ** 2) / scale**2)
    assert found["last_ridge"].risk == pytest.approx(np.mean(ridge))
    assert found["last_mean"].risk == pytest.approx(np.mean(constant))
    assert found["one_fit"].risk == pytest.approx(1.0, abs=0.2)
    assert found["mixed_model"].risk == pytest.approx(found["ridge"].risk, rel=0.2)
    assert "last_ridge has a lower measured risk" in lower_risk(helps, found)


def test_without_statsmodels(helps: CrossFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gladient.data.ungated.have", lambda module: False)
    found = baselines(helps.of.split)["mixed_model"]
    assert (
        found.text == found.to_json()["note"] == "not run: statsmodels is not installed (pip install 'gladient[data]')"
    )
