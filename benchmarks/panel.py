"""Time and memory of `gladient data` on panels of 10⁴, 10⁵ and 10⁶ rows, a tenth as many groups.

    python -m benchmarks.panel [--rows 10000 100000 1000000]

From a CSV file to the JSON answer, each in a process of its own with one thread. Rows stand in random order.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TIMES = 10  # rows of a group: four of 2000 to 2003 and three of each role after it
COLUMNS = "group,year,y,x1,x2"


def panel(rows: int) -> np.ndarray:
    """The table's numbers [rows, 5]: tasks that drift from period to period, two features, noise."""
    rng, groups = np.random.default_rng(0), rows // TIMES
    period = np.array([0] * 4 + [1] * 3 + [2] * 3)
    beta = np.empty((groups, 3, 2))
    beta[:, 0] = rng.standard_normal((groups, 2))
    for k in (1, 2):
        beta[:, k] = 0.8 * beta[:, k - 1] + 0.6 * rng.standard_normal((groups, 2))
    X = rng.standard_normal((groups, TIMES, 2))
    y = np.einsum("gtd,gtd->gt", X, beta[:, period]) + rng.standard_normal((groups, TIMES))
    group, year = np.meshgrid(np.arange(groups), 2000 + np.arange(TIMES), indexing="ij")
    table = np.column_stack([group.ravel(), year.ravel(), y.ravel(), X.reshape(-1, 2)])
    return rng.permutation(table)


def run(file: Path) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, and the largest memory in GB."""
    command = [sys.executable, "-m", "gladient", "data", str(file), "--target", "y", "--features", "x1", "x2"]
    command += ["--group", "group", "--time", "year", "--bins", "2003", "2006", "--json"]
    start = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"the command ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    print("| rows | groups | file, MB | seconds | CPU seconds | memory, GB |\n|---|---|---|---|---|---|")
    for rows in parser.parse_args().rows:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "panel.csv")
            np.savetxt(
                file, panel(rows), fmt=["%d", "%d", "%.6f", "%.6f", "%.6f"], delimiter=",", header=COLUMNS, comments=""
            )
            size, (wall, cpu, memory) = file.stat().st_size / 1e6, run(file)
        print(f"| {rows} | {rows // TIMES} | {size:.1f} | {wall:.1f} | {cpu:.1f} | {memory:.2f} |", flush=True)


if __name__ == "__main__":
    main()
