"""GatedRegressor: scikit-learn's checks, the theory's weights, and one fit where there is no past."""

import warnings

import numpy as np
import pandas as pd
import pytest

from gladient.data import GatedRegressor


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    """Slopes of each person that change a little from period to period, and a level."""
    rng, rows = np.random.default_rng(0), []
    for person in range(50):
        slope, level = rng.normal(size=2)
        for t in range(20):
            slope = slope + 0.3 * rng.normal() if t % 4 == 0 else slope
            x = 3.0 + rng.normal()
            rows.append((f"p{person}", t, x, 5.0 + 2.0 * x + level + slope * (x - 3.0) + 0.3 * rng.normal()))
    return pd.DataFrame(rows, columns=["person", "t", "x", "y"])


def test_scikit_learns_checks() -> None:
    """All that apply to a fit without groups, for which it is ordinary least squares."""
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(GatedRegressor(), on_skip=None, on_fail=None)
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert not failed
    assert sum(result["status"] == "passed" for result in results) > 40


def test_it_predicts_the_next_period_better_than_one_fit(panel: pd.DataFrame) -> None:
    past, after = panel[panel.t < 16], panel[panel.t >= 16]
    model = GatedRegressor().fit(past[["x"]], past.y, groups=past.person, time=past.t)
    own, pooled = model.score(after[["x"]], after.y, groups=after.person), model.score(after[["x"]], after.y)
    assert own > 0.85 > 0.8 > pooled
    plain = GatedRegressor("linear_attention").fit(past[["x"]], past.y, groups=past.person, time=past.t)
    assert own > plain.score(after[["x"]], after.y, groups=after.person) - 0.02


def test_the_step_is_that_of_the_estimate(panel: pd.DataFrame) -> None:
    """Against a loop over one person's latest periods."""
    past = panel[panel.t < 16]
    model = GatedRegressor().fit(past[["x"]], past.y, groups=past.person, time=past.t)
    estimated = model.estimated_
    assert estimated is not None
    rung, transform = estimated.rungs()["value_gate"], estimated.transform
    one = past[past.person == "p7"]
    beta, n = np.zeros(2), estimated.setting.n.tolist()
    for W, count, first in zip(rung.matrices, n, [4, 8, 12], strict=True):
        rows = one[(one.t >= first) & (one.t < first + 4)]
        X, y = rows[["x"]].to_numpy(), rows.y.to_numpy()
        beta += count * W @ np.mean(transform.features(X) * transform.labels(X, y)[:, None], axis=0)
    asked = pd.DataFrame({"x": [2.0, 4.0]})
    X = asked.to_numpy()
    expected = transform.predictions(X, transform.features(X) @ beta)
    np.testing.assert_allclose(model.predict(asked, groups=["p7", "p7"]), expected, rtol=1e-10)
    pooled = model.intercept_ + model.coef_[0] * 4.0
    np.testing.assert_allclose(model.predict(asked, groups=["p7", "nobody"])[1], pooled, rtol=1e-12)


def test_names_of_columns_and_rows_in_any_order(panel: pd.DataFrame) -> None:
    arrays = GatedRegressor().fit(panel[["x"]].to_numpy(), panel.y, groups=panel.person, time=panel.t)
    shuffled = panel.sample(frac=1, random_state=0)
    named = GatedRegressor().fit(shuffled[["person", "t", "x"]], shuffled.y, groups="person", time="t")
    asked = panel[["person", "t", "x"]].iloc[::17]
    np.testing.assert_allclose(named.predict(asked), arrays.predict(asked[["x"]].to_numpy(), groups=asked.person))
    ordered = GatedRegressor().fit(panel[["x"]].to_numpy(), panel.y, groups=panel.person)
    np.testing.assert_allclose(ordered.predict([[1.0]], groups=["p3"]), arrays.predict([[1.0]], groups=["p3"]))


def test_errors(panel: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="is not fitted; call fit first"):
        GatedRegressor().predict([[1.0]])
    with pytest.raises(ValueError, match="X has no column 'who'"):
        GatedRegressor().fit(panel[["x"]], panel.y, groups="who")
    with pytest.raises(ValueError, match=r"groups or time have the shape \[3\] for 1000 rows"):
        GatedRegressor().fit(panel[["x"]], panel.y, groups=[1, 2, 3])
    with pytest.raises(ValueError, match="'gates' is no parameter"):
        GatedRegressor().set_params(gates="none")


def test_without_scikit_learn(panel: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    past = panel[panel.t < 16]
    with_it = GatedRegressor().fit(past[["x"]], past.y, groups=past.person, time=past.t)
    monkeypatch.setattr("gladient.data.regressor.have", lambda module: False)
    without = GatedRegressor().fit(past[["x"]], past.y, groups=past.person, time=past.t)
    np.testing.assert_array_equal(without.predict(past[["x"]], past.person), with_it.predict(past[["x"]], past.person))
    with pytest.raises(ValueError, match="X has 2 features, but the fit had 1"):
        without.predict([[1.0, 2.0]])
