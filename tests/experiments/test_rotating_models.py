"""Kinds of trained rotations against their exact rungs, and their figure, in a minute size."""

import csv
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from gladient import landscape
from gladient.cli import main
from gladient.equivalence import construct_rotating_delta, construct_rotating_gate
from gladient.experiments import FIGURES
from gladient.experiments.figures.rotation import RotationConfig
from gladient.experiments.models.kinds import MODELS, TOKENS
from gladient.experiments.models.rungs import RUNGS
from gladient.nn import InContextRegressor
from gladient.prompts import MultitaskSetting, PromptSampler
from gladient.training import TrainingConfig

SETTING = MultitaskSetting.isotropic([6, 9], [0.8, 0.2], d=4)
TURNING = ("fixed_rotation", "rotating_gate", "rotating_delta_rule")


def by_hand(kind: str, model: InContextRegressor) -> None:
    """The best numbers of the kind, in a model as the kind builds it."""
    sampler = PromptSampler([SETTING], dtype=torch.float64, **TOKENS[MODELS[kind].tokens])
    layer = model.layer
    assert layer.W_k is not None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        if kind == "fixed_rotation":
            best = landscape.fixed_rotation(SETTING)
            assert layer.angles is not None
            assert layer.gate is not None
            assert layer.gate.bias is not None
            layer.angles.fill_(best.theta)
            layer.gate.bias.fill_(torch.tensor(best.gamma).clamp(max=1 - 1e-15).double().logit())
            layer.W_k[0, :4, 0::2] = torch.eye(4)
            for channel, part in enumerate((math.cos(best.phase), math.sin(best.phase))):
                layer.W_q[0, :4, channel::2] = part * torch.eye(4)
            layer.W_v[0, 4] = model.readout[0, 0] = 1.0
            return
        best_gate = landscape.optimum(SETTING)
        made = (
            construct_rotating_gate(best_gate.P, best_gate.omega, sampler.layout)
            if kind == "rotating_gate"
            else construct_rotating_delta(SETTING)
        )
        model.load_state_dict(made.state_dict(), strict=False)
        assert layer.gate is not None
        layer.gate.weight[0, [*sampler.layout.data_columns, *sampler.layout.delimiter_columns]] = 40.0


@pytest.mark.parametrize("kind", TURNING)
def test_a_kind_that_is_put_in_place_by_hand_has_the_risk_of_its_rung(kind: str) -> None:
    sampler = PromptSampler([SETTING], dtype=torch.float64, **TOKENS[MODELS[kind].tokens])
    model = MODELS[kind].build(sampler.layout, [0], key_channels=2).double()
    by_hand(kind, model)
    with torch.no_grad():
        prompts = sampler.draw(20_000, [torch.Generator().manual_seed(3)])
        predicted, wanted = model(prompts.tokens)[0], prompts.targets[0]
    gain = (predicted @ wanted) / (predicted @ predicted)
    errors = (wanted - gain * predicted).square()
    exact = RUNGS[MODELS[kind].rung](SETTING)
    assert abs((errors.mean() - exact) / (errors.std() / len(errors) ** 0.5)) < 4


@pytest.mark.parametrize("kind", TURNING)
def test_examples_do_not_turn_with_their_features_at_the_start(kind: str) -> None:
    """The angles of tokens differ at delimiters alone, and those have a gradient."""
    sampler = PromptSampler([SETTING], **TOKENS[MODELS[kind].tokens])
    model = MODELS[kind].build(sampler.layout, [0, 1], key_channels=2)
    prompts = sampler.draw(64, [torch.Generator().manual_seed(0)])
    turns = model.layer.turns(prompts.tokens)
    assert turns is not None
    if kind == "fixed_rotation":
        assert (turns == math.pi / sampler.layout.length).all()
    else:
        places = torch.zeros(sampler.layout.length, dtype=torch.bool)
        places[list(sampler.layout.delimiter_places)] = True
        assert (turns[:, ~places] == 0).all()
        assert (turns[:, places] != 0).all()
    (model(prompts.tokens) - prompts.targets).square().mean().backward()
    moved = model.layer.angles if kind == "fixed_rotation" else model.layer.angle.weight
    assert moved.grad.abs().amax(dim=tuple(range(1, moved.ndim))).min() > 1e-5


@pytest.mark.usefixtures("_here")
def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = RotationConfig(n=(4, 6), d=3, training=TrainingConfig(steps=2, batch_size=8), test_prompts=16)
    monkeypatch.setattr(FIGURES["rotation"], "config", lambda **options: tiny)
    assert main(["reproduce", "--figure", "rotation", "--out", str(tmp_path / "out")]) in (0, 1)
    assert "from the floor: largest |gap|" in capsys.readouterr().out
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "out" / "exact.csv").open() as file:
        exact = {(point["panel"], point["n"], point["curve"]): float(point["risk"]) for point in csv.DictReader(file)}
    panels = ("0 1", "0.2 0.8", "0.5 0.5", "0.8 0.2")
    assert [(row["panel"], row["n"], row["model"]) for row in rows] == [
        (panel, n, model) for panel in panels for n in ("4", "6") for model in tiny.models
    ]
    assert all(row["outcome"] for row in rows)
    for row in rows:
        order = ("any_key_floor", "filter_floor", "rotating_gate", "fixed_rotation", "linear_attention")
        risks = [exact[row["panel"], row["n"], curve] for curve in order]
        assert all(low <= high + 1e-9 for low, high in pairwise(risks))
        if row["model"] == "rotating_delta_rule":
            assert float(row["exact"]) == risks[1]
