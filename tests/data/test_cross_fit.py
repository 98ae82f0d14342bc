"""Held-out clusters: folds that do not leak, honest errors, and gains that agree with the predictions."""

import numpy as np
import pytest
import simulated

from gladient.data import Answer, Compared, Prompt, ask, baselines, cross_fit, estimate_setting, judge
from gladient.data.folds import clustered_error, folds_of
from gladient.data.report import write_report
from gladient.prompts import MultitaskSetting

SETTING = MultitaskSetting([8, 8], [[1, 0.3], [0.3, 1]], [0.1, 0.8], np.diag([0.4, 0.2]), 0.4)


@pytest.fixture(scope="module")
def found():
    prompts = simulated.prompts(SETTING, 240, np.random.default_rng(0))
    return cross_fit(prompts, clusters=[i // 6 for i in range(240)])


def test_predicted_is_measured(found) -> None:
    for name in found.gains:
        assert abs(found.gains[name].z) < 3.0, name
        assert abs(found.risks[name].z) < 3.0, name
    assert found.gains["linear_attention"].predicted_error == 0.0  # of the difference to itself
    gain = found.gains["scalar_gate"]
    assert gain.measured > 3.0 * gain.measured_error
    assert gain.predicted > 3.0 * gain.predicted_error


def test_each_prompt_is_measured_by_an_estimate_that_has_not_seen_it(found) -> None:
    prompts = simulated.prompts(SETTING, 240, np.random.default_rng(0))
    total = 0.0
    for train, test in folds_of([i // 6 for i in range(240)], 5, 0):
        fitted = estimate_setting([prompts[i] for i in train], clusters=[i // 6 for i in train])
        total += fitted.errors([prompts[i] for i in test])["value_gate"].sum()
    assert found.risks["value_gate"].measured == pytest.approx(total / 240)


def test_rounding_is_no_difference() -> None:
    assert Compared(0.0, 1e-18, 1e-17, 1e-19).z == 0.0
    assert Compared(0.5, 0.3, 0.1, 0.4).z == pytest.approx(0.8)


def test_folds_never_share_a_cluster() -> None:
    labels = [f"w{i // 3}" for i in range(60)]
    for gap in (0, 1, 2):
        folds = folds_of(labels, 5, gap)
        assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(60))
        for train, test in folds:
            distance = np.abs(np.array(train)[:, None] // 3 - np.array(test) // 3)
            assert distance.min() == gap + 1


def test_clustered_errors_see_what_a_cluster_shares() -> None:
    """Against the spread of the mean over 2000 simulated sets of 20 clusters of 5 equal values."""
    rng = np.random.default_rng(1)
    labels = [i // 5 for i in range(100)]
    sets = np.repeat(rng.normal(size=(2000, 20)), 5, axis=1)
    errors = np.array([clustered_error(values, labels) for values in sets[:300]])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(sets.mean(1).std(), rel=0.05)


def test_drifting_folds_are_named() -> None:
    prompts = simulated.prompts(SETTING, 100, np.random.default_rng(2))
    for i, prompt in enumerate(prompts):
        for X, _ in prompt.tasks:
            X[:, 0] += 0.08 * i
    (caution,) = [c for c in cross_fit(prompts).warnings if c.kind == "shift"]
    assert "in fold 1, " in caution.message
    assert "5 of 5: predictions for such prompts" in caution.message


def test_the_report_stands_alone(found, tmp_path) -> None:
    path = tmp_path / "data.html"
    split = found.of.split
    answer = Answer(judge(found), found, split)
    write_report(path, answer, baselines(split), roles=["<old>", "new"], command="gladient data t.csv")
    page = path.read_text()
    assert judge(found).text in page
    assert page.count("<svg") == 3
    assert "last ridge" in page
    assert "240 prompts in 40 clusters" in page
    assert "&lt;old&gt;" in page
    assert "<old>" not in page
    assert f"{found.gains['scalar_gate'].measured:.4f}" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")


def test_the_report_of_prompts_without_a_setting(tmp_path) -> None:
    features = np.random.default_rng(0).normal(size=(30, 4, 2))
    answer = ask([Prompt([(X, np.cos(1e6 * X[:, 0]))], (X, np.sin(1e6 * X[:, 1]))) for X in features])
    assert answer.split is not None
    write_report(tmp_path / "data.html", answer, baselines(answer.split), roles=["old"], command="gladient data")
    page = (tmp_path / "data.html").read_text()
    assert answer.verdicts.text.replace("'", "&#39;") in page
    assert '<td class="text">last mean</td>' in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds is 1 with 20 clusters; there must be from 2"),
        ({"folds": 21}, "folds is 21 with 20 clusters"),
        ({"gap": -1}, "gap is -1; it counts clusters"),
        ({"gap": 19}, "folds is 5 and gap 19: with fold 1 held out, 0 of 20 prompts are left to fit; take more folds"),
    ],
)
def test_bad_folds(options: dict, message: str) -> None:
    prompts = simulated.prompts(SETTING, 20, np.random.default_rng(3))
    with pytest.raises(ValueError, match=message):
        cross_fit(prompts, **options)
