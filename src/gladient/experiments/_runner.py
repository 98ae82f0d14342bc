"""Does a figure's work in worker processes; what is finished stays finished."""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_process
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gladient.experiments._output import OutputFolder
from gladient.experiments._work import Work

__all__ = ["run_work"]

_REPORT_EVERY = 10  # steps between two messages to the progress bar


@dataclass(frozen=True)
class _Channel:
    """How a worker speaks to its parent."""

    steps: Any  # queue of the cost of what was done
    stop: Any  # event: the parent wants to end


class _Stopped(Exception):  # noqa: N818  (no error: the worker was asked to end)
    pass


_channel: _Channel


def run_work(works: Sequence[Work], output: OutputFolder, *, workers: int, console: Console) -> None:
    """Do the work that is not finished yet, longest first, each in a process with one thread.

    One thread a process makes results independent of the number of workers. When the parent is interrupted the
    workers stop at their next step; when it is killed they end with it. Either way checkpoints stay.
    """
    waiting = [work for work in works if not output.finished(work)]
    if len(waiting) < len(works):
        console.print(f"{len(works) - len(waiting)} of {len(works)} parts were finished before")
    if not waiting:
        return
    context = multiprocessing.get_context("spawn")
    channel = _Channel(steps=context.Queue(), stop=context.Event())
    with (
        _progress(console) as progress,
        ProcessPoolExecutor(min(workers, len(waiting)), context, _start_worker, (channel,)) as pool,
    ):
        bar = progress.add_task("training", total=sum(map(_cost, waiting)), done=0, parts=len(waiting))
        futures = {pool.submit(_do, work, output): work for work in sorted(waiting, key=_cost, reverse=True)}
        try:
            _follow(futures, channel, progress, bar)
            progress.update(bar, completed=progress.tasks[bar].total)  # steps of a checkpoint were not counted
        except BaseException:
            channel.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _follow(futures: dict[Future[float], Work], channel: _Channel, progress: Progress, bar: Any) -> None:
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
        while True:
            try:
                progress.advance(bar, channel.steps.get_nowait())
            except queue.Empty:
                break
        for future in finished:
            seconds = future.result()
            progress.update(bar, done=len(futures) - len(pending))
            progress.console.print(f"{futures[future].name}: done in {seconds:.1f} s")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description} {task.fields[done]}/{task.fields[parts]} parts"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _cost(work: Work) -> float:
    return work.cost


def _start_worker(channel: _Channel) -> None:
    global _channel
    _channel = channel
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a terminal sends Ctrl-C to all
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_process([sentinel])
    os._exit(1)


def _do(work: Work, output: OutputFolder) -> float:
    share = work.cost / work.steps
    begun = time.perf_counter()

    def on_step(done: int) -> None:
        if _channel.stop.is_set():
            raise _Stopped
        if done % _REPORT_EVERY == 0:
            _channel.steps.put(share * _REPORT_EVERY)

    records = work.run(checkpoint=output.checkpoint(work), weights=output.weights(work), on_step=on_step)
    seconds = time.perf_counter() - begun
    output.save(work, records, seconds=seconds)
    return seconds
