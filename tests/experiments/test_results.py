"""Means, standard errors and the judgement of a point; the files they are kept in."""

import math
from pathlib import Path

import numpy as np
import pytest

from gladient.experiments.engine.results import ExactPoint, RiskRow, judge_gap, read_rows, summarise, write_rows
from gladient.experiments.figures.multitask import Multitask, MultitaskConfig

FIGURE = Multitask()


def point(risks: list[float], errors: list[float], exact: float = 1.0) -> RiskRow:
    records = [{"risk": risk, "standard_error": error} for risk, error in zip(risks, errors, strict=True)]
    return summarise(records, figure="f", panel="0 1", n=10, model="m", exact=exact)


def test_standard_error_covers_test_error_and_spread_between_seeds() -> None:
    """Coverage by simulation: z of the summary has unit variance, with and without spread between seeds."""
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.3):
        z = []
        for _ in range(4000):
            risks = 1 + spread * rng.normal(size=8) + 0.1 * rng.normal(size=8)
            z.append(point(risks.tolist(), [0.1] * 8).z)
        assert 0.75 < np.std(z) < 1.25


@pytest.mark.parametrize(
    ("risk", "error", "outcome", "or_below"),
    [
        (1.029, 1e-4, "reached", "reached"),
        (0.971, 1e-4, "reached", "reached"),
        (1.0, 0.009, "reached", "reached"),
        (1.0, 0.011, "undecided", "undecided"),  # all of the interval has to lie within the bound …
        (1.159, 0.06, "undecided", "undecided"),
        (1.05, 0.006, "missed", "missed"),  # … or none of it
        (0.95, 0.006, "missed", "reached"),
        (0.9, 0.04, "undecided", "reached"),
        (1.0, math.inf, "undecided", "undecided"),
        (math.nan, 0.01, "undecided", "undecided"),
    ],
)
def test_a_point_reaches_its_value_if_its_whole_interval_lies_within_the_bound(
    risk: float, error: float, outcome: str, or_below: str
) -> None:
    assert point([risk], [error]).outcome == outcome
    assert judge_gap(risk, error, 1.0, or_below=True) == or_below


def test_fewer_test_prompts_never_make_it_easier() -> None:
    """A model 16% off, and one that is right: a small test cannot tell, and says so."""
    rng, reached = np.random.default_rng(0), {}
    for true in (1.159, 1.0):
        for prompts in (64, 2048, 2**17):
            error = 1.63 / prompts**0.5  # of squared errors of Gaussian predictions, about
            outcomes = [judge_gap(true + error * rng.normal(), error, 1.0, or_below=True) for _ in range(300)]
            reached[true, prompts] = outcomes.count("reached")
            assert true > 1 or prompts == 2**17 or outcomes.count("undecided") > 150
    assert [reached[1.159, prompts] for prompts in (64, 2048, 2**17)] == [0, 0, 0]
    assert max(reached[1.0, 64], reached[1.0, 2048]) < 10  # those that lie below by chance
    assert reached[1.0, 2**17] > 290


def test_an_exact_risk_of_zero() -> None:
    assert point([0.1], [0.01], exact=0.0).outcome == "missed"
    assert point([0.1], [0.1], exact=0.0).outcome == "undecided"
    assert point([0.1], [0.01], exact=0.0).gap == math.inf


def test_rows_survive_a_round_trip_to_the_last_bit(tmp_path: Path) -> None:
    rows = [point([1 / 3, 2 / 7], [0.1, 0.2]), point([1e-17], [1e-18])]
    write_rows(tmp_path / "rows.csv", RiskRow, rows)
    assert read_rows(tmp_path / "rows.csv", RiskRow) == rows
    curve = [ExactPoint("0 1", 10, "c", 1 / 3)]
    write_rows(tmp_path / "exact.csv", ExactPoint, curve)
    assert read_rows(tmp_path / "exact.csv", ExactPoint) == curve


# theory.md, section 8
N = (10, 20, 40, 60, 80, 100)
LINEAR = (0.8438, 0.7619, 0.6774, 0.6341, 0.6078, 0.5902)
CERTAIN = (0.6875, 0.5238, 0.3548, 0.2683, 0.2157, 0.1803)
MIXED = (0.7875, 0.6762, 0.5613, 0.5024, 0.4667, 0.4426)
EXPECTED = {
    "0 1": {"linear_attention": LINEAR, "scalar_gate": CERTAIN, "value_gate": CERTAIN},
    "0.2 0.8": {"linear_attention": LINEAR, "scalar_gate": MIXED, "value_gate": MIXED},
    "0.5 0.5": {"linear_attention": LINEAR, "scalar_gate": LINEAR, "value_gate": LINEAR},
    "0.8 0.2": {"linear_attention": LINEAR, "scalar_gate": LINEAR, "value_gate": MIXED},
}


def test_exact_values_of_the_figure_are_the_known_ones() -> None:
    config = MultitaskConfig()
    curves = {(p.panel, p.curve, p.n): p.risk for p in FIGURE.points(config, {})}
    assert set(config.models) == {curve for _, curve, _ in curves}
    for panel, models in EXPECTED.items():
        for model, values in models.items():
            for n, value in zip(N, values, strict=True):
                assert abs(curves[panel, model, n] - value) < 5.1e-5, (panel, model, n)
