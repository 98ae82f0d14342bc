"""The depth figure in a minute size: what its rows say, growing, resumption, and the best steps as a network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gladient.cli import main
from gladient.equivalence import construct
from gladient.experiments import FIGURES
from gladient.experiments.figures.depth.figure import Depth, DepthConfig, DepthPoint, DepthRow
from gladient.experiments.figures.depth.work import GrownModels, SearchedSteps
from gladient.landscape import linear_attention, scalar_gate
from gladient.prompts import PromptSampler
from gladient.training import TrainingConfig, evaluate
from gladient.wpgd import best_steps

FIGURE = Depth()


@pytest.fixture(scope="module")
def config() -> DepthConfig:
    return DepthConfig(
        n=(4, 6),
        seeds=2,
        d=2,
        training=TrainingConfig(steps=30, batch_size=32, checkpoint_every=10),
        learning_rates=(1e-2, 1e-2),
        test_prompts=200,
        search_prompts=200,
        starts=0,
        step_prompts=2000,
    )


@pytest.fixture(scope="module")
def records(config: DepthConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    folder = tmp_path_factory.mktemp("depth")
    return {work: work.run(scratch(folder, work.name)).measurements for work in FIGURE.work(config)}


def scratch(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_every_length_kind_and_depth_has_a_row_and_a_point(config: DepthConfig, records: dict[Any, Any]) -> None:
    rows, points = FIGURE.rows(config, records), FIGURE.points(config, records)
    assert [(row.n, row.model, row.layers) for row in rows] == [
        (n, model, depth) for n in (4, 6) for model in ("linear_attention", "scalar_gate") for depth in (1, 2)
    ]
    assert all(row.seeds == 2 and row.standard_error > 0 for row in rows)
    assert {(p.model, p.n, p.layers) for p in points} == {
        (model, n, depth) for n in (4, 6) for model in ("linear_attention", "scalar_gate") for depth in (0, 1, 2)
    }
    FIGURE.draw(rows, points)
    assert all(len(line) > 20 for line in FIGURE.summary(rows))


def test_steps_lie_between_bayes_and_fewer_steps(config: DepthConfig, records: dict[Any, Any]) -> None:
    points = {(p.model, p.n, p.layers): p for p in FIGURE.points(config, records)}
    exact = {"linear_attention": linear_attention, "scalar_gate": scalar_gate}
    for work in records:
        if isinstance(work, SearchedSteps):
            floor, one, two = (points[work.model, sum(work.n), depth].risk for depth in (0, 1, 2))
            assert floor < two < one
            assert one == pytest.approx(exact[work.model](work.setting()).risk / config.d, rel=0.02)


def test_gain_is_the_difference_of_risks_on_the_same_prompts(config: DepthConfig, records: dict[Any, Any]) -> None:
    one, two = FIGURE.rows(config, records)[:2]
    assert two.gain == pytest.approx(one.risk - two.risk, abs=1e-6)
    assert (one.gain, one.gain_z) == (0, 0)
    runs = [run for run in next(iter(records.values())) if run["layers"] == 2]
    assert two.gain_z == min(run["gain"] / run["gain_error"] for run in runs)


def test_test_risk_is_that_of_the_saved_models(config: DepthConfig, records: dict[Any, Any], tmp_path: Path) -> None:
    """Trained again from the same seeds and tested on other prompts: within the errors stated."""
    work = next(work for work in records if isinstance(work, GrownModels) and work.gate == "scalar")
    again = replace(work, test_prompts=4000).run(tmp_path)
    for first, second in zip(records[work], again.measurements, strict=True):
        error = (first["standard_error"] ** 2 + second["standard_error"] ** 2) ** 0.5
        assert abs(first["risk"] - second["risk"]) < 5 * error


class _Stop(Exception):  # noqa: N818  (no error: a test interrupts)
    pass


def test_interrupted_growth_ends_with_the_same_records(
    config: DepthConfig, records: dict[Any, Any], tmp_path: Path
) -> None:
    work = next(work for work in records if isinstance(work, GrownModels))

    def stop_at(limit: int) -> Any:
        def on_step(done: int) -> None:
            if done == limit:
                raise _Stop

        return on_step

    for limit in (25, 45):  # within the first depth, within the second
        with pytest.raises(_Stop):
            work.run(tmp_path, on_step=stop_at(limit))
    seen: list[int] = []
    assert work.run(tmp_path, on_step=seen.append).measurements == records[work]
    assert seen == list(range(41, 61))


def row(**changes: float) -> DepthRow:
    values: dict[str, Any] = {
        "risk": 1.0,
        "standard_error": 0.01,
        "best": 1.0,
        "best_error": 0.0,
        "gap": 0.0,
        "gain": 0.1,
        "gain_z": 9.0,
    }
    names: dict[str, Any] = {"figure": "depth", "model": "m", "n": 4, "layers": 2, "seeds": 1}
    return DepthRow(**(names | values | changes))


def test_a_row_is_judged_by_gap_and_gain() -> None:
    assert FIGURE.judge(row()) == "reached"
    assert FIGURE.judge(row(risk=1.09)) == "missed"
    assert FIGURE.judge(row(risk=1.03)) == "undecided"
    assert FIGURE.judge(row(best_error=0.02)) == "undecided"
    assert FIGURE.judge(row(risk=0.5)) == "reached"
    assert FIGURE.judge(row(gain_z=2.9)) == "undecided"
    assert FIGURE.judge(row(gain_z=-3.1)) == "missed"
    assert FIGURE.judge(row(layers=1, gain=0.0, gain_z=0.0)) == "reached"
    assert row(risk=0.96, best_error=0.01).beats is False
    assert row(risk=0.95, best_error=0.01).beats is True


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_best_steps_constructed_as_a_network_have_the_risk_of_the_search(depth: int) -> None:
    """Search by label weights, network by the operator: two ways to one risk, on prompts of their own."""
    work = SearchedSteps("m", True, (4, 4), (0.2, 0.8), 2, depth, prompts=500, starts=0, test_prompts=20_000)
    found = best_steps(work.setting(), depth, prompts=work.prompts, starts=work.starts)
    record = work.run(Path("none")).measurements[-1]
    assert record["rates"] == found[-1].rates
    sampler = PromptSampler([work.setting()], dtype=torch.float64)
    network = construct(found[-1].algorithm(sampler.layout))
    fresh = [torch.Generator().manual_seed(7)]

    def errors(batch: int) -> torch.Tensor:
        prompts = sampler.draw(batch, fresh)
        return (network(prompts.tokens) - prompts.targets).square() / 2

    test = evaluate(errors, prompts=20_000)
    error = (test.standard_error.item() ** 2 + record["standard_error"] ** 2) ** 0.5
    assert abs(test.risk.item() - record["risk"]) < 4 * error


@pytest.mark.usefixtures("_here")
def test_from_the_command_line(
    tmp_path: Path, config: DepthConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(config, n=(4,), seeds=1)
    monkeypatch.setattr(FIGURES["depth"], "config", lambda **options: small)
    arguments = ["reproduce", "--figure", "depth", "--out", str(tmp_path / "out")]
    assert main(arguments) in (0, 1)
    first = (tmp_path / "out" / "results.csv").read_bytes()
    assert main([*arguments, "--resume"]) in (0, 1)
    assert (tmp_path / "out" / "results.csv").read_bytes() == first
    assert "of 4 trained models are within 5% of the best L steps" in capsys.readouterr().out
    assert not list((tmp_path / "out" / "checkpoints").iterdir())
    assert len(list((tmp_path / "out" / "weights").iterdir())) == 4
    header = (tmp_path / "out" / "exact.csv").read_text().splitlines()[0]
    assert header == ",".join(DepthPoint.__annotations__)
