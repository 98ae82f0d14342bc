"""The laws, values and flash-linear-attention's references, and the delta rule, on every level that this CPU runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ops_cases import BACKENDS

from gladient.ops.native import levels

OPS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
@pytest.mark.parametrize("level", levels.available())
def test_every_level(level: str) -> None:
    environment = {key: x for key, x in os.environ.items() if not key.startswith("PYTEST_")}
    files = [str(OPS / f"test_{name}.py") for name in ("laws", "values", "references", "native_delta")]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "native", *files]
    done = subprocess.run(
        command, env=environment | {levels.VARIABLE: level}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "100%" in done.stdout
