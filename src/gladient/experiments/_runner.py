"""Does a figure's work on a cluster of workers: processes of this machine, or any that a Dask scheduler has."""

import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker
from distributed.security import Security
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gladient._files import sha256, user_cache
from gladient.experiments._output import OutputFolder
from gladient.experiments._versions import versions
from gladient.experiments._work import Outcome, Work

__all__ = ["run_work"]

_REPORT_EVERY = 0.2  # seconds between two messages of a worker to the progress bar
_CONNECT_WITHIN = 10.0  # seconds
# Dask also has its workers hand freed memory back at once, which a training step asks for again.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)
# A terminal sends Ctrl-C to all its processes; the client alone decides what becomes of it.
_DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


def run_work(
    works: Sequence[Work], output: OutputFolder, *, workers: int, scheduler: str | None, console: Console
) -> None:
    """Do the work that is not finished yet, longest first, one thread each, and save each part as it is done.

    One thread makes results independent of the number of workers. Work that a dying worker leaves is done again by
    another. When the client is interrupted or killed, workers stop at their next step; checkpoints stay.

    Args:
        works: what is to be done.
        output: where it is kept.
        workers: processes of this machine.
        scheduler: the address of a Dask scheduler, whose workers do the work instead.
        console: where progress is shown.

    Raises:
        OSError: if the scheduler cannot be reached.
        ValueError: if a part fails, or a worker has other versions.
    """
    waiting = [work for work in works if not output.finished(work)]
    if len(waiting) < len(works):
        console.print(f"{len(works) - len(waiting)} of {len(works)} parts were finished before")
    if not waiting:
        return
    topic = f"gladient-{uuid4().hex}"
    with _client(min(workers, len(waiting)), scheduler) as client, _progress(console) as progress:
        bar = progress.add_task("training", total=sum(work.cost for work in waiting), done=0, parts=len(waiting))
        client.subscribe_topic(topic, lambda event: progress.advance(bar, event[1]))
        if not client.scheduler_info()["workers"]:
            console.print(f"{scheduler} has no workers yet; the work starts when one joins")
        used = versions()
        futures = {
            client.submit(_do, work, output, topic, used, key=(topic, work.name), priority=work.cost): work
            for work in waiting
        }
        for done, future in enumerate(as_completed(futures), start=1):
            work = futures.pop(future)
            outcome, seconds = _result(future, work)
            output.save(work, outcome, seconds=seconds)
            progress.update(bar, done=done)
            console.print(f"{work.name}: done in {seconds:.1f} s")
        progress.update(bar, completed=progress.tasks[bar].total)  # steps of a checkpoint were not counted


def _result(future: Future, work: Work) -> tuple[Outcome, float]:
    try:
        return cast(tuple[Outcome, float], future.result())
    except KilledWorker:
        raise ValueError(
            f"{work.name} was lost with several workers, one after another, probably for lack of memory; "
            "use fewer --workers, or larger machines, and --resume"
        ) from None


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of the scheduler, or of workers started here that end with it.

    Dask's own messages are turned off for the rest of the process: they come late, from threads that see the
    connections close, and what goes wrong is raised as well.
    """
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        with Client(scheduler, timeout=_CONNECT_WITHIN) as client:
            yield client
        return
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": _ENVIRONMENT}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            security=Security.temporary(),  # other users of this machine are kept out
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            preload=_DEAF,
        ) as cluster,
        Client(cluster) as client,
    ):
        try:
            yield client
        finally:
            for nanny in cluster.workers.values():  # asked to end, a worker would finish its step, or its test, first
                nanny.auto_restart = False
                os.kill(nanny.pid, signal.SIGKILL)


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


class _Unwanted(Exception):  # noqa: N818  (no error: the client is gone, or has all that it wants)
    pass


def _do(work: Work, output: OutputFolder, topic: str, expected: dict[str, str]) -> tuple[Outcome, float]:
    """Do one part on this worker; its outcome, and how many seconds it took."""
    _check_versions(expected)
    torch.set_num_threads(1)
    worker, scratch = get_worker(), _scratch(output) / work.name
    key, begun, reported, told = worker.get_current_task(), time.perf_counter(), 0.0, 0

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state == "executing"

    def on_step(done: int) -> None:
        nonlocal reported, told
        if not wanted():
            raise _Unwanted
        if time.perf_counter() - reported > _REPORT_EVERY:
            worker.log_event(topic, work.cost * (done - told) / work.steps)
            reported, told = time.perf_counter(), done

    scratch.mkdir(parents=True, exist_ok=True)
    outcome = work.run(scratch, on_step)
    if wanted():
        shutil.rmtree(scratch)
    return outcome, time.perf_counter() - begun


def _scratch(output: OutputFolder) -> Path:
    """Where checkpoints go: the client's folder where this machine sees it, else the cache of this machine's user."""
    config = output.path / "config.json"
    try:
        if sha256(config.read_bytes()) == output.config:
            return output.checkpoints
    except OSError:
        pass
    run = sha256(f"{output.path} {output.config}".encode())[:16]
    return user_cache() / "checkpoints" / run


def _check_versions(expected: dict[str, str]) -> None:
    found = versions()
    for name in ("gladient", "torch", "numpy", "scipy"):
        if found[name] != expected[name]:
            raise ValueError(
                f"a worker has {name} {found[name]} and the client {expected[name]}; "
                "results would depend on where they were computed: install the same versions"
            )
