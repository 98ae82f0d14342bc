"""Kills client, worker, nanny and scheduler of a run in turn, at random times, and compares what --resume ends with.

    python -m benchmarks.kills [--runs sweep train reproduce] [--kills 10] [--seed 0]

Each run is done once without a kill. Then it is done again on a Dask scheduler with two workers, each below a nanny,
and one of the four is killed (SIGKILL) after a random time, until that happened so many times. What was killed is
started again, and so is the command, with --resume, if it ended. Prints each kill, the exit code if the command ended,
the parts that were finished, and whether the table and all weights are the same to the bit.
"""

import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import tyro

GRID = """
n: [[5, 5], [10, 10]]
r: [0.2, 0.8]
d: 4
sigma2: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
models: [linear_attention, scalar_gate]
training: {steps: 300, batch_size: 128, checkpoint_every: 20}
test_prompts: 4096
"""
RUNS = {
    "sweep": ["sweep", "grid.yaml"],
    "train": ["train", "--n", "10", "10", "--r", "0.2", "0.8", "--d", "8", "--steps", "6000"],
    "reproduce": ["reproduce", "--quick"],
}
VICTIMS = ("client", "worker", "nanny", "scheduler")
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass(frozen=True)
class Options:
    """A run that is killed many times ends with the same bits."""

    runs: tuple[str, ...] = tuple(RUNS)
    """Which commands: sweep, train, reproduce."""
    kills: int = 10
    """How often each is killed."""
    seed: int = 0
    """Seed of the times at which it is killed."""


@dataclass
class Cluster:
    """A scheduler and two nannies, each with a worker, as one starts them by hand."""

    folder: Path
    port: int = field(default_factory=lambda: _free_port())
    scheduler: "subprocess.Popen[bytes] | None" = None
    nannies: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where the scheduler is, also after another one took its place."""
        return f"tcp://127.0.0.1:{self.port}"

    def mend(self) -> None:
        """Start what is not there."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            for nanny in self.nannies:
                end(nanny)
            self.scheduler = self._start("scheduler", "--host", self.address, "--no-show")
        self.nannies = [nanny for nanny in self.nannies if nanny.poll() is None]
        while len(self.nannies) < 2:
            self.nannies.append(self._start("worker", self.address, "--nthreads", "1"))

    def workers(self) -> list[psutil.Process]:
        """The processes that train."""
        below = [child for nanny in self.nannies for child in psutil.Process(nanny.pid).children()]
        return [child for child in below if "spawn_main" in " ".join(child.cmdline())]

    def _start(self, kind: str, *options: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "dask", kind, *options, "--no-dashboard"], cwd=self.folder, **QUIET
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def end(process: "subprocess.Popen[bytes]") -> None:
    """A nanny and its worker, at once."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


@contextmanager
def started(folder: Path) -> Iterator[Cluster]:
    """A cluster that ends with the block."""
    cluster = Cluster(folder)
    cluster.mend()
    try:
        yield cluster
    finally:
        for process in [*cluster.nannies, cluster.scheduler]:
            assert process is not None
            end(process)


def start(run: str, folder: Path, out: Path, *options: str) -> "subprocess.Popen[bytes]":
    """The command, in the folder where its grid is."""
    command = [sys.executable, "-P", "-m", "gladient", *RUNS[run], "--out", str(out), "--resume", *options]
    return subprocess.Popen(command, cwd=folder, **QUIET)


def kill(victim: str, client: "subprocess.Popen[bytes]", cluster: Cluster) -> str:
    """Kill one; what became of the command."""
    if victim == "worker":
        for worker in cluster.workers()[:1]:
            worker.kill()
        return "goes on"
    if victim == "nanny":
        cluster.nannies[0].kill()
        cluster.nannies[0].wait()
        return "goes on"
    process = client if victim == "client" else cluster.scheduler
    assert process is not None
    process.kill()
    begun, code = time.perf_counter(), client.wait()
    return f"exit code {code} after {time.perf_counter() - begun:.1f} s"


def kill_again_and_again(run: str, folder: Path, options: Options) -> None:
    """One run without a kill, one with; prints whether they are the same."""
    chance, whole, killed = random.Random(options.seed), folder / f"{run}-whole", folder / f"{run}-killed"
    begun = time.perf_counter()
    code = start(run, folder, whole, "--workers", "2").wait()
    seconds = time.perf_counter() - begun
    print(f"{run} without a kill: exit code {code} after {seconds:.1f} s", flush=True)
    with started(folder) as cluster:
        client = start(run, folder, killed, "--scheduler", cluster.address)
        for number in range(options.kills):
            time.sleep(chance.uniform(0.15, 0.45) * seconds)  # processes take a good part of it to start again
            if client.poll() is not None:
                print(f"it was done before kill {number + 1}: exit code {client.returncode}")
                break
            victim = VICTIMS[number % len(VICTIMS)]
            became, done = kill(victim, client, cluster), len(list(killed.glob("points/*.json")))
            print(f"{victim} killed: {became}; {done} parts finished", flush=True)
            cluster.mend()
            if client.poll() is not None:
                client = start(run, folder, killed, "--scheduler", cluster.address)
        print(f"{run} at the end: exit code {client.wait()}")
    names = sorted(path.relative_to(whole) for path in [whole / "results.csv", *whole.glob("weights/*")])
    same = sum((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)
    print(f"{same} of {len(names)} files (results.csv and weights) are the same to the bit", flush=True)


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "grid.yaml").write_text(GRID, "utf-8")
        for run in options.runs:
            kill_again_and_again(run, Path(name), options)


if __name__ == "__main__":
    main(tyro.cli(Options))
