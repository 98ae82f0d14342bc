"""Kinds of trained delta rules against their exact rungs, and the figures that hold them, in a minute size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gladient import landscape
from gladient.cli import main
from gladient.experiments import FIGURES
from gladient.experiments.figures.delta import Delta, DeltaConfig, DeltaRow
from gladient.experiments.figures.drift import Drift, DriftConfig, Streaming, read_rule
from gladient.experiments.models.kinds import MODELS, TOKENS
from gladient.experiments.models.rungs import RUNGS, by_example, constant_rule
from gladient.prompts import MultitaskSetting, PromptSampler
from gladient.training import TrainingConfig

DELTA, DRIFT = Delta(), Drift()
TINY = TrainingConfig(steps=2, batch_size=8)
SETTING = MultitaskSetting.isotropic([6, 9], [0.3, 0.8], d=4, sigma2=0.1)
MOVING = MultitaskSetting.drifting(12, 0.9, d=4)


def rule(kind: str, setting: MultitaskSetting) -> tuple[np.ndarray, np.ndarray]:
    """The best steps and decays of a kind, one for each task."""
    per_task, keys = "per_task" in kind, "unit" if kind.endswith("unit") else "gaussian"
    if kind.startswith("stream"):
        gated = "gate" in kind
        best = constant_rule(setting, erase="delta" in kind)
        if not gated:
            return landscape.delta_rule(setting).steps, np.ones(setting.K)
        return np.full(setting.K, best.step), np.full(setting.K, best.decay)
    if per_task or keys == "unit":
        found = landscape.gated_delta_rule(setting, per_task=per_task, keys=keys)
    else:
        found = landscape.delta.shared_step(setting, gated=kind.startswith("gated"))
    return found.steps, found.decays


def logit(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.clip(values, 1e-12, 1 - 1e-12)).double().logit()


@pytest.mark.parametrize("kind", [name for name in MODELS if "delta_rule" in name and "rotating" not in name])
def test_a_kind_that_is_put_in_place_by_hand_has_the_risk_of_its_rung(kind: str) -> None:
    """Keys that are features, with the best steps and decays for each mark: simulated against the exact risk."""
    streaming = kind.startswith("stream")
    setting = MOVING if streaming else SETTING
    sampler = PromptSampler([setting], dtype=torch.float64, **TOKENS[MODELS[kind].tokens])
    layout, (steps, decays) = sampler.layout, rule(kind, setting)
    model = MODELS[kind].build(layout, [0], key_channels=2).double()
    layer, d, data = model.layer, layout.d, list(layout.data_columns)
    assert layer.W_k is not None
    assert layer.step is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer.W_q[0, :d] = layer.W_k[0, :d] = torch.eye(d)
        layer.W_v[0, d] = model.readout[0, 0] = 1.0
        marked = {"paper": steps[:1], "task": np.append(0.0, steps), "stream": np.append(0.0, steps[:1])}
        layer.step.weight[0, data, 0] = logit(marked[MODELS[kind].tokens])
        if layer.gate is not None:
            layer.gate.weight[0, data] = 40.0
            if streaming:
                layer.gate.weight[0, data[1]] = logit(decays[:1])
            layer.gate.weight[0, list(layout.delimiter_columns), 0] = logit(decays)[: len(layout.delimiter_columns)]
        prompts = sampler.draw(40_000, [torch.Generator().manual_seed(3)])
        predicted, wanted = model(prompts.tokens)[0], prompts.targets[0]
    gain = (predicted @ wanted) / (predicted @ predicted)
    errors = (wanted - gain * predicted).square()
    exact = RUNGS[MODELS[kind].rung](setting)
    assert abs((errors.mean() - exact) / (errors.std() / len(errors) ** 0.5)) < 4


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_the_best_constants_are_no_worse_than_a_dense_grid(gamma: float) -> None:
    setting = MultitaskSetting.drifting(15, gamma, d=3, sigma2=0.2)
    gate, both = constant_rule(setting, erase=False), constant_rule(setting, erase=True)
    decays, steps = np.linspace(0, 1, 41), np.linspace(0, 0.4, 41)
    last = 14.0 - np.arange(15)
    assert gate.risk <= min(landscape.profile_risk(decay**last, setting) for decay in decays) + 1e-9
    grid = [landscape.delta_risk(setting, b, decays=np.full(15, a)) for a in decays[20:] for b in steps]
    assert both.risk <= min(grid) + 1e-7
    assert both.risk == pytest.approx(landscape.delta_risk(setting, both.step, decays=np.full(15, both.decay)))
    assert landscape.delta.delta_schedule(setting).risk <= both.risk <= gate.risk + 1e-9


def test_without_noise_the_best_constants_are_the_optimal_filter() -> None:
    setting = MultitaskSetting.drifting(30, 0.9, d=5)
    best = constant_rule(setting, erase=True)
    assert best.risk == pytest.approx(landscape.delta.delta_schedule(setting).risk, rel=1e-6)
    assert (best.decay, best.step) == (pytest.approx(0.9, abs=1e-3), pytest.approx(1 / 7, abs=1e-3))


def test_examples_as_tasks_are_the_same_prompts() -> None:
    each = by_example(SETTING)
    assert landscape.optimum(each).risk == pytest.approx(landscape.optimum(SETTING).risk, rel=1e-12)
    assert landscape.delta_risk(each, 0.1) == pytest.approx(landscape.delta_risk(SETTING, 0.1), rel=1e-12)


def run(figure: Any, config: Any, folder: Path) -> tuple[list[Any], list[Any]]:
    records = {}
    for work in figure.work(config):
        (folder / work.name).mkdir()
        records[work] = work.run(folder / work.name).measurements
    return figure.rows(config, records), figure.points(config, records)


def test_every_delta_rule_has_a_row_in_every_panel(tmp_path: Path) -> None:
    config = DeltaConfig(n=(4,), drawn=(4,), d=3, training=TINY, test_prompts=16, seeds=2)
    rows, points = run(DELTA, config, tmp_path)
    assert [(row.panel, row.model) for row in rows] == [
        (panel, model) for panel in ("0 1", "0.2 0.8", "0.5 0.5", "0.8 0.2") for model in config.models
    ]
    exact = {(point.panel, point.n, point.curve): point.risk for point in points}
    for row in rows:
        assert row.seeds == 2
        assert row.exact == exact[row.panel, 4, MODELS[row.model].rung]
        assert row.best_gate == exact[row.panel, 4, "value_gate"]
        assert exact[row.panel, 4, "bayes"] <= row.exact <= exact[row.panel, 4, "linear_attention"] + 1e-12
    DELTA.draw(rows, points)


def test_a_model_beats_gates_only_beyond_its_error() -> None:
    row = DeltaRow("delta", "0 1", 4, "delta_rule", 0.5, 0.01, 1, 0.5, 0.0, 0.0, best_gate=0.52)
    assert not row.beats_gates
    assert replace(row, risk=0.48).beats_gates
    assert DELTA.summary([row, replace(row, risk=0.48, gap=-0.04, z=-2.0)]) == [
        "largest |gap| 4.00%, largest |z| 2.0",
        "below the best gate: delta_rule 1 of 2",
    ]


def drift(**changes: Any) -> DriftConfig:
    config = DriftConfig(gamma=(0.8, 1.0), T=(5,), drawn=(0.8, 1.0), d=3, training=TINY, test_prompts=16)
    return replace(config, read_prompts=4, **changes)


def test_every_drift_has_a_row_with_its_best_constants(tmp_path: Path) -> None:
    rows, points = run(DRIFT, drift(), tmp_path)
    assert [(row.panel, row.model) for row in rows] == [(g, m) for g in ("0.8", "1") for m in drift().models]
    exact = {(f"{point.gamma:g}", point.curve): point for point in points}
    for row in rows:
        assert row.exact == exact[row.panel, row.model].risk
        assert row.best_decay == exact[row.panel, row.model].decay
        assert exact[row.panel, "schedule"].risk <= row.exact + 1e-9
    assert {row.model for row in rows if row.decay == 1} == {"stream_delta_rule"}
    assert {row.model for row in rows if row.step == 0} == {"stream_gate"}
    DRIFT.draw(rows, points)


def test_decays_and_steps_are_read_off_the_examples() -> None:
    (work,) = [w for w in DRIFT.work(drift(gamma=(0.8,))) if w.stack.model == "stream_gated_delta_rule"]
    assert isinstance(work, Streaming)
    model, sampler = work.stack.build()
    layer = model.layer
    assert layer.W_k is not None
    assert layer.gate is not None
    assert layer.step is not None
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.W_k[0, :3] = 2 * torch.eye(3)
        layer.gate.weight[0, sampler.layout.data_columns[1]] = np.log(0.9 / 0.1)
        layer.step.weight[0, sampler.layout.data_columns[1]] = np.log(0.2 / 0.8)
    ((decay,), (step,)) = read_rule(model, sampler, work)
    assert (decay, step) == (pytest.approx(0.9), pytest.approx(0.8))


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("figure", "config", "line"),
    [
        ("delta", DeltaConfig(models=("delta_rule",), n=(4,), drawn=(4,), d=3), "largest |gap|"),
        ("drift", drift(models=("stream_gate",)), "largest distance of a decay from the best"),
    ],
)
def test_from_the_command_line(
    figure: str,
    config: Any,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny = replace(config, training=TINY, test_prompts=16)
    monkeypatch.setattr(FIGURES[figure], "config", lambda **options: tiny)
    arguments = ["reproduce", "--figure", figure, "--out", str(tmp_path / "out")]
    assert main(arguments) in (0, 1)
    first = (tmp_path / "out" / "results.csv").read_bytes()
    assert main([*arguments, "--resume"]) in (0, 1)
    assert (tmp_path / "out" / "results.csv").read_bytes() == first
    assert line in capsys.readouterr().out
