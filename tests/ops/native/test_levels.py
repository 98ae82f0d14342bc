"""The laws on another level than the one that the tests run on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ops_cases import BACKENDS

from gladient.ops.native import levels

OPS = Path(__file__).parents[1]
NARROWEST = levels.available()[-1:]  # what the compiler makes of this CPU has its widest vectors, as has the highest


@pytest.mark.slow
@pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
@pytest.mark.parametrize("level", NARROWEST)
def test_vectors_of_another_width(level: str) -> None:
    environment = {key: x for key, x in os.environ.items() if not key.startswith("PYTEST_")}
    files = [str(OPS / f"test_{name}.py") for name in ("laws", "native_delta")]
    chosen = "native and not beats and not pass_every"  # those are about precision and PyTorch's rules, not widths
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, *files]
    done = subprocess.run(
        command, env=environment | {levels.VARIABLE: level}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "100%" in done.stdout
