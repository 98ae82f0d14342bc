"""`gladient data`: what it prints is what Python returns, and each bad table ends in one line."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gladient import landscape
from gladient.cli import main
from gladient.data import cross_fit, judge, prompts_from_panel, read_table, table_prompts

COLUMNS: dict[str, Any] = {"target": "y", "features": ["x1", "x2"], "task": "day", "role": "source", "cluster": "week"}
OPTIONS = ["--target", "y", "--features", "x1", "x2", "--task", "day", "--role", "source"]


@pytest.fixture(scope="module")
def frame():
    rng, rows = np.random.default_rng(0), []
    for day in range(60):
        beta = rng.normal(size=2)
        for source, like in (("old", 0.2), ("new", 0.9), ("query", 1.0)):
            own = like * beta + np.sqrt(1 - like**2) * rng.normal(size=2)
            for _ in range(6):
                x = rng.normal(size=2)
                rows.append((day, source, day // 3, *x, x @ own + rng.normal()))
    return pd.DataFrame(rows, columns=["day", "source", "week", "x1", "x2", "y"])


def test_it_prints_what_python_returns(frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.parquet"
    frame.to_parquet(path)
    assert main(["data", str(path), *OPTIONS, "--cluster", "week", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    table = table_prompts(frame, **COLUMNS)
    found = cross_fit(table.prompts, clusters=table.clusters)
    assert printed["roles"] == ["old", "new"]
    verdicts = judge(found)
    assert printed["verdict"] == {"kind": verdicts.kind, "text": verdicts.text, "gate": verdicts.gate, "culprits": []}
    assert printed["baselines"]["ridge"]["risk"] > 0
    assert printed["setting"]["n"] == [6, 6]
    reduced = found.estimated.reduced()
    assert printed["uniqueness"] == asdict(landscape.uniqueness(reduced))
    assert printed["advantage"]["gain"] == pytest.approx(landscape.advantage(reduced).gain, abs=1e-12)
    assert len(printed["stationary_points"]) == printed["uniqueness"]["count"]
    assert printed["gates"]["value_gate"]["certificate"]["lower_bound"] <= landscape.optimum(reduced).risk
    for name, gate in printed["gates"].items():
        assert gate["gain"]["measured"] == pytest.approx(found.gains[name].measured, abs=1e-12)
        assert gate["gain"]["predicted"] == pytest.approx(found.gains[name].predicted, abs=1e-12)
        if name in verdicts.gates:
            assert gate["verdict"]["kind"] == verdicts.gates[name].kind
        if name != "key_gate":  # it has weights of its own for each direction
            np.testing.assert_allclose(gate["omega"], found.gates[name].omega, atol=1e-9)
    assert not (tmp_path / "data.html").exists()
    (tmp_path / "found.json").write_text(json.dumps(printed))
    assert main(["risk", "--setting", str(tmp_path / "found.json")]) == 0


def test_a_table_and_a_report(frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "table.csv", tmp_path / "report.html"
    frame.sample(frac=1, random_state=0).to_csv(path, index=False)
    options = ["--roles", "old", "new", "--n", "4", "--folds", "3", "--intercept", "--out", str(out)]
    assert main(["data", str(path), *OPTIONS, *options]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith("would gating help on these data? ")
    table = [line.split()[0] for line in lines[lines.index("") + 2 :]]
    gates = ["linear_attention", "fixed_decay", "scalar_gate", "value_gate", "key_gate"]
    without = ["one_fit", "ridge", "last_ridge", "last_mean", "last_value", "mixed_model"]
    assert table[:15] == [*gates, *without, *(f"{gate}:" for gate in gates[1:])]
    assert "correlation with the query's task: old" in printed
    page = out.read_text()
    assert "each shows 4, 4 examples" in page
    assert "--roles old new --n 4 --query query --seed 0 --folds 3 --intercept" in page


def test_what_a_terminal_would_obey_is_spelled_out(frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In roles, column names, the file's name and that of the report; on stdout, on stderr and on the page."""
    evil = "\x1b]0;owned\x07\x9b2J\u202e"
    path, out = tmp_path / f"table{evil}.csv", tmp_path / f"report{evil}.html"
    frame.replace({"source": {"old": f"old{evil}"}}).rename(columns={"x1": f"x1{evil}"}).to_csv(path, index=False)
    options = ["--target", "y", "--features", f"x1{evil}", "x2", "--task", "day", "--role", "source", "--out", str(out)]
    assert main(["data", str(path), *options]) == 0
    assert main(["data", str(path), *options[:3], "x1", *options[5:-2], "--json"]) == 2
    captured = capsys.readouterr()
    spelled = r"\x1b]0;owned\x07\x9b2J\u202e"
    for text in (captured.out, captured.err, out.read_text()):
        assert spelled in text
        assert not (set(evil) - set(spelled)) & set(text)


def change(frame, **columns):
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.drop(columns="x2"), "there is no column 'x2'; the table has day, source, week, x1, y"),
        (lambda f: change(f, y=f.y.where(f.index != 7)), "column 'y' misses 1 of 1080 values; drop those rows"),
        (lambda f: change(f, x1="red"), "column 'x1' is 'red' in every row; leave it out"),
        (lambda f: change(f, y="red"), "column 'y' holds 'red' in row 1 (day 0, source old, week 0), which is not"),
        (lambda f: change(f, x1=1.0), "feature 1 of 2 is 1 in every example; leave it out"),
        (lambda f: change(f, day=0, week=0), "column 'day' has one value, so each role has one task"),
        (
            lambda f: f[(f.day != 5) | (f.source != "old")],
            "day 5 has no row of role 'old'; each prompt needs every role",
        ),
        (lambda f: f[f.source != "query"], "column 'source' holds new, old; some rows must be 'query'"),
        (lambda f: f[f.source == "query"], "every row of column 'source' is 'query'"),
        (lambda f: f.drop(index=f.index[0]), "say with n how many of each source a prompt shows: of 'old' day 0 has 5"),
        (lambda f: change(f, week=f.index), "day 0 lies in the clusters"),
        (lambda f: f.iloc[:0], "has 0 rows and 6 columns; it is not a table"),
    ],
)
def test_bad_tables(frame, make, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.csv"
    make(frame).to_csv(path, index=False)
    assert main(["data", str(path), *OPTIONS, "--cluster", "week"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", None, "does not exist, or is a folder"),
        ("no.parquet", b"PAR1 but not really", "cannot be read as Parquet"),
        ("no.csv", b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "cannot be read as CSV"),
        ("no.csv", b"", "cannot be read as CSV"),
        ("no.csv", b"just a line of text\nand another\n", "it is not a table of examples"),
    ],
)
def test_files_that_are_no_tables(
    name: str, content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["data", str(tmp_path / name), *OPTIONS]) == 2
    assert message in capsys.readouterr().err


def test_bad_options(frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    for extra, message in (
        (["--n", "4", "4", "4"], "n lists 3 counts and prompts have 2 sources"),
        (["--roles", "new"], "the roles are given as new and the table has new, old, query"),
        (["--n", "9"], "n asks for 9 examples of 'old' and day 0 has 6; take at most 6, or leave that task out"),
        (["--roles", "new", "new", "old"], "the roles are given as new, new, old; name each of them once"),
        (["--folds", "1"], "folds is 1 with 60 clusters"),
        (["--out", str(tmp_path)], "is a folder; --out names the HTML file"),
    ):
        assert main(["data", str(path), *OPTIONS, *extra]) == 2
        assert message in capsys.readouterr().err


def test_no_command_of_the_theory_waits_for_torch(frame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "table.csv", index=False)
    commands = [
        ["data", str(tmp_path / "table.csv"), *OPTIONS],
        ["certify", "--n", "2", "3", "--r", "0.2", "0.8", "--d", "2"],
        ["map", "--points", "3", "--out", str(tmp_path / "map")],
    ]
    script = f"import sys; from gladient.cli import main; assert not any(map(main, {commands!r})); "
    script += "assert 'pandas' in sys.modules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, cwd=tmp_path)


def test_without_pandas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r"reading a table needs the package 'pandas'.*pip install 'gladient\[data\]'"
    ):
        read_table(tmp_path / "table.csv")


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    """Thirty groups in twelve years; each has tasks that change every third year."""
    rng, rows = np.random.default_rng(1), []
    for who in range(30):
        beta = rng.normal(size=2)
        for year in range(2000, 2012):
            beta = 0.9 * beta + np.sqrt(0.19) * rng.normal(size=2) if year % 3 == 0 else beta
            x = rng.normal(size=2)
            rows.append((f"g{who}", year, *x, x @ beta + 0.5 * rng.normal()))
    return pd.DataFrame(rows, columns=["who", "year", "x1", "x2", "y"])


PANEL = ["--target", "y", "--features", "x1,x2", "--group", "who", "--time", "year"]


def test_a_panel(panel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer is that of Python, whatever the file, and its setting goes into gladient risk."""
    path = tmp_path / "panel.csv"
    panel.to_csv(path, sep=";", decimal=",", index=False)
    assert main(["data", str(path), *PANEL, "--lags", "2", "--windows", "3y", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "gladient: took ';' for the separator (--sep)",
        "gladient: took ',' for the decimal sign (--decimal)",
        "gladient: a prompt shows 3, 3 examples of its sources (--n sets another number)",
    ]
    printed = json.loads(captured.out)
    table = prompts_from_panel(panel, target="y", features=["x1", "x2"], group="who", time="year", windows="3y", lags=2)
    found = cross_fit(table.prompts, clusters=table.clusters, n=table.n)
    assert printed["roles"] == ["lag 2", "lag 1"]
    for name, gate in printed["gates"].items():
        assert gate["gain"]["measured"] == pytest.approx(found.gains[name].measured, abs=1e-9)
    setting = tmp_path / "setting.json"
    setting.write_text(json.dumps(printed))
    assert main(["risk", "--setting", str(setting), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_prompts_are_shown(panel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "panel.csv"
    panel.to_csv(path, index=False)
    assert main(["data", str(path), *PANEL, "--bins", "2003,2007", "--show-prompts"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[:6] == [
        "30 prompts in 30 clusters; features: x1, x2",
        "  2000–2003: 4 examples, 4 shown",
        "  2004–2007: 4 examples, 4 shown",
        "  query: 4 examples",
        "",
        "who g0, 2008–2011 (cluster g0)",
    ]
    assert f"{panel.y[0]:.6f}" in lines[8]
    assert "a prompt shows 4, 4 examples of its sources" in captured.err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["panel.csv"]


def test_options_of_a_panel_and_of_roles_do_not_mix(panel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "panel.csv"
    panel.to_csv(path, index=False)
    for options, message in (
        ([*PANEL, "--task", "who"], "--group and --task are both given; a panel has --group and --time"),
        (PANEL[:-2], "--group is given without --time, the column that tells the past from what follows"),
        (PANEL[:-4], "give --group and --time for a panel, one row per group and time; or --task and --role"),
        ([*PANEL, "--query", "2007"], "--query belongs to --task and --role"),
        ([*PANEL[:-4], "--task", "who"], "give --group and --time for a panel"),
    ):
        assert main(["data", str(path), *options]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1


def test_the_order_of_roles_is_said_or_given(frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    for extra, order, said in (
        ([], ["old", "new"], "sources in the order in which they first appear: old, new (--role-order sets another)"),
        (["--role-order", "new", "old"], ["new", "old"], ""),
        (["--roles", "new", "old"], ["new", "old"], ""),
    ):
        assert main(["data", str(path), *OPTIONS, *extra, "--show-prompts"]) == 0
        captured = capsys.readouterr()
        assert [line.split(":")[0].strip() for line in captured.out.splitlines()[1:3]] == order
        assert captured.err == (f"gladient: {said}\n" if said else "")
