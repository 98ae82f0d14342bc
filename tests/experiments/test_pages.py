"""The shell and cluster parts of docs/sweeps.md and docs/clusters.md, run on loopback; the rest are doctests."""

import csv
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gladient.cli import main

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, language: str, containing: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    (text,) = [text for text in found if containing in text]
    return text


def shell(script: str, folder: Path) -> None:
    """Run a script and end what it left in the background."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(["bash", "-e", "-c", script], cwd=folder, env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=240) == 0
    finally:
        os.killpg(process.pid, signal.SIGTERM)


def test_a_scheduler_and_workers_by_hand(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = block("clusters.md", "bash", "dask scheduler")
    assert "8786" in script
    shell(script.replace("8786", port), tmp_path)
    report = (tmp_path / "results" / "train" / "report.html").read_text()
    assert f"with the workers of tcp://127.0.0.1:{port}" in report


def test_jobs_of_a_queue(tmp_path: Path) -> None:
    """Slurm's jobs, run as processes of this machine."""
    script = block("clusters.md", "python", "SLURMCluster")
    script = script.replace("import SLURMCluster", "import local").replace("SLURMCluster", "local.LocalCluster")
    (tmp_path / "sweep.py").write_text(script.replace('"steps": 100', '"steps": 2'))
    printed = subprocess.run(
        [sys.executable, "sweep.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=240
    )
    assert "8 models trained" in printed.stdout


@pytest.mark.usefixtures("_here")
def test_the_page_of_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = block("sweeps.md", "yaml", "models").replace("steps: 400", "steps: 2").replace("131072", "1024")
    (tmp_path / "grid.yaml").write_text(grid)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(block("sweeps.md", "bash", "gladient sweep"))[1:]) == 0
    with (tmp_path / "results" / "grid" / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3 * 2 * 2 * 4 * 2
    train = block("sweeps.md", "bash", "gladient train").replace("--steps 400", "--steps 300")
    assert main(shlex.split(train)[1:]) == 0
    assert (tmp_path / "results" / "train" / "weights" / "scalar_gate.safetensors").exists()
