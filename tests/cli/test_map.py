"""`gladient map`: files, blank cells, the scalar border, and bad ranges."""

import csv
import json

import numpy as np
import pytest

from gladient.cli import main
from gladient.landscape import delta_rule, depth, gated_delta_rule, linear_attention, optimum, scalar_gate
from gladient.prompts import MultitaskSetting


def rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_and_values(capsys, tmp_path):
    out = tmp_path / "maps" / "gain"
    arguments = ["map", "--r1=-0.6:0.9", "--r2", "0:0.8", "--points", "7", "--n", "5", "40", "--rho", "0.3"]
    assert main([*arguments, "--spectrum", "2", "0.5", "--sigma2", "0.1", "--out", str(out)]) == 0
    for suffix in (".png", ".svg", ".csv"):
        assert (out.parent / f"gain{suffix}").stat().st_size > 0
    found = rows(out.parent / "gain.csv")
    assert len(found) == 49
    blank = [row for row in found if row["possible"] == "0"]
    assert f"{len(blank)} blank" in capsys.readouterr().out
    assert blank
    assert all(row["gain"] == row["optimum"] == "" for row in blank)
    for row in found:
        r = [float(row["r1"]), float(row["r2"])]
        try:
            setting = MultitaskSetting([5, 40], [[1, 0.3], [0.3, 1]], r, [[2, 0], [0, 0.5]], 0.1)
        except ValueError:
            assert row["possible"] == "0"
            continue
        none, best = linear_attention(setting).risk, optimum(setting).risk
        assert float(row["linear_attention"]) == pytest.approx(none, rel=1e-12)
        assert float(row["optimum"]) == pytest.approx(best, rel=1e-12)
        assert float(row["gain"]) == pytest.approx(1 - best / none, abs=1e-9)
        assert row["scalar_attains"] == str(int(scalar_gate(setting).risk <= best * (1 + 1e-12)))


def test_same_files_twice(tmp_path):
    for name in ("a", "b"):
        assert main(["map", "--points", "5", "--out", str(tmp_path / name)]) == 0
    for suffix in (".svg", ".csv"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--r1", "0.5:0.5"], "a range goes up"),
        (["--r1", "0.9:0.1"], "a range goes up"),
        (["--r2", "0:1.5"], "within -1 and 1"),
        (["--r2", "zero:one"], "low:high"),
        (["--r1", "0:nan"], "a range goes up"),
        (["--points", "1"], "at least 2"),
        (["--points", "10000000"], "make it smaller"),
        (["--d", "0"], "whole number"),
        (["--n", "0", "5"], "count is below 1"),
        (["--n", "1e13", "5"], "above 1e12"),
        (["--n", "5"], "a map has two tasks"),
        (["--d", "1e13"], "multiplicity"),
        (["--spectrum", "1e300"], "outside 1e-260"),
        (["--sigma2", "-1"], "noise variance"),
        (["--r1", "0.8:1", "--r2", "0.8:1"], "no point of"),
        (["--rho", "2"], "no point of"),
        (["--over", "gate"], "give --gain-of delta"),
        (["--gain-of", "delta", "--spectrum", "2", "1"], "needs Σ = I"),
        (["--gain-of", "delta", "--sigma2", "-1"], "noise variance"),
        (["--gain-of", "delta", "--rho", "2"], "no point of"),
        (["--gain-of", "depth", "--over", "gate"], "leave --over out"),
        (["--gain-of", "depth", "--spectrum", "2", "1"], "needs Σ = I"),
        (["--gain-of", "depth", "--layers", "2"], "2 with --gain-of gate"),
        (["--layers", "3"], "a map has 1, or 2"),
    ],
)
def test_bad_input(capsys, tmp_path, arguments, message):
    assert main(["map", "--out", str(tmp_path / "gain"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_out_is_a_folder(capsys, tmp_path):
    (tmp_path / "gain.png").mkdir()
    assert main(["map", "--points", "3", "--out", str(tmp_path / "gain")]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_scalar_gate_attains_the_optimum_on_the_border_too(tmp_path):
    """On r1 = r2 and r1 = 0 the optimum's weights, (1, 1) and (0, 1), lie on the border of the cone."""
    assert main(["map", "--r1", "0:0.6", "--r2", "0:0.6", "--points", "4", "--out", str(tmp_path / "map")]) == 0
    for row in rows(tmp_path / "map.csv"):
        r1, r2 = float(row["r1"]), float(row["r2"])
        assert row["scalar_attains"] == str(int(r1 <= r2 + 1e-12)), row


def test_any_number_of_equal_features(tmp_path):
    """Against the paper's closed form for Σ = I and uncorrelated tasks, section 5."""
    d, n = 10**12, np.array([3e11, 5e9])
    assert main(["map", "--points", "3", "--d", str(d), "--n", "3e11,5e9", "--out", str(tmp_path / "map")]) == 0
    found = [row for row in rows(tmp_path / "map.csv") if row["possible"] == "1"]
    assert len(found) == 6
    for row in found:
        r = np.array([float(row["r1"]), float(row["r2"])])
        none = d - d * (n @ r) ** 2 / (n.sum() * (d + 1) + n @ n)
        best = d - d * np.sum(n * r**2 / (n + d + 1))
        assert float(row["linear_attention"]) == pytest.approx(none, rel=1e-12)
        assert float(row["optimum"]) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("over", ["linear", "gate"])
def test_delta_rules(capsys, tmp_path, over):
    options = ["--r1=-0.6:0.9", "--r2", "0:0.8", "--points", "6", "--n", "5", "40", "--rho", "0.3", "--sigma2", "0.1"]
    arguments = ["map", "--gain-of", "delta", "--over", over, *options, "--d", "4", "--out", str(tmp_path / "delta")]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(tmp_path / name).stat().st_size > 0 for name in printed["files"]] == [True] * 3
    found = rows(tmp_path / "delta.csv")
    possible = [row for row in found if row["possible"] == "1"]
    assert (printed["points"], printed["blank"]) == (len(possible), 36 - len(possible))
    gains = []
    for row in possible:
        r = [float(row["r1"]), float(row["r2"])]
        setting = MultitaskSetting.isotropic(n=[5, 40], r=r, R=[[1, 0.3], [0.3, 1]], d=4, sigma2=0.1)
        other, best = (
            (linear_attention(setting), delta_rule(setting))
            if over == "linear"
            else (optimum(setting), gated_delta_rule(setting))
        )
        assert float(row["linear_attention" if over == "linear" else "optimum"]) == pytest.approx(other.risk, rel=1e-10)
        assert float(row["delta_rule" if over == "linear" else "gated_delta_rule"]) == pytest.approx(
            best.risk, rel=1e-12
        )
        assert float(row["gain"]) == pytest.approx(1 - best.risk / other.risk, abs=1e-9)
        assert float(row["step"]) == pytest.approx(best.steps[0], rel=1e-4, abs=1e-9)
        if over == "gate" and best.certificate.attained:
            assert float(row["decay"]) == pytest.approx(best.decays[0], abs=1e-4)
        gains.append(1 - best.risk / other.risk)
    assert printed["least_gain"]["gain"] == pytest.approx(min(gains), abs=1e-9)
    assert printed["largest_gain"]["gain"] == pytest.approx(max(gains), abs=1e-9)
    assert (min(gains) < -1e-3) == (over == "gate")  # where gates without a delta rule win
    assert printed["better"] == pytest.approx(np.mean(np.array(gains) > 1e-9))
    assert main(arguments) == 0
    assert f"above 0 at {printed['better']:.1%} of the points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [(["--gain-of", "depth"], "optimum", "two_layers"), (["--layers", "2"], "two_linear", "two_layers")],
)
def test_two_layers(tmp_path, options, before, after):
    given = ["--r1=-0.6:0.9", "--r2", "0:0.8", "--points", "5", "--n", "5", "40", "--rho", "0.3", "--sigma2", "0.1"]
    assert main(["map", *options, *given, "--d", "4", "--out", str(tmp_path / "map")]) == 0
    possible = [row for row in rows(tmp_path / "map.csv") if row["possible"] == "1"]
    for row in possible:
        r = [float(row["r1"]), float(row["r2"])]
        setting = MultitaskSetting([5, 40], [[1, 0.3], [0.3, 1]], r, np.eye(4), 0.1)
        exact = {
            "optimum": optimum(setting).risk,
            "two_linear": depth.best_stack(setting, 2).risk,
            "two_layers": depth.best_stack(setting, 2, "value").risk,
        }
        for name in (before, after):
            assert float(row[name]) == pytest.approx(exact[name], rel=1e-11)
        assert float(row["gain"]) == pytest.approx(1 - exact[after] / exact[before], abs=1e-9)
