"""Kills the client of a run at random times, again and again, and compares what --resume ends with.

    python -m benchmarks.kills [--kills 10] [--seed 0]

A small grid is swept once without a kill. Then the same sweep is killed (SIGKILL and SIGINT in turn) after a random
time and resumed, until it was killed that many times. Prints whether the table and all weights are the same to the bit.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Options:
    """A run that is killed many times ends with the same bits."""

    kills: int = 10
    """How often."""
    seed: int = 0
    """Seed of the times at which it is killed."""


def sweep(file: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "gladient.cli", "sweep", str(file), "--out", str(out), "--resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main(options: Options) -> None:
    chance = random.Random(options.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job is deaf to
    with tempfile.TemporaryDirectory() as folder:
        file, whole, killed = (Path(folder) / name for name in ("grid.yaml", "whole", "killed"))
        file.write_text(GRID, "utf-8")
        begun = time.perf_counter()
        assert sweep(file, whole).wait() == 0
        seconds = time.perf_counter() - begun
        print(f"without a kill: {seconds:.1f} s")
        for number in range(options.kills):
            process, how = sweep(file, killed), (signal.SIGKILL, signal.SIGINT)[number % 2]
            time.sleep(chance.uniform(3, 3 + seconds / 3))
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(how)
            begun, code = time.perf_counter(), process.wait()
            ended, done = time.perf_counter() - begun, len(list(killed.glob("points/*.json")))
            _, left = psutil.wait_procs(family, timeout=10)
            print(
                f"{how.name}: exit code {code} after {ended:.1f} s, {len(left)} processes left, {done} parts finished"
            )
        assert sweep(file, killed).wait() == 0
        names = sorted(path.relative_to(whole) for path in [whole / "results.csv", *whole.glob("weights/*")])
        same = sum((whole / name).read_bytes() == (killed / name).read_bytes() for name in names)
        print(f"{same} of {len(names)} files (results.csv and weights) are the same to the bit")


if __name__ == "__main__":
    main(tyro.cli(Options))
