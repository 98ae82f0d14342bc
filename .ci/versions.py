"""Runs the core tests in fresh environments: each Python found here, PyTorch and NumPy from the oldest to the newest.

    python .ci/versions.py ["torch==2.10.0 numpy==2.0.2" ...]    all of CELLS, if none is named

It takes the wheel in dist/ (`make dist`), some ten minutes a cell on two cores, and up to 8 GiB of disk for a PyTorch
with CUDA, which go when the cell was run. It prints a table.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["CELLS", "PYTHONS", "pythons", "run"]

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
CELLS = (
    "torch==2.10.0 numpy==2.0.2",
    "torch==2.11.0",
    "torch==2.12.1",
    "torch==2.13.0",
    "torch==2.14.1",
    "torch==2.15.0",
)
TESTS = ("tests/ops", "tests/nn")
TOOLS = ("beartype", "hypothesis", "pytest", "pytest-xdist")
_HEAD = "| Python | with | tests of ops and nn |\n|---|---|---|\n"
_REPORT = """
import platform, numpy, torch
print(platform.python_version(), torch.__version__, numpy.__version__)
"""


def pythons() -> dict[str, str | None]:
    """Path of each Python, None where it is not installed here."""
    return {version: shutil.which(f"python{version}") for version in PYTHONS}


def run(python: str, cell: str, wheel: Path) -> str:
    """The table's row of a fresh environment."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside = str(Path(folder, "bin", "python"))
        pip = [inside, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
        subprocess.run([*pip, str(wheel), *cell.split(), *TOOLS], check=True)
        # Not the tree's sources: they stand in src, where nothing looks for them.
        command = [inside, "-m", "pytest", "-v", "-n", "2", "-p", "no:cacheprovider", "-m", "not slow", *TESTS]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
        print(*(x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))), sep="\n", file=sys.stderr)
        said = subprocess.run([inside, "-c", _REPORT], capture_output=True, encoding="utf-8", check=True).stdout.split()
    counts = re.findall(r"(\d+ (?:passed|failed|errors?|skipped))", done.stdout.rpartition("\n=")[2])
    return f"| {said[0]} | PyTorch {said[1]}, NumPy {said[2]} | {', '.join(counts) or 'did not run'} |\n"


def main() -> int:
    """Prints a row for each cell, and says which Pythons are not here."""
    (wheel,) = (ROOT / "dist").glob("*.whl")
    found = pythons()
    table = _HEAD
    print(table, end="", flush=True)
    for python in filter(None, found.values()):
        for cell in sys.argv[1:] or CELLS:
            table += (row := run(python, cell, wheel))
            print(row, end="", flush=True)
    if absent := [version for version, path in found.items() if path is None]:
        print(f"not installed here: Python {', '.join(absent)}", file=sys.stderr)
    return int("failed" in table or "error" in table or "did not run" in table)


if __name__ == "__main__":
    sys.exit(main())
