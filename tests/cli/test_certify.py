"""`gladient certify`: stationary points, verdict, and what gating buys."""

import json

import numpy as np
import pytest

from gladient.cli import main

THREE = ["certify", "--n", "10", "20000", "--r", "0.1", "0.2", "--sigma2", "0.01", "--spectrum", "10", *["0.02"] * 100]


def test_json(capsys):
    assert main([*THREE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [round(point["risk"], 5) for point in found["stationary_points"]] == [11.51664, 11.52172, 11.51962]
    assert [point["kind"] for point in found["stationary_points"]] == ["minimum", "saddle", "minimum"]
    assert found["uniqueness"]["verdict"] == "several"
    assert found["undecided"] == []
    assert found["advantage"]["binding"] == [1]


def test_table(capsys):
    assert main(THREE) == 0
    out = capsys.readouterr().out
    assert "saddle" in out
    assert "optimum: several" in out
    assert "ω2 ≥ ω1 binds" in out
    assert main(["certify", "--n", "5", "5", "--r", "0.1", "0.4", "--d", "3"]) == 0
    assert "a scalar gate attains it" in capsys.readouterr().out


def test_no_correlation_at_all(capsys):
    assert main(["certify", "--n", "5", "5", "--r", "0", "0", "--d", "3"]) == 0
    assert "gains nothing" in capsys.readouterr().out


def test_bad_setting(capsys):
    assert main(["certify", "--n", "5", "5", "--r", "0.9", "0.9", "--d", "3"]) == 2
    assert capsys.readouterr().err.startswith("gladient: error: ")


def test_a_correlation_whose_square_vanishes(capsys):
    found = []
    for r in ("0.1", "1e-308"):
        assert main(["certify", "--n", "1", "30", "--r", r, "0", "--rho", "0.5", "--d", "2", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    (large,), (small,) = (one["stationary_points"] for one in found)
    np.testing.assert_allclose(small["omega"], large["omega"], rtol=1e-12)  # the best weights go by the direction of r
    assert small["risk"] == 2.0
    assert found[0]["advantage"]["margin"] == pytest.approx(found[1]["advantage"]["margin"], rel=1e-12)
