"""`gladient train`: one model on one setting."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gladient import landscape
from gladient.cli import main
from gladient.experiments import NamedSetting, Single, SingleConfig
from gladient.prompts import MultitaskSetting
from gladient.training import TrainingConfig

OPTIONS = ["--n", "3", "2", "--r", "0.2", "0.8", "--rho", "0.1", "--spectrum", "2", "1", "--sigma2", "0.1"]


@pytest.mark.usefixtures("_here")
def test_the_risk_falls_and_the_weights_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    size = ["--steps", "300", "--batch-size", "256", "--test-prompts", "100000"]
    assert main(["train", "--model", "value_gate", *OPTIONS, *size, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 trained model reaches its exact risk or lies below it" in printed
    with (out / "exact.csv").open() as file:
        curve = [float(row["risk"]) for row in csv.DictReader(file)]
    setting = MultitaskSetting([3, 2], [[1, 0.1], [0.1, 1]], [0.2, 0.8], np.diag([2.0, 1.0]), 0.1)
    exact = landscape.optimum(setting).risk
    assert np.mean(curve[:5]) > 0.9 * setting.M
    assert np.mean(curve[-20:]) == pytest.approx(exact, rel=0.1)
    config = SingleConfig(
        model="value_gate",
        panel=NamedSetting.of(setting),
        test_prompts=100_000,
        training=_training(steps=300, batch_size=256),
    )
    (work,) = Single().work(config)
    model, sampler = work.stack.load(out / "weights" / "value_gate.safetensors")
    (tested,) = work.stack.test(model, sampler)
    with (out / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["risk"]) == pytest.approx(tested["risk"] * setting.M)
    assert float(row["exact"]) == pytest.approx(exact)


def _training(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**changes)


def test_a_setting_in_the_eigenbasis_is_the_same_problem() -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 3))
    setting = MultitaskSetting([4, 3], [[1, 0.3], [0.3, 1]], [0.5, 0.6], A @ A.T, 0.2)
    for rung in (landscape.linear_attention, landscape.scalar_gate, landscape.optimum):
        assert rung(NamedSetting.of(setting).setting).risk == pytest.approx(rung(setting).risk, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "transformer"], "there is no model 'transformer'"),
        (["--model", "delta_rule"], "its exact risk needs equal ones: take d in place"),
        (["--seed", "-1"], "seed is -1"),
        (["--steps", "0"], "steps is 0"),
        (["--test-prompts", "1"], "test_prompts is 1"),
        (["--workers", "0"], "workers is 0"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    assert main(["train", *OPTIONS, *options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
