"""The figure of presets on the ladder in a minute size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gladient import landscape
from gladient.cli import main
from gladient.experiments import FIGURES
from gladient.experiments._models import MODELS, own_decay
from gladient.experiments._presets import build_preset
from gladient.experiments.family.figure import Family, FamilyConfig, FamilyRow, FamilySetting
from gladient.nn.presets import PRESETS
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.training import TrainingConfig

FIGURE = Family()

SETTING = FamilySetting("tiny", (3, 2), (2.0, 1.0), ((0.2, 0.8), (0.8, 0.2)))


def tiny(**changes: Any) -> FamilyConfig:
    training = TrainingConfig(steps=2, batch_size=8)
    return replace(FamilyConfig(settings=(SETTING,), seeds=2, training=training, test_prompts=16), **changes)


def test_every_preset_has_a_row_in_every_panel(tmp_path: Path) -> None:
    config = tiny()
    records = {}
    for work in FIGURE.work(config):
        (tmp_path / work.name).mkdir()
        records[work] = work.run(tmp_path / work.name).records
    rows, exact = FIGURE.rows(config, records), FIGURE.points(config, records)
    assert [(row.panel, row.model) for row in rows] == [
        (panel, preset) for panel in ("tiny, r = 0.2 0.8", "tiny, r = 0.8 0.2") for preset in PRESETS
    ]
    data = SETTING.panels[1].setting
    for row in rows[len(PRESETS) :]:
        assert row.seeds == 2
        assert row.exact == {(p.panel, p.curve): p.risk for p in exact}[row.panel, row.rung]
        assert row.to_wpgd == pytest.approx(row.risk * data.M / landscape.optimum(data).risk - 1)
        assert row.to_key == pytest.approx(row.risk * data.M / landscape.key_gate(data).risk - 1)
    FIGURE.draw(rows, exact)


def row(rung: str, gap: float, z: float) -> FamilyRow:
    return FamilyRow("family", "p", 5, "m", 0.5, 0.01, 1, rung, 0.5, gap, z, to_wpgd=gap, to_key=gap)


@pytest.mark.parametrize(
    ("rung", "gap", "z", "hit"),
    [
        ("scalar_gate", 0.029, 9.0, True),
        ("scalar_gate", 0.031, 1.0, False),
        ("scalar_gate", -0.5, -99.0, True),
        ("own_decay", 0.031, 1.0, False),
        ("value_gate", 0.019, 9.0, True),
        ("value_gate", 0.03, 2.9, True),
        ("value_gate", 0.03, 3.1, False),
        ("value_gate", -0.5, -99.0, True),
    ],
)
def test_a_rung_is_reached_from_above_or_passed(rung: str, gap: float, z: float, hit: bool) -> None:
    assert FIGURE.judge(row(rung, gap, z)) is hit


def test_the_decay_of_retnet_is_weighed_token_by_token() -> None:
    """Its weights, formed one token at a time, as an algorithm on sampled prompts."""
    setting = MultitaskSetting([3, 2], np.eye(2), [0.3, 0.7], np.diag([2.0, 1.0]), sigma2=0.1)
    weights, layout = [], PromptLayout.of(setting)
    for block in layout.blocks:
        for place in range(block.start, block.stop):
            weights.append(np.prod([1 - 2.0**-5 for _ in range(place + 1, layout.length)]))
    task = np.repeat([0, 1], setting.n)
    R, r, w = np.eye(2)[np.ix_(task, task)], setting.r[task], np.array(weights)
    risk = setting.M
    for s in (2.0, 1.0):
        risk -= s**2 * (w @ r) ** 2 / (w @ (s * (R + np.eye(5)) + setting.M * np.eye(5)) @ w)
    assert own_decay(setting) == pytest.approx(risk, rel=1e-12)


@pytest.mark.parametrize("preset", PRESETS)
def test_models_start_open_and_of_order_one(preset: str) -> None:
    """Read out by ones, the untrained models neither vanish nor explode, and a member depends on its seed alone."""
    assert set(MODELS) >= set(PRESETS)
    sampler = PromptSampler([MultitaskSetting.isotropic((6, 6), (0.2, 0.8), d=4)])
    model, alone = (build_preset(preset, sampler.layout, seeds) for seeds in ([0, 1, 2], [1]))
    tokens = sampler.draw(400, [torch.Generator().manual_seed(0)]).tokens
    with torch.no_grad():
        assert not model(tokens).any()
        model.readout.fill_(1.0)
        alone.readout.fill_(1.0)
        sizes = model(tokens).std(1)
        assert ((sizes > 0.05) & (sizes < 20)).all(), sizes
        torch.testing.assert_close(model(tokens)[1], alone(tokens)[0], rtol=1e-4, atol=1e-4)
        if model.layer.gate is not None:
            data = model.layer.gate(tokens)[:, :, sampler.layout.blocks[0]]
            assert data.mean().exp() > 0.95


def test_keys_that_are_complements_start_odd() -> None:
    """HGRN-2's pairs of channels cancel what is even in the features."""
    layout = PromptLayout(n=(2, 2), d=3)
    model = build_preset("hgrn2", layout, seeds=[0])
    fresh = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 1, layout.length, layout.width, generator=fresh)
    tokens[..., layout.d + 1 :] = torch.as_tensor(layout.template[:, layout.d + 1 :])
    tokens[..., :-1, : layout.d] = 0  # keys without features hold nothing but what has to cancel
    tokens[..., -1, layout.d] = 0
    tokens[..., -1, : layout.d] *= 1e-3  # the query's own gates
    with torch.no_grad():
        model.layer.W_v[:, [*range(layout.d), *range(layout.d + 1, layout.width)]] = 0
        model.readout.fill_(1.0)
        assert model(tokens).abs().max() < 1e-5
        tokens[..., :-1, : layout.d] = torch.randn(layout.length - 1, layout.d, generator=fresh)
        there = model(tokens)
        tokens[..., :-1, : layout.d] *= -1
        assert (there + model(tokens)).abs() < 0.2 * there.abs()


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(presets=("linear_attention", "gla"), seeds=1)
    monkeypatch.setattr(FIGURES["family"], "config", lambda **options: config)
    arguments = ["reproduce", "--figure", "family", "--workers", "1", "--out", str(tmp_path / "out")]
    assert main(arguments) in (0, 1)
    first = (tmp_path / "out" / "results.csv").read_bytes()
    assert main([*arguments, "--resume"]) in (0, 1)
    assert (tmp_path / "out" / "results.csv").read_bytes() == first
    printed = capsys.readouterr().out
    assert "of 4 trained models reach their rung or lie below it" in printed
    assert "tiny, r = 0.8 0.2: below the optimum of WPGD by more than 3 standard errors:" in printed
