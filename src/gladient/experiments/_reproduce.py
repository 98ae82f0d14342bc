"""Makes a figure from its module: config, work, results, picture, report."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from gladient._files import save_figure
from gladient.experiments import depth, family, multitask, weights
from gladient.experiments._figure import Figure
from gladient.experiments._output import open_output
from gladient.experiments._report import versions, write_report
from gladient.experiments._results import read_rows, write_rows
from gladient.experiments._runner import run_work

__all__ = ["FIGURES", "reproduce"]

FIGURES: dict[str, Figure] = {module.FIGURE.name: module.FIGURE for module in (multitask, weights, depth, family)}


def reproduce(
    figure: str,
    *,
    out: Path,
    quick: bool = False,
    seeds: int | None = None,
    resume: bool = False,
    workers: int = 1,
    device: str = "cpu",
    console: Console | None = None,
) -> list[Any]:
    """Train a figure's models, draw them beside the theory, and write a report.

    Args:
        figure: a name in `FIGURES`.
        out: the folder to write to.
        quick: fewer points.
        seeds: training runs a point; the figure's own number if not given.
        resume: go on with what `out` already holds.
        workers: processes that train side by side; the results do not depend on it.
        device: where to train: cpu, cuda, cuda:0 …
        console: where progress is shown.

    Returns:
        The rows of results.csv.

    Raises:
        ValueError: for an unknown figure or device, a number out of range, or an `out` that holds something else.
        OSError: if `out` is a file or cannot be written.
    """
    if figure not in FIGURES:
        raise ValueError(f"there is no figure {figure!r}; choose one of {', '.join(FIGURES)}")
    if workers < 1:
        raise ValueError(f"workers is {workers}; at least one process has to train")
    _check_device(device)
    console, begun = console or Console(stderr=True), time.perf_counter()
    plan = FIGURES[figure]
    seeds = plan.seeds if seeds is None else seeds
    config = plan.make_config(quick=quick, seeds=seeds, device=device)
    works = plan.work(config)
    used = versions()
    described = {"figure": figure, **asdict(config), "gladient": used["gladient"], "torch": used["torch"]}
    with open_output(out, config=described, resume=resume) as output:
        run_work(works, output, workers=workers, console=console)
        finished = {work: output.load(work) for work in works}
        records = {work: found["records"] for work, found in finished.items()}
        write_rows(out / "results.csv", plan.rows(config, records))
        write_rows(out / "exact.csv", plan.curves(config, records))
        rows: list[Any] = read_rows(out / "results.csv", plan.row)
        save_figure(plan.draw(rows, read_rows(out / "exact.csv", plan.point)), out / "figure", dpi=160)
        core_seconds = sum(found["seconds"] for found in finished.values())
        write_report(
            out,
            figure=plan,
            command=f"gladient reproduce --figure {figure}{' --quick' if quick else ''} --seeds {seeds}",
            rows=rows,
            config=described,
            timing={
                "training and testing": f"{core_seconds:.0f} s of one core, summed over {len(works)} parts",
                "this invocation": f"{time.perf_counter() - begun:.0f} s with {workers} workers",
            },
        )
    return rows


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device is {device!r}, which this torch cannot use ({reason}); try cpu") from None
