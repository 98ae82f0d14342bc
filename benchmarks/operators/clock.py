"""The one timer and the one reader of peak memory. Standard library alone: other interpreters run this file too."""

import ctypes
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["seconds", "median_seconds", "interleaved", "peak"]

_TINY = 0.002  # seconds: the first calls still wait for what another job drove out of the caches
_FAST = 0.05  # seconds
_WARM = 1.0  # seconds
_SLOWEST = 5.0  # seconds: a job that needs more for one call is timed once


def seconds(job: Callable[[], Any]) -> float:
    """What one call takes."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def median_seconds(job: Callable[[], Any], rounds: int) -> float:
    """The median of some calls in a row."""
    return median(seconds(job) for _ in range(rounds))


def interleaved(
    jobs: Mapping[Any, Callable[[], Any]], rounds: int, afterwards: Mapping[Any, Callable[[], Any]] | None = None
) -> dict[Any, float]:
    """Median seconds of every job, one after the other in every round; those of seconds have a single round.

    Jobs below a second run several times in a row, as in a training loop. Their first call is not timed: it asks the
    system for the memory that the job before gave back. What some do `afterwards`, when their turn is over, is not
    timed either.
    """
    times: dict[Any, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            if not times[name] or times[name][0] < _SLOWEST:
                first = seconds(job)
                again = 99 if first < _TINY else 9 if first < _FAST else 2 if first < _WARM else 0
                times[name].extend([seconds(job) for _ in range(again)] or [first])
            if afterwards and name in afterwards:
                afterwards[name]()
    return {name: median(taken) for name, taken in times.items()}


def peak(job: Callable[[], Any]) -> float:
    """Largest resident memory during the job above that before it, in MiB; NaN where /proc does not tell."""

    def kilobytes(field: str) -> int:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])

    try:
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # what earlier jobs freed does not count as free room
        Path("/proc/self/clear_refs").write_text("5", "utf-8")  # resets the high-water mark
        before = kilobytes("VmRSS")
        job()
        return (kilobytes("VmHWM") - before) / 1024
    except OSError:
        return float("nan")
