"""Models of the user's own: what is refused, how they are built, and that workers train them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

from gladient import landscape
from gladient.cli import main
from gladient.experiments import (
    MODELS,
    RUNGS,
    NamedSetting,
    Single,
    SingleConfig,
    Sweep,
    TrainedStack,
    make,
    read_grid,
    register,
)
from gladient.experiments.models.kinds import ModelKind
from gladient.experiments.models.register import describe, learn, lend
from gladient.nn import LayerConfig, presets
from gladient.prompts import MultitaskSetting, PromptLayout
from gladient.training import TrainingConfig

PANEL = NamedSetting.isotropic((3, 2), (0.2, 0.8), 2)
MODULE = """
from torch import nn
from gladient.experiments import register

class Own(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.linear = nn.Linear(layout.width, 1)

    def forward(self, tokens):
        return self.linear(tokens[:, -1])[:, 0]

register("own", Own)
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    models, rungs = dict(MODELS), dict(RUNGS)
    yield
    for live, kept in ((MODELS, models), (RUNGS, rungs)):
        live.clear()
        live.update(kept)  # type: ignore[arg-type]


class Mean(nn.Module):
    """The mean label times a weight, and a weight that nothing depends on."""

    def __init__(self, layout: PromptLayout) -> None:
        super().__init__()
        self.label, self.weight, self.idle = layout.d, nn.Parameter(torch.randn(1)), nn.Parameter(torch.ones(2))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight * tokens[:, :, self.label].mean(1)

    def gate_parameters(self) -> list[nn.Parameter]:
        return [self.weight]


def hybrid(layout: PromptLayout, *, step_bound: float = 2.0) -> LayerConfig:
    return presets.gated_deltanet(layout.width, step_bound=step_bound)


def stack(model: str) -> TrainedStack:
    return TrainedStack(
        model, model, (PANEL, PANEL), (0, 5), TrainingConfig(steps=4, batch_size=8, checkpoint_every=2), 16
    )


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("", {}, ValueError, "name is ''; it must be a letter, then"),
        ("../up", {}, ValueError, r"name is '\.\./up'"),
        ("gla", {}, ValueError, "name is 'gla', which gladient has already"),
        ("own_decay", {}, ValueError, "name is 'own_decay', which gladient has already"),
        ("own", {"build": nn.Linear(2, 1)}, TypeError, r"build of 'own' is a Linear; .* every seed gets its own"),
        ("own", {"rung": "best"}, ValueError, "rung of 'own' is 'best'; choose among linear_attention, "),
        ("own", {"tokens": "mine"}, ValueError, "tokens is 'mine'; choose among paper, "),
        ("own", {"gate_rate": -1.0}, ValueError, "gate_rate is -1.0; it must be a positive number"),
        ("own", {"cost": float("nan")}, ValueError, "cost is nan"),
    ],
)
def test_what_is_refused(name: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    before = dict(MODELS)
    with pytest.raises(error, match=message):
        register(name, **{"build": Mean} | options)
    assert before == MODELS


def test_wrong_kinds() -> None:
    wrong: Any
    wrong = 3
    with pytest.raises(ValueError, match="name is 3; it must be a letter"):
        register(wrong, Mean)
    for wrong in (3, "gla"):
        message = f"build of 'own' is a {type(wrong).__name__}; it must be a LayerConfig, or a function or class"
        with pytest.raises(TypeError, match=message):
            register("own", wrong)
    wrong = 1.0
    with pytest.raises(TypeError, match=r"rung of 'own' is 1\.0; it must be a name, or a function"):
        register("own", Mean, rung=wrong)


def test_a_builder_that_cannot_travel_is_refused() -> None:
    class Locked:
        def __call__(self, layout: PromptLayout) -> nn.Module:
            raise NotImplementedError

        def __reduce__(self) -> str:
            raise TypeError("a lock stays here")

    with pytest.raises(ValueError, match=r"build of own cannot be sent to a worker \(a lock stays here\)"):
        register("own", Locked())


def test_a_name_has_one_model() -> None:
    register("own", hybrid)
    register("own", hybrid)  # the same: a module that is imported again
    with pytest.raises(ValueError, match=r"name is 'own', which another model has; .* or say replace=True"):
        register("own", LayerConfig())
    with pytest.raises(ValueError, match="another model has"):
        register("own", hybrid, gate_rate=0.01)
    register("own", LayerConfig(), replace=True)
    assert MODELS["own"].origin is not None
    assert "config" in MODELS["own"].origin
    with pytest.raises(ValueError, match="gladient has already"):
        register("gla", LayerConfig(), replace=True)


def test_unknown_names_are_refused_at_once() -> None:
    for name in ("transformer", "../up"):
        with pytest.raises(ValueError, match=f"there is no model '{name}'; choose among .*register"):
            stack(name)


def test_a_config_starts_as_its_preset_does() -> None:
    register("own", lambda layout: presets.gated_deltanet(layout.width))
    layout = PromptLayout((3, 2), 4)
    expected = MODELS["gated_deltanet"].build(layout, [0, 1], key_channels=2).state_dict()
    found = MODELS["own"].build(layout, [0, 1], key_channels=2).state_dict()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_members_are_made_from_their_seeds_and_read_their_own_prompts() -> None:
    register("own", Mean)
    model, sampler = stack("own").build()
    tokens = sampler.draw(4, [torch.Generator().manual_seed(i) for i in range(2)]).tokens
    for i, seed in enumerate((0, 0, 5, 5)):
        torch.manual_seed(seed)
        alone = Mean(sampler.layout)
        assert torch.equal(model(tokens)[i], alone(tokens[i // 2]))
    assert len(model.gate_parameters()) == 4


def test_a_module_trains_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Also where the loss does not depend on one of its parameters."""

    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    register("own", Mean)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = stack("own").run(tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        stack("own").run(tmp_path / "two", stop)
    assert (tmp_path / "two" / "checkpoint.safetensors").exists()
    assert stack("own").run(tmp_path / "two") == whole


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda layout: nn.Linear(layout.width, 1), r"turned tokens \[8, 8, 6\] into \[8, 8, 1\]; it must .*\[8\]"),
        (lambda layout: layout.width, "build of 'own' returned a int; it must return a torch module or a LayerConfig"),
    ],
)
def test_modules_of_another_kind(build: Any, message: str, tmp_path: Path) -> None:
    register("own", build)
    with pytest.raises(ValueError, match=message):
        stack("own").run(tmp_path)


def test_a_worker_refuses_another_file() -> None:
    register("own", Mean)
    lent = lend({"own": MODELS["own"]})
    learn(lent)
    kind = cloudpickle.loads(lent)["own"]
    other = ModelKind(kind.rung, kind.build, origin={**kind.origin, "source": "0"})
    with pytest.raises(ValueError, match=r"a worker has another .*test_register, where the model 'own' is built"):
        learn(lend({"own": other}))
    with pytest.raises(ValueError, match=r"cannot import a registered model \(No module named 'absent'\)"):
        learn(b"cabsent\nOwn\n.")


def test_what_a_builder_holds_is_told_apart() -> None:
    def closed(bound: float) -> Any:
        return lambda layout: hybrid(layout, step_bound=bound)

    found = []
    for build in (closed(1.0), closed(1.0), closed(2.0), hybrid, Mean, LayerConfig(), LayerConfig(gate="key")):
        register("own", build, replace=True)
        found.append(json.dumps(describe({"own": MODELS["own"]})))
    assert found[0] == found[1]
    assert len(set(found)) == len(found) - 1


def test_a_sweep_has_it_beside_the_others(tmp_path: Path, scheduler: str) -> None:
    def half(setting: MultitaskSetting) -> float:
        return landscape.profile_risk([0.5, 1.0], setting)

    register("own", hybrid, rung=half)
    grid = {"n": [3, 2], "r": [[0.2, 0.8], [0.8, 0.2]], "d": 2, "models": ["own", "scalar_gate"], "test_prompts": 64}
    config = read_grid({**grid, "training": {"steps": 2, "batch_size": 8}})
    rows = make(Sweep(), config, tmp_path / "out", command="test", scheduler=scheduler).rows
    own = [row for row in rows if row.model == "own"]
    assert [row.rung for row in own] == ["own", "own"]
    expected = [half(MultitaskSetting.isotropic(n=[3, 2], r=row.r.split(), d=2)) for row in own]
    assert [row.exact for row in own] == pytest.approx(expected)

    register("own", hybrid, rung=half, gate_rate=0.5, replace=True)
    with pytest.raises(ValueError, match=r"holds results of another config \(it differs in registered\)"):
        make(Sweep(), config, tmp_path / "out", command="test", resume=True)


def test_the_command_imports_the_module_that_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers import it by themselves; without a rung it is not judged."""
    (tmp_path / "own_models.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["--model", "own", "--n", "3", "2", "--r", "0.2", "0.8", "--d", "2", "--steps", "2", "--workers", "1"]
    command = ["train", *options, "--test-prompts", "16", "--out", str(tmp_path / "out"), "--register"]
    assert main([*command, "absent"]) == 2
    assert "register is 'absent', which cannot be imported (No module named 'absent')" in capsys.readouterr().err
    for path in ("./own_models.py", "own/models", ""):
        assert main([*command, path]) == 2
        assert f"register is {path!r}; it must be the name of a module" in capsys.readouterr().err
    assert main([*command, "own_models"]) == 0
    with (tmp_path / "out" / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["outcome"]) == ("own", "")
    assert float(row["exact"]) == pytest.approx(landscape.optimum(PANEL.setting).risk)
    kept = json.loads((tmp_path / "out" / "config.json").read_text())["registered"]["own"]
    assert kept["build"] == "own_models:Own"


def test_a_setting_of_another_model_is_not_described(tmp_path: Path, scheduler: str) -> None:
    register("own", Mean)
    config = SingleConfig(model="gla", panel=PANEL, training=TrainingConfig(steps=1), test_prompts=10)
    make(Single(), config, tmp_path / "out", command="test", scheduler=scheduler)
    assert "registered" not in json.loads((tmp_path / "out" / "config.json").read_text())
