"""Runs the core tests in fresh environments: each Python found here, PyTorch and NumPy from the oldest to the newest.

    python .ci/versions.py ["3.11 torch==2.10.0 numpy==2.0.2" ...]    all of CELLS, if none is named

It takes the wheel in dist/ that fits (`make dist`), some ten minutes a cell on two cores, and up to 8 GiB of disk for a
PyTorch with CUDA, which go when the cell was run. It prints a table.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wheels import fitting

__all__ = ["CELLS", "find", "run"]

ROOT = Path(__file__).parents[1]
CELLS = (
    "3.11 torch==2.10.0 numpy==2.0.2",
    "3.11 torch==2.11.0",
    "3.12 torch==2.12.1",
    "3.11 torch==2.13.0",
    "3.13 torch==2.14.1",
    "3.13 torch==2.15.0",
    "3.14 torch==2.15.0",
)
TESTS = ("tests/ops", "tests/nn")
TOOLS = ("beartype", "hypothesis", "pytest", "pytest-xdist")
_HEAD = "| Python | with | tests of ops and nn |\n|---|---|---|\n"
_REPORT = """
import platform, numpy, torch
print(platform.python_version(), torch.__version__, numpy.__version__)
"""


def find(version: str) -> str | None:
    """The path of a Python, None where it is not installed here."""
    # Asked for its version: a name can be a shim for a Python that is absent.
    for path in (shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")):
        asked = path and subprocess.run([path, "--version"], capture_output=True, encoding="utf-8", check=False)
        if asked and asked.stdout.startswith(f"Python {version}."):
            return str(path)
    return None


def run(python: str, packages: list[str], wheel: Path) -> str:
    """The table's row of a fresh environment."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside = str(Path(folder, "bin", "python"))
        pip = [inside, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
        if subprocess.run([*pip, str(wheel), *packages, *TOOLS], check=False).returncode:
            return f"| {python} | {' '.join(packages)} | cannot be installed here |\n"
        # Not the tree's sources: they stand in src, where nothing looks for them.
        command = [inside, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", *TESTS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
        print(*(x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))), sep="\n", file=sys.stderr)
        said = subprocess.run([inside, "-c", _REPORT], capture_output=True, encoding="utf-8", check=True).stdout.split()
    counts = re.findall(r"(\d+ (?:passed|failed|errors?|skipped))", done.stdout.rpartition("\n=")[2])
    return f"| {said[0]} | PyTorch {said[1]}, NumPy {said[2]} | {', '.join(counts) or 'did not run'} |\n"


def main() -> int:
    """Prints a row for each cell, and says which Pythons are not here."""
    wheel = fitting()
    table = _HEAD
    print(table, end="", flush=True)
    for version, *packages in map(str.split, sys.argv[1:] or CELLS):
        if not (python := find(version)):
            print(f"not installed here: Python {version}", file=sys.stderr)
            continue
        table += (row := run(python, packages, wheel))
        print(row, end="", flush=True)
    return int(any(word in table for word in ("failed", "error", "did not run")))


if __name__ == "__main__":
    sys.exit(main())
