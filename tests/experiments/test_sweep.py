"""A sweep: its grid, its table, what it refuses, and points that diverge."""

import csv
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gladient import landscape
from gladient.cli import main
from gladient.experiments import MODELS, Sweep, make, read_grid
from gladient.experiments.figures.sweep.figure import SweepRow
from gladient.prompts import MultitaskSetting, correlation_matrix

GRID: dict[str, Any] = {
    "n": [[3, 2], [2, 4]],
    "r": [[0.2, 0.8], [0.8, 0.2], [1, 1]],
    "d": [2, 3],
    "rho": [0.0, 1],
    "sigma2": 0.1,
    "models": ["linear_attention", "value_gate"],
    "seeds": 2,
    "training": {"steps": 4, "batch_size": 8},
    "test_prompts": 64,
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    made = make(Sweep("n"), read_grid(GRID), folder / "out", command="test", parquet=True, scheduler=scheduler)
    assert not made.diverged
    return folder / "out"


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_setting_that_can_occur_has_a_row_for_each_model_and_seed(table: Path) -> None:
    """With correlation 1 between the tasks, only (1, 1) is possible; without, (1, 1) is not."""
    rows = read(table)
    assert list(rows[0]) == [*(field.name for field in fields(SweepRow)), "outcome"]
    found = [(row["n"], row["r"], row["d"], row["rho"], row["model"], row["seed"]) for row in rows]
    assert len(set(found)) == len(found) == 2 * 2 * (2 + 1) * 2 * 2
    assert read_grid(GRID).left_out == 2 * 2 * (1 + 2)


def test_risks_are_in_the_units_of_the_theory(table: Path) -> None:
    shares = []
    for row in read(table):
        n, r, rho = ([float(value) for value in row[name].split()] for name in ("n", "r", "rho"))
        setting = MultitaskSetting.isotropic(
            [int(count) for count in n], r, d=int(row["d"]), R=correlation_matrix(rho, 2), sigma2=float(row["sigma2"])
        )
        solve = landscape.linear_attention if row["model"] == "linear_attention" else landscape.optimum
        assert float(row["exact"]) == pytest.approx(solve(setting).risk, rel=1e-12)
        assert float(row["gap"]) == pytest.approx(float(row["risk"]) / float(row["exact"]) - 1)
        shares.append(float(row["risk"]) / setting.M)
    assert np.mean(shares) == pytest.approx(1, abs=0.2)  # hardly trained, models predict about 0


def test_parquet_holds_the_same_table(table: Path) -> None:
    from pyarrow import parquet

    columns: dict[str, Any] = parquet.read_table(table / "results.parquet").to_pydict()
    assert [str(value) for value in columns["risk"]] == [row["risk"] for row in read(table)]
    assert list(columns) == [*(field.name for field in fields(SweepRow)), "outcome"]


@pytest.mark.parametrize("x", ["n", "r", "d", "rho", "sigma2", None])
def test_the_picture_goes_along_any_axis(table: Path, x: str | None) -> None:
    from gladient.experiments.engine.results import read_rows
    from gladient.experiments.figures.sweep.figure import SweepPoint

    figure = Sweep(x)
    picture = figure.draw(read_rows(table / "results.csv", SweepRow), read_rows(table / "exact.csv", SweepPoint))
    labels = picture.legends[0].get_texts()
    assert {text.get_text() for text in labels} == {
        f"{model}, {kind}" for model in GRID["models"] for kind in ("exact", "trained")
    }


@pytest.mark.usefixtures("_here")
def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("n: [[3, 2]]\nr: [0.2, 0.8]\nd: 2\ntraining: {steps: 2, batch_size: 4}\ntest_prompts: 8\n")
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert "3 trained models reach" in capsys.readouterr().out
    first = (out / "results.csv").read_bytes()
    assert main(["sweep", str(file), "--out", str(out)]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main(["sweep", str(file), "--out", str(out), "--resume", "--x", "d"]) == 0
    assert (out / "results.csv").read_bytes() == first


@pytest.mark.usefixtures("_here")
def test_models_that_diverge_are_said_and_kept_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finite divergence and one to NaN: neither is a row, and the exit code says so."""
    out, file = tmp_path / "out", tmp_path / "grid.yaml"
    for rate in ("1e3", "1e30"):
        file.write_text(
            "n: [3, 2]\nr: [0.2, 0.8]\nd: 2\nmodels: [linear_attention]\nseeds: 2\n"
            f"training: {{steps: 20, batch_size: 4, learning_rate: {rate}}}\ntest_prompts: 64\n"
        )
        assert main(["sweep", str(file), "--out", str(out / rate)]) == 1
        printed = capsys.readouterr().out
        assert "diverged: 00000-linear_attention-r0-s0: panel 0.2 0.8, seed 0" in printed
        assert "diverged: 00000-linear_attention-r0-s0: panel 0.2 0.8, seed 1" in printed
        assert read(out / rate) == []
        assert "Diverged, and in no row" in (out / rate / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": "many"}, "n is 'many'; it must be"),
        ({"n": [[3, 2.5]]}, "n holds 2.5; it must hold whole numbers"),
        ({"n": [[3, 2, 1]]}, r"n and r list \[2, 3\] tasks"),
        ({"r": [[0.9, 0.9]], "rho": [0]}, "no combination of r and rho can occur"),
        ({"r": [[0.2, True]]}, "r holds True"),
        ({"d": 0}, r"d is \[0\]"),
        ({"d": 10**30}, r"each must be a whole number from 1 to 10000"),
        ({"d": None}, "d holds None"),
        ({"spectrum": [1, 2]}, "not both"),
        ({"rho": [[0.1, 0.2]]}, "rho lists 2 numbers"),
        ({"sigma2": -1}, "sigma2 is -1.0"),
        ({"models": ["stream_gated_delta_rule"], "d": [], "spectrum": [3, 1]}, "came with the variances 3, 1"),
        ({"models": ["transformer"]}, f"there is no model 'transformer'; choose among {', '.join(MODELS)}"),
        ({"models": []}, "models lists nothing"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": "3"}, "seeds is '3'"),
        ({"training": 3}, "training is 3"),
        ({"training": {"speed": 3}}, "training has no 'speed'"),
        ({"training": {"steps": 0}}, "steps is 0"),
        ({"gamma": 1}, "a sweep has no 'gamma'"),
    ],
)
def test_bad_grids_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_grid({**GRID, **change})


def test_what_a_file_has_to_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, message in (("n: [[1]]", "lacks r"), ("[1]", "one object"), ("n: *a", "cannot read")):
        file = tmp_path / "grid.yaml"
        file.write_text(text)
        assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="x is 'model'; a picture goes along one of n, r"):
        Sweep("model")
