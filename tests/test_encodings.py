"""Text files are read and written in UTF-8, whatever the locale's encoding is."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gladient.ops.native import build

ROOT = Path(__file__).parents[1]
SOURCES = [*(file for folder in ("src", "benchmarks", "doctools", ".ci") for file in (ROOT / folder).rglob("*.py"))]
PLACES = {"read_text": 0, "write_text": 1, "open": 3}  # of the encoding among the arguments, for a method


def test_every_text_file_names_its_encoding() -> None:
    files = [ROOT / "hatch_build.py", *SOURCES]
    assert [f"{file}:{line}" for file in files for line in nameless(file.read_text("utf-8"))] == []


def nameless(source: str) -> Iterator[int]:
    """Lines of the calls that open text in the locale's encoding; a pipe of a process is text too."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        name, words = ast.unparse(call.func), [x.value for x in call.args if isinstance(x, ast.Constant)]
        method = name.rpartition(".")[2]
        binary = any(isinstance(x, str) and "b" in x for x in (*words, getattr(given.get("mode"), "value", "")))
        opens = method in PLACES and name != "os.open" and len(call.args) <= PLACES[method] and not binary
        opens = opens or (method == "fdopen" and not binary) or (method == "TemporaryFile" and "w+" in words)
        if "encoding" not in given and (opens or "text" in given or "universal_newlines" in given):
            yield call.lineno


def test_what_counts_as_nameless() -> None:
    bad = ["p.read_text()", "p.write_text(x)", "open(p)", "p.open('w')", "run(c, text=True)", "fdopen(n, 'w')"]
    good = ["p.read_text('utf-8')", "p.write_text(x, 'utf-8')", "p.open('rb')", "open(p, mode='wb')", "os.open(p, n)"]
    assert list(nameless("\n".join(bad + good))) == [1, 2, 3, 4, 5, 6]


@pytest.mark.skipif(build.why_unavailable() is not None, reason="no C++ compiler")
def test_the_kernels_are_found_where_the_locale_is_ascii() -> None:
    command = [sys.executable, "-X", "utf8=0", "-c", "from gladient.ops.native import build; print(build.library())"]
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=os.environ | locale, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


PLACES_WITHOUT_GAMMA = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},  # Windows, where output goes into a pipe
    "ascii": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
COMMANDS = [
    "--help",
    "help risk",
    "reproduce --help",
    "data --help",
    "lens --help",
    "data TABLE --target y --show-prompts",
]
COMMANDS += [f"{name} --n 5 5 --r 0.2 0.8 --d 4" for name in ("risk", "certify", "risk --json")]


@pytest.mark.parametrize("encoding", PLACES_WITHOUT_GAMMA)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_terminal_cannot_show_is_spelled_out(command: str, encoding: str, tmp_path: Path) -> None:
    """γ and ω stand in nearly every text of the command; spelled out, JSON stays JSON."""
    rows = "".join(f"ω{i % 6},{i // 6},{i % 7},{i % 5}\n" for i in range(90))
    (tmp_path / "table.csv").write_text(f"task,time,x,y\n{rows}", "utf-8")
    words = command.replace("TABLE", f"{tmp_path / 'table.csv'} --group task --time time --features x").split()
    environment = os.environ | PLACES_WITHOUT_GAMMA[encoding]
    run = [sys.executable, "-m", "gladient", *words]
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert done.stdout.decode(encoding)
    if "--json" in command:
        json.loads(done.stdout)
