"""The figure of learned token weights in a minute size."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gladient import landscape
from gladient.cli import main
from gladient.experiments import FIGURES
from gladient.experiments.figures.weights import Reading, WeightPoint, WeightRow, Weights, WeightsConfig, cosine, read
from gladient.training import TrainingConfig

FIGURE = Weights()


@pytest.fixture(scope="module")
def config() -> WeightsConfig:
    training = TrainingConfig(steps=3, batch_size=8)
    return WeightsConfig(n=(3, 2), d=3, seeds=2, training=training, test_prompts=16, read_prompts=12)


@pytest.fixture(scope="module")
def records(config: WeightsConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for work in FIGURE.work(config):
        (folder / work.name).mkdir()
        found[work] = work.run(folder / work.name).measurements
    return found


def test_every_panel_and_kind_of_model_has_a_row(config: WeightsConfig, records: dict[Any, Any]) -> None:
    rows, points = FIGURE.rows(config, records), FIGURE.points(config, records)
    assert len(rows) == 4 * 2
    assert all(row.seeds == 2 and row.explained_least <= row.explained <= 1 for row in rows)
    first = [run for run in next(iter(records.values())) if run["panel"] == rows[0].panel]
    assert [run["seed"] for run in first] == [0, 1]
    assert rows[0].explained == pytest.approx(sum(run["explained"] for run in first) / 2)
    assert rows[0].explained_least == min(run["explained"] for run in first)
    assert len(points) == 4 * 2 * 5
    assert all(point.least <= point.learned <= point.greatest for point in points)
    assert [point.task for point in points[:5]] == [0, 0, 0, 1, 1]
    FIGURE.draw(rows, points)


def test_the_best_weights_are_those_of_the_gate_family(config: WeightsConfig, records: dict[Any, Any]) -> None:
    best = {(p.panel, p.model, p.task): p.best for p in FIGURE.points(config, records)}
    for work in records:
        for panel in work.stack.panels:
            solve = {"scalar_gate": landscape.scalar_gate, "value_gate": landscape.optimum}[work.stack.model]
            rung = solve(panel.setting)
            assert [best[panel.name, work.stack.model, task] for task in (0, 1)] == rung.omega.tolist()


def test_what_is_read_is_the_model(config: WeightsConfig) -> None:
    """A layer whose gates are put in place by hand is read as the weights that they make."""
    (work,) = [work for work in FIGURE.work(config) if work.stack.model == "scalar_gate"]
    regressor, sampler = work.stack.build()
    W_q, W_k, gate = regressor.layer.W_q, regressor.layer.W_k, regressor.layer.gate
    assert W_k is not None
    assert gate is not None
    with torch.no_grad():
        for parameter in (W_q, W_k):
            parameter[:, config.d :] = 0
        regressor.layer.W_v.zero_()[:, config.d] = 1
        regressor.readout.fill_(1)
        gate.weight.zero_()[:, list(sampler.layout.data_columns)] = 40
        gate.weight[:, sampler.layout.delimiter_columns[1]] = 40
    for one in read(work, regressor, sampler):
        assert one["explained"] == pytest.approx(1, abs=1e-9)
        assert one["omega"] == pytest.approx([0.5, 1], abs=1e-9)  # halved by the first task's delimiter


def row(**changes: float) -> WeightRow:
    values = {"explained": 0.99, "explained_least": 0.985, "cos_omega": 0.999, "cos_omega_least": 0.995}
    values |= {"cos_p": 0.99, "cos_p_least": 0.98, "moving_gates": 0.01} | changes
    return WeightRow(figure="weights", panel="0 1", n=5, model="scalar_gate", seeds=2, **values)


def test_the_worst_seed_is_judged() -> None:
    assert FIGURE.judge(row()) == "reached"
    assert FIGURE.judge(row(explained_least=0.97)) == "missed"
    assert FIGURE.judge(row(cos_omega_least=0.98)) == "missed"


def test_cosines_leave_the_scale_symmetry_open() -> None:
    assert cosine([1, 2], [-2, -4]) == pytest.approx(1)
    assert cosine([[1, 0], [0, 1]], [[0, 1], [-1, 0]]) == pytest.approx(0)


@pytest.mark.usefixtures("_here")
def test_from_the_command_line(
    tmp_path: Path, config: WeightsConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FIGURES["weights"], "config", lambda **options: replace(config, seeds=1))
    arguments = ["reproduce", "--figure", "weights", "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    first = (tmp_path / "out" / "results.csv").read_bytes()
    assert main([*arguments, "--resume"]) == 1
    assert (tmp_path / "out" / "results.csv").read_bytes() == first
    printed = capsys.readouterr().out
    assert "of 8 kinds of model are WPGD with the best weights" in printed
    assert "missed: (r₁ r₂) 0 1, n 5, model scalar gate" in printed
    with (tmp_path / "out" / "exact.csv").open() as file:
        assert list(next(csv.DictReader(file))) == list(WeightPoint.__annotations__)
    assert "cos(ω, ω*)" in (tmp_path / "out" / "report.html").read_text()


def test_work_is_distinct(config: WeightsConfig) -> None:
    works: list[Reading] = list(FIGURE.work(config))
    assert len({work.name for work in works}) == len(works)
