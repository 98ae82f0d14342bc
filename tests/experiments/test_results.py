"""Means, standard errors and the judgement of a point; the files they are kept in."""

from pathlib import Path

import numpy as np
import pytest

from gladient.experiments._results import ExactPoint, Row, read_rows, summarise, write_rows
from gladient.experiments.multitask.figure import Multitask, MultitaskConfig

FIGURE = Multitask()


def point(risks: list[float], errors: list[float], exact: float = 1.0) -> Row:
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
    ("risk", "error", "hit"),
    [(1.019, 1e-4, True), (0.981, 1e-4, True), (1.05, 0.02, True), (1.05, 0.01, False), (0.95, 0.01, False)],
)
def test_a_hit_is_within_two_percent_or_three_standard_errors(risk: float, error: float, hit: bool) -> None:
    assert point([risk], [error]).hit is hit


def test_rows_survive_a_round_trip_to_the_last_bit(tmp_path: Path) -> None:
    rows = [point([1 / 3, 2 / 7], [0.1, 0.2]), point([1e-17], [1e-18])]
    write_rows(tmp_path / "rows.csv", Row, rows)
    assert read_rows(tmp_path / "rows.csv", Row) == rows
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
