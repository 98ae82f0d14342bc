"""The figures of depth in a minute size: what their rows say, growing, resumption, marks, and laws of n/d."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from gladient.cli import main
from gladient.experiments import FIGURES, Outcome
from gladient.experiments.figures.depth.figure import Depth, DepthConfig, DepthPoint, DepthRow, reach
from gladient.experiments.figures.depth.grown import GrownModels, bounded_risk, label_writes_only, without_delimiter
from gladient.experiments.figures.depth.marks import Marks, MarksConfig, MarksRow, exact_weights, fitted, read_mark
from gladient.experiments.figures.depth.reach import CLASSES, ExactStacks, delta_layers
from gladient.experiments.figures.limits import Limits, LimitsConfig, LimitsRow
from gladient.landscape import delta, optimum
from gladient.landscape.depth import depth_floor, marked_layers
from gladient.nn import LayerConfig, ResidualModel
from gladient.prompts import MultitaskSetting, PromptSampler
from gladient.training import TrainingConfig

FIGURE, MARKS, LIMITS = Depth(), Marks(), Limits()
TRAINING = TrainingConfig(steps=12, batch_size=16, checkpoint_every=5)
SETTING = MultitaskSetting.isotropic(n=[4, 5], r=[0.8, 0.2], d=3)


@pytest.fixture(scope="module")
def config() -> DepthConfig:
    return DepthConfig(
        r=((0.8, 0.2),), n=(4,), n_delta=(4,), drawn=(), seeds=2, d=2, training=TRAINING, test_prompts=200
    )


@pytest.fixture(scope="module")
def records(config: DepthConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    folder = tmp_path_factory.mktemp("depth")
    return {work: work.run(scratch(folder, work.name)).measurements for work in FIGURE.work(config)}


def scratch(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_every_panel_length_kind_and_depth_has_a_row(config: DepthConfig, records: dict[Any, Any]) -> None:
    rows, points = FIGURE.rows(config, records), FIGURE.points(config, records)
    assert [(row.panel, row.n, row.model, row.layers) for row in rows] == [
        ("0.8 0.2", 4, model, depth)
        for model in ("linear_attention", "scalar_gate", "gated_delta_rule")
        for depth in (1, 2)
    ]
    assert all(row.seeds == 2 and row.standard_error > 0 and row.exact > 0 for row in rows)
    assert all((row.labels == row.risk) == (row.layers == 1) and row.unmarked != row.risk for row in rows)
    FIGURE.draw(rows, points)
    assert all(len(line) > 20 for line in FIGURE.summary(rows))


def test_exact_risks_lie_in_the_order_that_theory_says(config: DepthConfig, records: dict[Any, Any]) -> None:
    points = FIGURE.points(config, records)
    risk = {(p.curve, p.layers): p.risk for p in points}
    linear, scalar, erasing = (reach(points, "0.8 0.2", 4, model, 2) for model in CLASSES)
    assert risk["floor", 0] < risk["bound", 2] <= scalar + 1e-12
    assert risk["floor", 0] < erasing <= scalar <= linear == risk["marks", 2] < risk["linear_attention", 1]
    assert risk["bayes", 0] < risk["floor", 0]


def test_two_delta_layers_beat_one_and_stay_above_the_floor() -> None:
    setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5)
    found = delta_layers(setting)
    assert depth_floor(setting).risk < found < delta.shared_step(setting, gated=True).risk
    assert found / 5 == pytest.approx(0.4944, abs=1e-3)  # of 12 random starts


def test_gain_is_the_difference_of_risks_on_the_same_prompts(config: DepthConfig, records: dict[Any, Any]) -> None:
    one, two = FIGURE.rows(config, records)[:2]
    assert two.gain == pytest.approx(one.risk - two.risk, abs=1e-6)
    assert (one.gain, one.gain_z) == (0, 0)


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

    for limit in (8, 20, 32):  # within one layer, two free layers, two that write labels alone
        with pytest.raises(_Stop):
            work.run(tmp_path, on_step=stop_at(limit))
    seen: list[int] = []
    outcome = work.run(tmp_path, on_step=seen.append)
    assert outcome.measurements == records[work]
    assert seen == list(range(30, 37))
    assert sorted(outcome.weights) == [f"linear_attention-n4-L{part}" for part in ("1", "2", "2-labels")]
    free, alone = (load(outcome.weights[f"linear_attention-n4-L2{end}"])["layers.0.W_o"] for end in ("", "-labels"))
    assert free[:, :, :2].abs().min() > 0
    assert not alone[:, :, :2].any()
    assert alone[:, :, 2:].abs().min() > 0


def row(**changes: float) -> DepthRow:
    values: dict[str, Any] = {"figure": "depth", "panel": "0 1", "model": "m", "n": 4, "layers": 2, "seeds": 1}
    values |= {"risk": 1.0, "standard_error": 0.005, "exact": 1.0, "gap": 0.0, "z": 0.0, "gain": 0.1, "gain_z": 9.0}
    values |= {"worst": 0.0, "worst_error": 0.005}
    values |= {"labels": 1.0, "labels_error": 0.005, "bound": 1.0, "labels_gap": 0.0, "unmarked": 1.2}
    return DepthRow(**(values | changes))


def test_a_row_is_judged_by_its_worst_seed_and_below_by_its_reason() -> None:
    assert FIGURE.judge(row()) == "reached"
    assert FIGURE.judge(row(worst=0.09)) == "missed"
    assert FIGURE.judge(row(worst=0.03)) == "undecided"
    assert FIGURE.judge(row(worst=-0.2, labels_gap=-0.02)) == "reached"
    assert FIGURE.judge(row(worst=-0.2, labels_gap=-0.04)) == "missed"


def marked_network(omega: list[float]) -> tuple[ResidualModel, PromptSampler]:
    """Two layers by hand whose prediction is one step with these weights of the tasks, P = I / 10."""
    sampler = PromptSampler([SETTING], dtype=torch.float64)
    layout, d = sampler.layout, sampler.layout.d
    first, _ = layout.delimiter_columns
    model = ResidualModel(layout.width, [LayerConfig(gate="none")] * 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        one, two = model.layers
        assert one.attention.W_k is not None
        assert two.attention.W_k is not None
        one.attention.W_q[0, d, 0] = one.attention.W_k[0, first, 0] = 1.0
        one.attention.W_v[0, first, 0], one.W_o[0, 0, first] = omega[1] - omega[0], 1.0
        two.attention.W_q[0, :d, :d], two.attention.W_k[0, :d, :d] = torch.eye(d) / 10, torch.eye(d)
        two.attention.W_v[0, d, 0], two.attention.W_v[0, first, 0] = omega[0], 1.0
        two.W_o[0, 0, d] = model.readout[0, d] = 1.0
    return model, sampler


def test_the_mark_and_the_weights_of_a_network_made_by_hand_are_read_off() -> None:
    model, sampler = marked_network([0.5, -0.2])
    prompts = sampler.draw(500, [torch.Generator().manual_seed(0)])
    assert read_mark(model, sampler.layout) == pytest.approx(-1.4)
    weights, explained = fitted(prompts.tokens[0], model(prompts.tokens)[0].detach(), sampler.layout)
    assert weights == pytest.approx([0.05, -0.02, 0.0])
    assert explained == pytest.approx(1.0)
    unmarked = without_delimiter(prompts, sampler.layout, 0)
    weights, _ = fitted(prompts.tokens[0], model(unmarked.tokens)[0].detach(), sampler.layout)
    assert weights == pytest.approx([0.05, 0.05, 0.0])
    before = model(prompts.tokens)
    label_writes_only(model, 3)  # it never wrote into features
    torch.testing.assert_close(model(prompts.tokens), before)


def test_marks_reach_every_choice_of_weights_and_pass_it() -> None:
    """The network by hand with the weights of the optimum has its risk; the best marked layers lie below."""
    best = optimum(SETTING)
    omega = (10 * best.P[0, 0] * best.omega).tolist()
    model, sampler = marked_network(omega)
    prompts = sampler.draw(40_000, [torch.Generator().manual_seed(1)])
    errors = (model(prompts.tokens) - prompts.targets).square().detach()
    assert abs(errors.mean() - best.risk) < 4 * errors.std() / len(errors[0]) ** 0.5
    assert marked_layers(SETTING).risk < best.risk
    one, two, _ = exact_weights(SETTING)
    assert one > two


def test_marks_has_a_row_for_each_panel_and_seed(tmp_path: Path) -> None:
    config = MarksConfig(n=4, d=2, r=((0.8, 0.2), (0.5, 0.5)), seeds=1, training=TRAINING, test_prompts=200)
    works = MARKS.work(config)
    measured = {work: work.run(scratch(tmp_path, work.name)).measurements for work in works}
    rows = MARKS.rows(config, measured)
    assert [(row.panel, row.seed) for row in rows] == [("0.8 0.2", 0), ("0.5 0.5", 0)]
    assert rows[0].marks < rows[0].wpgd < rows[0].scalar
    MARKS.draw(rows, MARKS.points(config, measured))
    assert all(len(line) > 20 for line in MARKS.summary(rows))
    good: MarksRow = replace(
        rows[0], risk=1.0, standard_error=0.001, wpgd=1.0, labels=1.0, labels_error=0.001, bound=1.0
    )
    assert MARKS.judge(good) == "reached"
    assert MARKS.judge(replace(good, labels=0.95)) == "missed"
    assert MARKS.judge(replace(good, risk=1.05)) == "missed"


def exact_limits(config: LimitsConfig) -> tuple[list[LimitsRow], dict[Any, Any]]:
    measured: dict[Any, Any] = {work: work.run(Path("none")).measurements for work in LIMITS.work(config)}
    return LIMITS.rows(config, measured), measured


def test_laws_of_many_features_are_approached_like_one_over_d() -> None:
    config = LimitsConfig(d=(10, 20, 80), tau=(1.0, 4.0), layers=3)
    rows, measured = exact_limits(config)
    assert {(row.law, row.layers) for row in rows} == {
        *((law, layers) for law in ("full", "causal") for layers in (1, 2, 3)),
        ("delta", 1),
    }
    judged = LIMITS.judged(rows)
    assert len(judged) == 2 * 7
    assert all(LIMITS.judge(row) == "reached" for row in judged)
    assert LIMITS.judge(replace(judged[-1], rate=0.5)) == "missed"
    LIMITS.draw(rows, LIMITS.points(config, measured))
    assert len(LIMITS.summary(judged)) == 2


@pytest.mark.usefixtures("_here")
def test_from_the_command_line(
    tmp_path: Path, config: DepthConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(config, seeds=1, models=("linear_attention",))
    monkeypatch.setattr(FIGURES["depth"], "config", lambda **options: small)
    arguments = ["reproduce", "--figure", "depth", "--out", str(tmp_path / "out")]
    assert main(arguments) in (0, 1)
    first = (tmp_path / "out" / "results.csv").read_bytes()
    assert main([*arguments, "--resume"]) in (0, 1)
    assert (tmp_path / "out" / "results.csv").read_bytes() == first
    assert "of 2 trained models reach what their kind of stack can" in capsys.readouterr().out
    assert not list((tmp_path / "out" / "checkpoints").iterdir())
    assert len(list((tmp_path / "out" / "weights").iterdir())) == 3
    header = (tmp_path / "out" / "exact.csv").read_text().splitlines()[0]
    assert header == ",".join(DepthPoint.__annotations__)


def test_exact_work_counts_its_steps() -> None:
    work = ExactStacks(DepthConfig().settings(4)[0], 1)
    seen: list[int] = []
    outcome: Outcome = work.run(Path("none"), seen.append)
    assert seen == [1, 2]
    assert work.steps == 2
    assert {one["layers"] for one in outcome.measurements} == {0, 1}


def test_one_prompt_moves_training_little() -> None:
    sampler = PromptSampler([SETTING])
    model, prompts = ResidualModel(sampler.layout.width, [LayerConfig()]), sampler.draw(9, [torch.Generator()])
    plain = bounded_risk(model, prompts, 3)  # an untrained model predicts 0
    torch.testing.assert_close(plain, prompts.targets.square().mean(1) / 3)
    far = prompts.targets.clone()
    far[0, 0] = 1e6
    moved = bounded_risk(model, replace(prompts, targets=far), 3)
    assert 0 < (moved - plain).item() <= 20 / 9
