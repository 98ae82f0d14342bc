"""Makes a figure from its module: config, stacks, results, picture, report."""

import time
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from gladient._files import save_figure
from gladient.experiments import multitask
from gladient.experiments._figure import Figure
from gladient.experiments._output import open_output
from gladient.experiments._report import versions, write_report
from gladient.experiments._results import ExactPoint, Row, read_rows, write_rows
from gladient.experiments._runner import run_stacks

__all__ = ["FIGURES", "reproduce"]

FIGURES: dict[str, Figure] = {figure.name: figure for figure in (multitask.FIGURE,)}


def reproduce(
    figure: str,
    *,
    out: Path,
    quick: bool = False,
    seeds: int = 1,
    resume: bool = False,
    workers: int = 1,
    device: str = "cpu",
    console: Console | None = None,
) -> list[Row]:
    """Train a figure's models, draw them over the exact theory, and write a report.

    Args:
        figure: a name in `FIGURES`.
        out: the folder to write to.
        quick: fewer prompt lengths.
        seeds: training runs a point.
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
    config = plan.make_config(quick=quick, seeds=seeds, device=device)
    stacks = plan.stacks(config)
    used = versions()
    described = {"figure": figure, **asdict(config), "gladient": used["gladient"], "torch": used["torch"]}
    with open_output(out, config=described, resume=resume) as output:
        run_stacks(stacks, output, workers=workers, console=console)
        finished = {stack: output.load(stack) for stack in stacks}
        write_rows(
            out / "results.csv", plan.rows(config, {stack: found["records"] for stack, found in finished.items()})
        )
        write_rows(out / "exact.csv", plan.exact_curves(config))
        rows = read_rows(out / "results.csv", Row)
        save_figure(plan.draw(rows, read_rows(out / "exact.csv", ExactPoint)), out / "figure", dpi=160)
        core_seconds = sum(found["seconds"] for found in finished.values())
        write_report(
            out,
            figure=plan,
            command=f"gladient reproduce --figure {figure}{' --quick' if quick else ''} --seeds {seeds}",
            rows=rows,
            config=described,
            timing={
                "training and testing": f"{core_seconds:.0f} s of one core, summed over {len(stacks)} stacks",
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
