"""The multitask figure in a minute size, made once."""

import subprocess
from pathlib import Path

import pytest
from tiny_figure import COMMAND


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    out = tmp_path_factory.mktemp("tiny") / "out"
    done = subprocess.run([*COMMAND, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: so short a training may miss exact values
    return out
