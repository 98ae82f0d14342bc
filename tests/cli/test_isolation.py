"""Files of the current folder that are called like modules are not run."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOSTILE = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
# What Python itself loads where a process begins, what the server loads, and what the workers load.
NAMES = ["dask", "distributed", "json", "marimo", "multiprocessing", "numpy", "pickle", "random", "runpy", "signal"]
NAMES += ["socket", "struct", "torch", "uvicorn"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The installed command, and `python -P -m gladient`: both leave the current folder out of the search."""
    command = shutil.which("gladient", path=str(Path(sys.executable).parent))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    options: dict[str, Any] = {"cwd": folder, "env": inherited, "stdout": subprocess.PIPE, "text": True}
    begin = [command] if command else [sys.executable, "-P", "-m", "gladient"]
    return subprocess.Popen([*begin, *arguments], **options)


def test_the_page_is_served_by_marimo(hostile: Path) -> None:
    with start(hostile, "explore", "--no-browser") as process:
        assert process.stdout is not None
        try:
            assert any("access_token=" in line for line in process.stdout)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
    assert process.returncode == 0
    assert not list(hostile.glob("*.ran"))


@pytest.mark.slow
def test_workers_search_the_current_folder_for_nothing(hostile: Path) -> None:
    setting = ["--n", "2", "2", "--r", "0.2", "0.8", "--d", "2", "--steps", "1", "--test-prompts", "10"]
    with start(hostile, "train", *setting, "--workers", "1") as process:
        printed, _ = process.communicate()
    assert process.returncode in (0, 1), printed
    assert not list(hostile.glob("*.ran"))
