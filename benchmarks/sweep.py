"""A sweep of small points: throughput, what the engine adds to each job, and the memory of the client.

    python -m benchmarks.sweep [--points 1000] [--workers 2]

Every point is a setting of its own, so each is one job: the worst case for the engine. "Added per job" is the workers'
time that no job had: (wall time of the work × workers − time inside jobs) / jobs; "start" is how long the first
job waited for its worker, which is taken off. The client holds the scheduler too.
"""

import json
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from gladient.experiments import Sweep, make, read_grid


@dataclass(frozen=True)
class Options:
    """Throughput of a sweep of small points."""

    points: int = 1000
    """Jobs: settings that differ in the noise, one model each."""
    steps: int = 20
    """Training steps of each."""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side."""


def main(options: Options) -> None:
    grid = read_grid(
        {
            "n": [5, 5],
            "r": [0.2, 0.8],
            "d": 4,
            "sigma2": [k / options.points for k in range(options.points)],
            "models": ["scalar_gate"],
            "training": {"steps": options.steps, "batch_size": 64},
            "test_prompts": 256,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        out, begun = Path(folder) / "out", time.time()
        make(Sweep("sigma2"), grid, out, command="", workers=options.workers, console=Console(quiet=True))
        whole = time.time() - begun
        points = [
            json.loads(path.read_text("utf-8")) | {"end": path.stat().st_mtime} for path in out.glob("points/*.json")
        ]
    inside = sum(point["seconds"] for point in points)
    first, last = min(point["end"] - point["seconds"] for point in points), max(point["end"] for point in points)
    added = ((last - first) * options.workers - inside) / len(points)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(points)} jobs in {whole:.1f} s: start {first - begun:.1f} s, work {last - first:.1f} s, ", end="")
    print(f"table, figure and report {begun + whole - last:.1f} s")
    print(
        f"{len(points) / (last - first):.1f} jobs per second; {1000 * inside / len(points):.0f} ms inside each job, ",
        end="",
    )
    print(f"{1000 * added:.0f} ms added by the engine; client {memory:.0f} MiB")


if __name__ == "__main__":
    main(tyro.cli(Options))
