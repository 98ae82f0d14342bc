"""Models under torch.compile and torch.export: what traced.py checks."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("which", ["quick", pytest.param("all", marks=pytest.mark.slow)])
def test_models_are_whole_graphs_for_every_batch(which: str) -> None:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("traced.py")), which]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr[-3000:]
