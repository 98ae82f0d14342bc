"""Models under torch.compile: what traced.py checks. Their export is tried in tests/ops/matrix.py."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_models_are_whole_graphs_for_every_batch() -> None:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("traced.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr[-3000:]
