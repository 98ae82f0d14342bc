"""What the page shows is what the theory says; what is typed badly is told in one sentence."""

import asyncio
import contextlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tyro

from gladient import landscape
from gladient.answers import around, gates, has_stacks, stacks, verdict
from gladient.cli import main
from gladient.cli.risk import Risk
from gladient.experiments import NamedSetting, TrainedStack
from gladient.experiments.figures.single import Run
from gladient.explore import Fields, Training, controls, pictures, tables
from gladient.explore.guarded import Guard
from gladient.explore.notebook import app
from gladient.explore.server import NOTEBOOK, command
from gladient.training import TrainingConfig

THREE = Fields(n="25 10 30", r="0.5 0.2 -0.3", rho="0.1 0.2 0.3", d="5", decay="1", sigma2="0.1")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"r": "1.5 0.2"}, "a correlation lies between -1 and 1"),
        ({"r": "0.9 0.9"}, "the joint correlation matrix .* has the eigenvalue -0.2728"),
        ({"rho": "-0.9"}, "the joint correlation matrix"),
        ({"rho": "2"}, "R has the eigenvalue -1; it must be positive semidefinite"),
        ({"n": "0 25"}, "each task needs a whole number of examples, at least 1"),
        ({"n": "25"}, "n lists 1 tasks but r lists 2; give one correlation per task"),
        ({"n": ""}, "n is missing or empty; list one number per task"),
        ({"n": "25 x"}, "n: 'x' is not a whole number"),
        ({"n": "1 " * 9, "r": "0 " * 9}, "n lists 9 tasks; the page has room for 8"),
        ({"d": "0"}, "d is 0; the page takes a whole number from 1 to 1000"),
        ({"d": "nan"}, "d: 'nan' is not a whole number"),
        ({"d": "1 2"}, "d is '1 2'; type one number"),
        ({"decay": "-1"}, "the decay of the spectrum is -1; it lies between 0"),
        ({"spectrum": "1 -2"}, "spectrum lists -2; the variance along a direction is never below 0"),
        ({"sigma2": "-1"}, "it is the noise variance σ², one number ≥ 0"),
        ({"rho": "0.1 0.2"}, "rho lists 2 numbers; 2 tasks need none"),
    ],
)
def test_what_is_wrong_is_one_sentence(fields, problem):
    found, said = controls.read(Fields(**fields))
    assert found is None
    assert re.search(problem, said)
    assert "\n" not in said


@pytest.mark.parametrize("fields", [Fields(), THREE, Fields(r="-0.8 -0.2"), Fields(spectrum="4, 1, 0.1", rho="")])
def test_the_command_gives_the_same_setting(fields):
    risk = tyro.cli(Risk, args=shlex.split(fields.command())[2:])
    for name, value in fields.setting().to_dict().items():
        np.testing.assert_allclose(risk.load().to_dict()[name], value, rtol=1e-5)


def test_the_cross_is_where_the_axes_say():
    drawn = pictures.gain_map(Fields().setting(), (0, 1))
    assert pictures.gain_map(Fields(r="0.1 0.2").setting(), (0, 1)) is drawn
    assert pictures.gain_map(Fields(rho="0.1").setting(), (0, 1)) is not drawn
    (left, bottom), (right, top) = drawn.corners
    x, y = map(float, re.findall(r'd="M([\d.]+) ([\d.]+)l12', drawn.at(0.5, -1.0))[0])
    assert x + 6 == pytest.approx(left + 0.75 * (right - left), abs=0.1)
    assert y + 6 == pytest.approx(bottom, abs=0.1)
    assert top < bottom  # SVG counts downwards


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (Fields(), "a scalar gate does not reach it: ω2 ≥ ω1 binds"),
        (Fields(r="0.2 0.8"), "a scalar gate reaches it"),
        (Fields(r="0.5 0.5"), "Gates gain nothing over linear attention."),
        (Fields(r="0 0"), "r = 0, so no weights help"),
        (
            Fields(n="10 20000", r="0.1 0.2", sigma2="0.01", spectrum="10" + " 0.02" * 100),
            "There are 3 stationary points; the optimum is the lowest.",
        ),
    ],
)
def test_sentences(fields, said):
    setting = fields.setting()
    proved, rows = verdict(setting), gates(setting)
    assert said in proved.sentences
    points = proved.stationary
    assert tables.stationary(points).count("<tr>") == 1 + len(points.points)
    assert "<svg" in pictures.svg(pictures.draw_circle(around(setting), points, rows), "x")
    assert "<svg" in pictures.svg(pictures.draw_weights(rows), "x")


@pytest.mark.parametrize(("rho", "counted"), [("0.1", 1), ("0.1 0.2 0.3", 0), ("0.1,0.2,0.3", 0)])
def test_only_a_single_rho_has_a_slider(rho, counted):
    shown = Fields(n="5 5 5", r="0.1 0.2 0.3", rho=rho)
    desk = controls.Desk(shown, *[lambda fields: None] * 3)
    assert sum("ρ" in slider.text for slider in controls.sliders(shown, desk)) == counted


def test_fields_and_sliders_tell_one_another():
    told = []
    desk = controls.Desk(
        Fields(), *(lambda shown, who=who: told.append((who, shown)) for who in ("all", "type", "move"))
    )
    desk.type("sigma2", "0.5")
    desk.move("r", 1, 0.3)
    assert [who for who, _ in told] == ["all", "type", "all", "move"]
    assert desk.shown == Fields(r="0.8 0.3", sigma2="0.5")
    desk.resize(3)
    assert desk.shown == Fields(n="25 25 25", r="0.8 0.3 0", sigma2="0.5")
    desk.resize(1)
    assert desk.shown == Fields(n="25", r="0.8", sigma2="0.5")
    assert {who for who, _ in told[4:]} == {"all", "type", "move"}
    desk.type("n", "")
    desk.resize(2)
    assert desk.shown.n == "25 25"


def test_the_page_runs_as_a_script():
    _, defined = app.run()
    assert defined["ladder"].risks == landscape.ladder(Fields().setting()).risks
    assert "19.15%" in tables.ladder(defined["gates"], defined["setting"])


def test_losses_are_those_of_the_command(tmp_path):
    setting, steps = Fields(n="5 5", d="3").setting(), 6
    training = Training(setting, "value_gate", steps)
    training.run(lambda: True)
    stack = TrainedStack("one", "value_gate", (NamedSetting.of(setting),), (0,), TrainingConfig(steps=steps), 2**15)
    (record,) = Run(stack).run(tmp_path).measurements
    np.testing.assert_allclose(training.losses, setting.M * np.array(record["losses"]), rtol=1e-6)
    assert training.tested == pytest.approx((setting.M * record["risk"], setting.M * record["standard_error"]))
    picture = pictures.draw_training(training.losses, steps, {"value_gate": 2.0})
    assert picture.axes[0].get_xlim() == (0, steps)


def test_a_training_can_be_drawn_before_its_first_step():
    training = Training(Fields(n="5 5", d="3").setting(), "linear_attention", 400)
    assert "Step 0 of 400" in controls.trained(training, {"linear_attention": 2.0}).text


def test_a_training_can_be_stopped():
    training = Training(Fields(n="5 5", d="3").setting())
    training.run(lambda: len(training.losses) < 4)
    assert len(training.losses) == 4
    assert training.tested is None


def test_long_prompts_are_not_trained():
    with pytest.raises(ValueError, match=r"holds 50,000 numbers .* make n or d smaller, or use gladient train"):
        Training(Fields(n="2500 2500").setting())


def test_a_missing_package_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "marimo", None)
    assert main(["explore", "--no-browser"]) == 2
    assert "gladient explore needs the package 'marimo'" in capsys.readouterr().err


def test_the_editor_gets_a_copy_and_keeps_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    called = command(2800, browser=False, edit=True)
    assert called[1:] == (
        [
            "-P",
            "-m",
            "gladient.explore.guarded",
            "-y",
            "edit",
            "--skip-update-check",
            "explore.py",
            "--host",
            "127.0.0.1",
            "--port",
            "2800",
            "--headless",
        ]
    )
    copy = tmp_path / "explore.py"
    assert copy.read_text() == NOTEBOOK.read_text()
    copy.write_text("mine")
    assert command(0, browser=True, edit=True)[-2:] == ["--host", "127.0.0.1"]
    assert copy.read_text() == "mine"


def test_a_port_out_of_range(capsys):
    assert main(["explore", "--port", "70000"]) == 2
    assert "--port is 70000; it must be between 0 and 65535" in capsys.readouterr().err


def test_torch_is_imported_when_something_is_trained():
    script = "import sys, gladient.explore.controls; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    ("passes", "headers"),
    [
        (True, {"host": "localhost:2718", "origin": "http://localhost:2718"}),
        (True, {"host": "127.0.0.1:9"}),
        (True, {"host": "[::1]", "origin": "http://[::1]"}),
        (False, {}),
        (False, {"host": ""}),
        (False, {"host": "localhost:2718", "origin": ""}),
        (False, {"host": "localhost:2718", "origin": "null"}),
        (False, {"host": "localhost:2718", "origin": "https://localhost:2718"}),
        (False, {"host": "localhost:2718", "origin": "http://localhost:2719"}),
        (False, {"host": "localhost:2718", "origin": "http://localhost:2718.example.com"}),
        (False, {"host": "127.0.0.1.example.com", "origin": "http://127.0.0.1.example.com"}),
        (False, {"host": "127.0.0.1:9@example.com"}),
        (False, {"host": "192.168.0.2:2718", "origin": "http://192.168.0.2:2718"}),
    ],
)
def test_the_guard_reads_host_and_origin(kind, passes, headers):
    sent, scope = [], {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}

    async def app(scope, receive, send):
        sent.append({"type": "passed"})

    async def receive():
        raise AssertionError

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app)(scope, receive, send))
    if passes:
        assert sent == [{"type": "passed"}]
    else:
        assert sent[0]["type"] == {"http": "http.response.start", "websocket": "websocket.close"}[kind]
        assert sent[0].get("status", 403) == 403


@pytest.mark.parametrize(("said", "shown"), [("WebSocket is not connected. Need to accept", False), ("other", True)])
def test_the_guard_lets_pages_leave(said, shown):
    async def app(scope, receive, send):
        raise RuntimeError(said)

    async def unused(*_):
        raise AssertionError

    scope = {"type": "websocket", "headers": [(b"host", b"localhost:1")]}
    with pytest.raises(RuntimeError, match="other") if shown else contextlib.nullcontext():
        asyncio.run(Guard(app)(scope, unused, unused))


def test_several_layers():
    setting = Fields(n="10 10", r="0.8 0.2", d="10", sigma2="0").setting()
    text = tables.layers(stacks(setting, [2]), setting)
    assert re.search(r"<td>2</td><td>scalar gate</td><td>6.42\d+</td><td>0.6424</td>", text)
    assert "<td>any</td><td>floor</td>" in text
    assert "<td>1</td><td>gated delta rule</td>" in text
    assert has_stacks(setting)
    assert not has_stacks(THREE.setting())
