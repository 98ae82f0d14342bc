"""How commands end: one line and a code for what is expected, a traceback for bugs, silence for a closed pipe."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gladient import __version__
from gladient.cli import COMMANDS, main
from gladient.cli.ending import EXIT_CODES
from gladient.cli.risk import Risk

ROOT = Path(__file__).parents[2]
BASE = ["risk", "--n", "25", "25", "--r", "0.2", "0.8", "--d", "10"]


@pytest.mark.parametrize("rest", ["--help", " ".join(BASE), " ".join([*BASE[:-1], "1500", "--json"])])
def test_a_reader_that_leaves_ends_it_quietly(rest, tmp_path):
    # `true` reads nothing; the long JSON fills the pipe, so that the print fails and not only the flush at the end
    script = f"{{ {sys.executable} -m gladient.cli {rest} 2>err; echo $? >code; }} | true"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    said = (tmp_path / "err").read_text().splitlines()  # what was not computed may be said
    assert all("left out" in line for line in said)
    assert int((tmp_path / "code").read_text()) in (0, 1)  # 0: all was written before the reader left


def test_a_full_disk_is_told_once():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "gladient.cli", *BASE], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("gladient: error: ")
    assert done.stderr.count("\n") == 1


def test_exit_codes_are_told_in_help_and_docs(capsys):
    assert main(["--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    for code, meaning in EXIT_CODES.items():
        assert f"{code}: {meaning}" in told
        assert f"| {code} | {meaning} |" in page


def test_an_error_may_have_a_code_of_its_own_and_no_text(capsys, monkeypatch):
    class LostError(ConnectionError):
        exit_code = 3

    def fail(self):
        raise LostError

    monkeypatch.setattr(Risk, "run", fail)
    assert main(BASE) == 3
    assert capsys.readouterr().err == "gladient: error: LostError\n"


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word, capsys):
    assert main([word]) == 0
    assert capsys.readouterr().out == f"gladient {__version__}\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("did not settle"), "error: RuntimeError: did not settle (GLADIENT_TRACEBACK=1 shows where)"),
        (ImportError("no such package"), "error: no such package"),
        (MemoryError(), "error: MemoryError: "),
        (ValueError(), "error: ValueError"),
        (TimeoutError(), "error: TimeoutError"),
        (ValueError("two\nlines"), "error: two lines"),
        (ValueError("x" * 5000), "error: xxx"),
    ],
)
def test_expected_errors_are_one_line(capsys, monkeypatch, error, message):
    def fail(self):
        raise error

    monkeypatch.setattr(Risk, "run", fail)
    assert main(BASE) == 2
    found = capsys.readouterr().err
    assert found.startswith(f"gladient: {message}")
    assert found.count("\n") == 1
    assert len(found) < 1100
    monkeypatch.setenv("GLADIENT_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(BASE)


def test_what_drives_a_terminal_is_spelled_out(capsys, monkeypatch):
    def fail(self):
        raise ValueError("no column \x1b]0;owned\x07\x9b2J\u202e\u200b\udc80 in naïve 表.csv\n")

    monkeypatch.setattr(Risk, "run", fail)
    assert main(BASE) == 2
    spelled = r"no column \x1b]0;owned\x07\x9b2J\u202e\u200b\udc80 in naïve 表.csv"
    assert capsys.readouterr().err == f"gladient: error: {spelled}\n"


def test_bugs_keep_their_traceback(monkeypatch):
    def fail(self):
        raise KeyError("bug")

    monkeypatch.setattr(Risk, "run", fail)
    with pytest.raises(KeyError):
        main(BASE)


def test_a_broken_pipe_elsewhere_is_an_error(capfd, monkeypatch):
    def fail(self):
        raise BrokenPipeError("a worker is gone")

    monkeypatch.setattr(Risk, "run", fail)
    assert main(BASE) == 2
    assert "a worker is gone" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["risk", "--n", "2.5"], "--n: '2.5' is not a whole number; type 25 or 1e9; see gladient risk --help"),
        (["risk", "--n", "9" * 400], "is not a whole number"),
        (["risk", "--r", "0.1,x"], "'x' is not a number; type 0.5 or 1e-3"),
        (
            ["risk", "-r", "0,2", "0,8"],
            "has commas inside what spaces separate; type 0.2 0.8 for decimals",
        ),
        (["risk", "--r", "5%"], "--r: '5%' is a percentage; type 0.05; see gladient risk --help"),
        (["risk", "--sigma2", "0,5"], "--sigma2: '0,5' is a number with a decimal comma; type 0.5"),
        (["risk", "--d", "3,0"], "--d: '3,0' is not a whole number"),
        (["train", "--steps", "0.5"], "--steps: '0.5' is not a whole number"),
        (["risk", "-d", "3", "--d=4"], "--d is given 2 times; give it once"),
        (["risk", "--d"], "--d stands without a value"),
        (["risk", "5"], "5 follows no option that takes it"),
        (["risk", "--sigma", "3"], "there is no option --sigma; did you mean --sigma2?"),
        (["sweep", "--drift", "0.5"], "there is no option --drift; see gladient sweep --help"),
        (["data", "-", "--target"], "--target stands without a value; type one after it"),
        (["train", "--sedes", "3"], "there is no option --sedes; did you mean --seed?"),
        (["lens", "demo", "-n", "3"], "there is no option -n; see gladient lens --help"),
        (["rsik"], "there is no command 'rsik'; did you mean risk?"),
        (["help", "trian"], "there is no command 'trian'; did you mean train?"),
        (["rsik", "--help"], "there is no command 'rsik'; did you mean risk?"),
        (["xyzzy"], "there is no command 'xyzzy'; the commands are reproduce, sweep"),
        (["--json", "risk"], "no command is given; it comes first: reproduce, sweep"),
        (["bench", "--level", "v9"], "bench left the package; in a clone of the repository"),
        (["map", "--over", "v9"], "--over is 'v9'; choose one of linear, gate"),
        (["reproduce", "--figure", "dleta"], "there is no figure 'dleta'; did you mean delta?"),
        (["data", "--task", "t"], "FILE, --target, --features must be given; see gladient data --help"),
        ([], "no command is given; it comes first: reproduce, sweep"),
    ],
)
def test_bad_options_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in one_line(capsys.readouterr().err)


def one_line(said):
    assert said.startswith("gladient: error: ")
    assert said.count("\n") == 1
    return " ".join(said.split())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])  # tyro draws other boxes where it cannot draw lines
def test_a_bad_option_is_one_line_in_every_terminal(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "gladient.cli", "risk", "--sigma", "3"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:backslashreplace"},
    )
    assert done.returncode == 2
    assert "there is no option --sigma; did you mean --sigma2?" in one_line(done.stderr)


@pytest.mark.parametrize(("arguments", "code"), [("rsik", 2), ("risk --sigma 3", 2), (" ".join(BASE), 0)])
def test_a_closed_stdout(arguments, code):
    command = f"{sys.executable} -m gladient.cli {arguments} >&-"
    done = subprocess.run(["bash", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.count("\n") == (code != 0)


@pytest.mark.parametrize("name", [*COMMANDS, ""])
def test_help_fits_a_screen(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["help", *filter(None, [name])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= {"certify": 24, "explore": 24, "data": 60}.get(name, 45)
    assert not re.search(r"\{None\}|default: (None|False|\))", " ".join(lines))
    if name:
        assert main([name, "--help"]) == 0
        assert capsys.readouterr().out.splitlines() == lines


def test_help_shows_names_values_and_defaults(capsys):
    assert main(["train", "-h"]) == 0
    shown = capsys.readouterr().out
    for row in ("-n, --n INT …  ", "-o, --out PATH  ", "--learning-rate FLOAT  ", "(default: 0.01)", "--resume  "):
        assert row in shown


def test_whole_numbers_and_lists_as_people_type_them(capsys):
    assert main(["risk", "--n", "25", "25", "--r", "-0.2", "0.8", "--d", "10", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    for typed in (["--n=2.5e1,25", "--r=-0.2,8e-1", "--d", "1e1"], ["-n=25", "25", "-r", "-.2, .8", "-d", "10"]):
        assert main(["risk", *typed, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == expected


def test_rows_are_explained_alike(capsys):
    assert main([*BASE, "--bayes", "2"]) == 0
    table = capsys.readouterr().out.splitlines()
    legend = table[table.index(next(line for line in table if line.startswith("risk: "))) + 1 :]
    assert [line.split()[0] for line in legend] == [line.split()[0] for line in table[1 : 1 + len(legend)]]


@pytest.mark.slow
def test_fuzz():
    command = [sys.executable, "-m", "benchmarks.fuzz", "--cases", "60", "--seed", "3", "--limit", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("60 cases, 0 failed")
