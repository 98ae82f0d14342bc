"""`gladient risk`: numbers, formats, errors, and that it never imports torch."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gladient.cli import main
from gladient.landscape import optimum
from gladient.prompts import MultitaskSetting

BASE = ["risk", "--n", "25", "25", "--r", "0.2", "0.8", "--d", "10"]


def rungs(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json(capsys):
    found = rungs(capsys, *BASE)
    assert found["linear_attention"]["risk"] == pytest.approx(6.527777777777778, rel=1e-12)
    assert found["linear_attention"]["omega"] == [1.0, 1.0]
    assert found["scalar_gate"]["risk"] == pytest.approx(5.277777777777778, rel=1e-12)
    assert found["value_gate"]["risk"] == pytest.approx(5.277777777777778, rel=1e-12)
    assert found["value_gate"]["omega"] == pytest.approx([0.25, 1.0], rel=1e-12)
    assert found["fixed_decay"]["gamma"] == pytest.approx(0.958951, abs=1e-6)
    assert found["key_gate"]["risk"] == pytest.approx(5.277777777777778, rel=1e-12)
    assert np.shape(found["key_gate"]["omega"]) == (2, 10)
    assert found["delta_rule"]["risk"] == pytest.approx(4.537742, abs=1e-6)
    for name in ("delta_rule", "gated_delta_rule"):
        assert (len(found[name]["steps"]), len(found[name]["decays"])) == (2, 2)
    for name in ("linear_attention", "fixed_decay", "scalar_gate", "value_gate", "key_gate"):
        assert set(found[name]) >= {"risk", "omega", "certificate"}
    assert found["value_gate"]["certificate"]["stationarity"] < 1e-12


def test_what_would_take_seconds_is_left_out(capsys):
    assert main(["risk", "--n", *["3"] * 101, "--r", *["0.05"] * 101, "--d", "10", "--json"]) == 0
    printed = capsys.readouterr()
    assert "delta_rule" not in json.loads(printed.out)
    assert "left out" in printed.err


def test_tasks_that_are_the_querys(capsys):
    found = rungs(capsys, *["risk", "--n", "1000", "1000", "1000", "--r", "1", "1", "1", "--rho", "1", "--d", "3"])
    assert 0.0 <= found["gated_delta_rule"]["risk"] <= found["delta_rule"]["risk"] < 1e-100


def test_a_rung_that_fails_is_named_and_the_others_are_printed(capsys, monkeypatch):
    def fail(reduced):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr("gladient.landscape.ladders.gated_delta_rule", fail)
    assert main([*BASE, "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out).keys() >= {"linear_attention", "delta_rule", "half_gate"}
    assert printed.err == "gladient: gated_delta_rule left out, it could not be computed here: Singular matrix\n"


def test_bayes(capsys):
    found = rungs(capsys, *BASE, "--bayes", "50", "--sigma2", "0.1")
    assert found["bayes"]["risk"] < found["key_gate"]["risk"]
    assert found["bayes"]["prompts"] == 50
    assert main([*BASE, "--bayes", "50"]) == 0
    assert "standard error" in capsys.readouterr().out
    assert main([*BASE, "--bayes", "-1"]) == 2


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_setting_from_file(capsys, tmp_path, suffix):
    # JSON is YAML too
    path = tmp_path / f"setting{suffix}"
    path.write_text('{"n": [25, 25], "r": [0.2, 0.8], "d": 10}')
    assert rungs(capsys, "risk", "--setting", str(path)) == rungs(capsys, *BASE)
    whole = {"n": [2, 3], "R": [[1, 0.2], [0.2, 1]], "r": [0.2, 0.5], "Sigma": [[2, 0], [0, 1]], "sigma2": 0.1}
    path.write_text(json.dumps(whole))
    typed = ["risk", "--n", "2", "3", "--rho", "0.2", "--r", "0.2", "0.5", "--spectrum", "2", "1", "--sigma2", "0.1"]
    found, expected = rungs(capsys, "risk", "--setting", str(path)), rungs(capsys, *typed)
    assert found["value_gate"]["risk"] == pytest.approx(expected["value_gate"]["risk"], rel=1e-14)


def test_numbers_of_yaml_are_those_of_the_command_line(capsys, tmp_path):
    """YAML's own rules read 010 as 8, 1:30 as 90 and 1e1 as text."""
    path = tmp_path / "s.yaml"
    path.write_text("\ufeffn: [010, 1e1]\nr: [2e-1, .8]\nd: 1e1\n")
    typed = ["risk", "--n", "10", "10", "--r", "0.2", "0.8", "--d", "10"]
    assert rungs(capsys, "risk", "--setting", str(path)) == rungs(capsys, *typed)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.json", "{", "cannot read"),
        ("s.yaml", "a: [", "as YAML"),
        ("s.json", '{"n": [5], "r": [0.1], "d": 2, "d": 3}', "the key 'd' is given twice"),
        ("s.yaml", "n: [5]\nr: [0.1]\nd: 2\nn: [6]", "the key 'n' is given twice"),
        ("s.yaml", "n: &a [5]\nr: *a\nd: 2", "the alias *a"),
        (
            "s.yaml",
            "\n".join(["a0: &a0 [1]", *(f"a{i}: &a{i} [{f'*a{i - 1},' * 99}]" for i in range(1, 9))]),
            "the alias",
        ),
        ("s.yaml", "n: !!int ''\nr: [0.1]\nd: 2", "n = ''"),
        ("s.yaml", "[" * 100_000, "nested too deeply"),
        ("s.json", "[" * 100_000, "nested too deeply"),
        ("s.yaml", "? [1]\n: 2", "keys are names"),
        ("s.yaml", "# " + "x" * 2**20, "write it as JSON"),
        ("s.yaml", "", "must be one object"),
        ("s.json", "\udcff", "cannot read"),
        ("s.json", f'{{"n": [{"9" * 400}], "r": [0.1], "d": 2}}', "n holds NaN or infinity"),
        ("s.json", f'{{"n": [5], "r": [0.1], "d": {"9" * 5000}}}', "whole number"),
        ("s.json", '{"n": [5], "r": [0.1], "d": true}', "d = True; it must be a number"),
        (
            "s.json",
            '{"n": [5], "r": [0.1], "d": 2, "rho": [{"a": 1}]}',
            "rho = [{'a': 1}]; it must be a list of numbers",
        ),
        ("s.json", '{"n": [5], "r": [0.1], "R": [["1"]], "d": 2}', "list of lists of numbers"),
        ("s.json", "[1, 2]", "must be one object"),
        ("s.json", '{"n": [5], "r": [0.1], "sigma": 3}', "'sigma', which no setting has; did you mean sigma2?"),
        ("s.json", '{"r": [0.1], "d": 3}', "n is missing"),
        ("s.json", '{"n": [5], "r": [0.1], "d": 2.5}', "whole number"),
        ("s.json", '{"n": [5], "r": [0.1], "d": 2, "Sigma": [[1.0]]}', "leave one out"),
        ("s.json", '{"n": [5], "r": [0.1], "Sigma": [[1.0, 2.0]]}', "square matrix"),
        ("s.json", '{"n": [5], "r": ["x"], "d": 2}', "list of numbers"),
        ("s.json", '{"n": [5], "r": [0.1], "Sigma": 3}', "list of lists of numbers"),
        ("s.json", '{"n": [5], "r": [0.1], "spectrum": 3}', "list of numbers"),
        ("s.json", '{"n": [5, 5], "r": [0.1, 0.1], "d": 2, "rho": "a"}', "list of numbers"),
    ],
)
def test_bad_files(capsys, tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, errors="surrogateescape")
    assert main(["risk", "--setting", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_task_that_drifts(capsys, tmp_path):
    typed = ["risk", "--drift", "0.5", "--T", "3", "-d", "4", "--sigma2", "0.2"]
    found = rungs(capsys, *typed)
    assert found["value_gate"]["risk"] == pytest.approx(
        optimum(MultitaskSetting.drifting(3, 0.5, d=4, sigma2=0.2)).risk, rel=1e-12
    )
    spelled = ["risk", "-n", "1,1,1", "-r", ".125,.25,.5", "--rho", "0.5", "0.25", "0.5", "-d", "4", "--sigma2", "0.2"]
    assert rungs(capsys, *spelled) == found
    path = tmp_path / "s.yaml"
    path.write_text("drift: 0.5\nT: 3\nd: 4\nsigma2: 0.2\n")
    assert rungs(capsys, "risk", "--setting", str(path)) == found
    assert main(["certify", *typed[1:], "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["stationary_points"]
    assert min(point["risk"] for point in points) == pytest.approx(found["value_gate"]["risk"], rel=1e-12)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--T", "3", "-d", "2", "--n", "5"], "drift is given beside n; a task that drifts"),
        (["--T", "3", "-d", "2", "--rho", "0.5"], "drift is given beside rho; a task that drifts"),
        (["--T", "3", "-d", "2", "--spectrum", "1", "2"], "drift is given beside spectrum; a task that drifts"),
        (["-d", "2"], "T is missing"),
        (["--T", "3"], "d is missing"),
        (["--T", "0", "-d", "2"], "T is 0; it must be a whole number ≥ 1"),
        (["--T", "1e9", "-d", "2"], "make it smaller"),
        (["--T", "3", "--setting", "s.json"], "both --setting and --T"),
    ],
)
def test_bad_drifts(capsys, more, message):
    assert main(["risk", "--drift", "0.5", *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_setting_and_options_together(capsys, tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"n": [25, 25], "r": [0.2, 0.8], "d": 10}')
    assert main(["risk", "--setting", str(path), "--d", "3"]) == 2
    assert "both --setting and --d" in capsys.readouterr().err
    assert main(["risk", "--setting", str(path), "--sigma2", "3"]) == 2
    assert main(["risk", "--setting", str(tmp_path / "missing.json")]) == 2
    assert "missing.json" in capsys.readouterr().err


def test_the_bayes_risk_is_never_below_the_noise(capsys):
    # both samples see enough examples to know every task; rounding made this -9e-16
    typed = [
        "--n",
        "710",
        "4",
        "30",
        "--r",
        "0.9497396567682277",
        "0.47597480937549946",
        "0.8099417397087012",
        "--d",
        "3",
    ]
    rho = ["--rho", "0.6876975924248423", "0.6106860451263513", "0.1387538310411764"]
    assert rungs(capsys, "risk", *typed, *rho, "--bayes", "2")["bayes"]["risk"] >= 0.0


def test_too_large_for_memory(capsys):
    assert main(["risk", "--n", "5", "--r", "0.1", "--d", "10000000"]) == 2
    assert "make it smaller" in capsys.readouterr().err


def test_table(capsys):
    assert main(BASE) == 0
    out = capsys.readouterr().out
    assert "value_gate" in out
    assert "5.27778" in out
    assert "19.15%" in out


def test_options(capsys):
    # negative numbers, correlations as one number or as the upper triangle, a spectrum, noise
    three = [
        "risk",
        "--n",
        "5",
        "6",
        "7",
        "--r",
        "-0.2",
        "0.1",
        "0.5",
        "--sigma2",
        "0.3",
        "--spectrum",
        "2",
        "1",
        "0.1",
    ]
    one = rungs(capsys, *three, "--rho", "-0.1")
    upper = rungs(capsys, *three, "--d", "3", "--rho", "-0.1", "-0.1", "-0.1")
    assert one == upper
    assert one != rungs(capsys, *three, "--rho", "-0.1", "-0.1", "0.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "25", "25", "--r", "0.2", "1.8", "--d", "10"], "a correlation lies between -1 and 1"),
        (["--n", "25", "0", "--r", "0.2", "0.8", "--d", "10"], "at least 1"),
        (["--n", "25", "--r", "0.2", "0.8", "--d", "10"], "n lists 1 tasks but r lists 2"),
        (["--r", "0.2", "--d", "10"], "n is missing"),
        (["--n", "25", "25", "--r", "nan", "0.8", "--d", "10"], "NaN"),
        (["--n", "25", "25", "--r", "0.2", "0.8"], "neither d nor spectrum"),
        (["--n", "25", "25", "--r", "0.2", "0.8", "--d", "0"], "d is 0"),
        (["--n", "25", "25", "--r", "0.2", "0.8", "--d", "3", "--spectrum", "1", "2"], "they must agree"),
        (["--n", "2", "2", "2", "--r", "0", "0", "0", "--d", "2", "--rho", "0.1", "0.2"], "upper triangle"),
        (["--n", "2", "2", "--r", "0.9", "0.9", "--d", "2"], "joint correlation matrix"),
        (["--n", "2", "2", "--r", "0.1", "0.1", "--d", "2", "--sigma2", "-1"], "noise variance"),
        (["--n", "2", "2", "--r", "0.1", "0.1", "--spectrum", "1", "-1e-12"], "spectrum lists -1e-12"),
        (["--n", "9223372036854775807", "--r", "0.1", "--d", "2"], "1e12 examples at most"),
        (["--n", "5", "--r", "0.1", "--spectrum", "1e300"], "within 1e-260 and 1e260"),
        (["--n", "5", "--r", "0.1", "--d", "2", "--bayes", "1e15"], "make it smaller"),
        (["--n", "5", "--r", "0.1", "--d", "2", "--seed", "-1"], "--seed is -1"),
    ],
)
def test_bad_values(capsys, arguments, message):
    assert main(["risk", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gladient: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


def test_interrupt(capsys, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("gladient.cli.risk.Risk.run", interrupt)
    assert main(BASE) == 130
    assert capsys.readouterr().err == "gladient: interrupted\n"


def test_imports_no_more_than_it_needs():
    command = [sys.executable, "-X", "importtime", "-m", "gladient.cli", *BASE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "numpy" in imported
    assert not imported & {"torch", "scipy", "matplotlib", "jaxtyping", "typeguard"}


def test_exit_code_without_traceback():
    command = [sys.executable, "-m", "gladient.cli", "risk", "--n", "2", "--r", "2", "--d", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_several_layers(capsys):
    found = rungs(capsys, *BASE, "--layers", "1", "2")
    assert found["1"]["scalar_gate"]["risk"] == pytest.approx(5.277777777777778, rel=1e-12)
    for layers in ("1", "2"):
        assert found[layers]["bound"]["risk"] <= found[layers]["scalar_gate"]["risk"] * (1 + 1e-12)
        assert found["floor"]["risk"] < found[layers]["bound"]["risk"]
    assert found["2"]["scalar_gate"]["certificate"]["kind"] == "proved"
    assert np.shape(found["2"]["scalar_gate"]["stack"]["gates"]) == (2, 2)
    assert main([*BASE, "--layers", "2"]) == 0
    printed = capsys.readouterr().out
    assert "\n2       scalar_gate" in printed
    assert "marks" in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--layers", "0"], "layers is 0"),
        (["--layers", "2", "--bayes", "10"], "--bayes and --layers"),
        (["--layers", "7"], "6 at most"),
        (["--layers", "2", "--sigma2", "-1"], "noise variance"),
    ],
)
def test_bad_layers(capsys, more, message):
    assert main([*BASE, *more]) == 2
    assert message in capsys.readouterr().err
