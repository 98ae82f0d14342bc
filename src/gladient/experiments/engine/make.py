"""Makes a figure: config, work, results, picture, report."""

import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, cast

import torch
from rich.console import Console

from gladient._files import write_atomically
from gladient._optional import PARQUET, require
from gladient.experiments.engine.experiment import C, Experiment, P, R, W
from gladient.experiments.engine.output import open_output
from gladient.experiments.engine.report import write_report
from gladient.experiments.engine.results import read_rows, write_rows
from gladient.experiments.engine.runner import run_work
from gladient.experiments.engine.versions import versions
from gladient.experiments.models.register import describe, registered_in
from gladient.experiments.models.stack import is_diverged
from gladient.pictures import save_figure

__all__ = ["Made", "check_device", "make"]


@dataclass(frozen=True)
class Made(Generic[R]):
    """A figure that was made.

    Attributes:
        rows: those of results.csv.
        diverged: the models whose training diverged, one line each; no row counts them.
    """

    rows: list[R]
    diverged: list[str]


def make(
    figure: Experiment[C, W, R, P],
    config: C,
    out: Path,
    *,
    command: str,
    resume: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    parquet: bool = False,
    console: Console | None = None,
) -> Made[R]:
    """Do a figure's work, draw it beside the theory, and write a report.

    Args:
        figure: what to make.
        config: what decides its numbers.
        out: the folder to write to.
        command: what the report says that made it.
        resume: go on with what `out` already holds.
        workers: processes of this machine that work side by side; the results do not depend on it.
        scheduler: the address of a Dask scheduler, whose workers do the work instead.
        parquet: write results.parquet too.
        console: where progress is shown.

    Raises:
        ValueError: for an unusable device or a number out of range, an `out` that holds something else, or work that
            fails.
        ImportError: if `parquet` is asked for and pyarrow is absent.
        OSError: if `out` is a file or cannot be written, or the scheduler cannot be reached.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; at least one process has to train")
    if scheduler is None:
        check_device(config.device)
    if parquet:
        require("pyarrow", **PARQUET)
    console, begun = console or Console(stderr=True), time.perf_counter()
    works = figure.work(config)
    used, own = versions(), describe(registered_in(works))
    described = {"figure": figure.name, **asdict(config), "gladient": used["gladient"], "torch": used["torch"]}
    described |= {"registered": own} if own else {}
    with open_output(out, config=described, resume=resume) as output:
        run_work(works, output, workers=workers, scheduler=scheduler, console=console)
        finished = {work: output.load(work) for work in works}
        measured = {
            work: [one for one in found.measurements if not is_diverged(one)] for work, found in finished.items()
        }
        diverged = [
            f"{work.name}: {', '.join(f'{key} {value}' for key, value in one.items() if key != 'diverged')}"
            for work, found in finished.items()
            for one in found.measurements
            if is_diverged(one)
        ]
        made = figure.rows(config, measured)
        outcomes = [figure.judge(row) or "" for row in made]
        write_rows(out / "results.csv", figure.row, made, {"outcome": outcomes})
        write_rows(out / "exact.csv", figure.point, figure.points(config, measured))
        rows = read_rows(out / "results.csv", figure.row)
        if parquet:
            write_atomically(out / "results.parquet", _as_parquet(rows, outcomes))
        save_figure(figure.draw(rows, read_rows(out / "exact.csv", figure.point)), out / "figure", dpi=160)
        core_seconds = sum(found.seconds for found in finished.values())
        write_report(
            out,
            figure=figure,
            command=command,
            rows=rows,
            diverged=diverged,
            config=described,
            timing={
                "training and testing": f"{core_seconds:.0f} s of one core, summed over {len(works)} parts",
                "this invocation": f"{time.perf_counter() - begun:.0f} s with {_workers(workers, scheduler)}",
            },
        )
        output.write_checksums()
    return Made(rows, diverged)


def _as_parquet(rows: Sequence[R], outcomes: Sequence[str]) -> bytes:
    require("pyarrow.parquet", **PARQUET)
    pyarrow, buffer = require("pyarrow", **PARQUET), io.BytesIO()
    table = [{**asdict(cast(Any, row)), "outcome": outcome} for row, outcome in zip(rows, outcomes, strict=True)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), buffer)
    return buffer.getvalue()


def _workers(workers: int, scheduler: str | None) -> str:
    return f"{workers} workers" if scheduler is None else f"the workers of {scheduler}"


def check_device(device: str) -> None:
    """Refuses, with a ValueError, a device that this PyTorch cannot use."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device is {device!r}, which this torch cannot use ({reason}); try cpu") from None
