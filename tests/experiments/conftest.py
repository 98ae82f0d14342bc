"""The multitask figure in a minute size, made once."""

import subprocess
import sys
from pathlib import Path

import pytest

TINY = [sys.executable, str(Path(__file__).with_name("tiny_figure.py"))]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    out = tmp_path_factory.mktemp("tiny") / "out"
    done = subprocess.run([*TINY, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: so short a training may miss exact values
    return out
