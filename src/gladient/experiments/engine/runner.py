"""Does a figure's work on a cluster of workers: processes of this machine, or any that a Dask scheduler has."""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import torch
from distributed import Client, Future, KilledWorker, Status, as_completed, get_worker
from distributed.comm import CommClosedError
from rich.console import Console

from gladient._files import sha256, user_cache
from gladient.experiments.engine.cluster import connected
from gladient.experiments.engine.output import OutputFolder
from gladient.experiments.engine.progress import Bar, showing
from gladient.experiments.engine.versions import versions
from gladient.experiments.models.register import learn, lend, registered_in
from gladient.experiments.work import Outcome, Work

__all__ = ["SchedulerLostError", "run_work"]

_REPORT_EVERY = 0.2  # seconds between two messages of a worker to the progress bar


class SchedulerLostError(ConnectionError):
    """The scheduler went away while work was being done; what is done is kept."""

    exit_code = 3  # of the command: neither a model that misses (1) nor a mistake of whoever typed it (2)


def run_work(
    works: Sequence[Work],
    output: OutputFolder,
    *,
    workers: int,
    scheduler: str | None,
    console: Console,
    doing: str = "training",
    each: bool = True,
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
        doing: what is done, as the bar says it.
        each: whether every part that is done has a line.

    Raises:
        OSError: if the scheduler cannot be reached.
        SchedulerLostError: if it goes away.
        ValueError: if parts fail, once all others are done; or if a worker has other versions.
    """
    waiting = [work for work in works if not output.finished(work)]
    if len(waiting) < len(works):
        console.print(f"{len(works) - len(waiting)} of {len(works)} parts were finished before")
    if not waiting:
        return
    workers = min(workers, len(waiting))
    place = f"the workers of {scheduler}" if scheduler else f"{workers} worker{'s' * (workers > 1)}"
    try:
        with connected(workers, scheduler) as client, showing(console, waiting, doing, each=each) as bar:
            console.print(f"{doing} {len(waiting)} part{'s' * (len(waiting) > 1)} on {place}")
            if not client.scheduler_info()["workers"]:
                console.print(f"{scheduler} has no workers yet; the work starts when one joins")
            failed = _do_all(waiting, output, client, bar)
    except (CancelledError, CommClosedError) as error:
        raise SchedulerLostError(
            f"the scheduler {scheduler} went away ({type(error).__name__}); what is done is kept: start a scheduler "
            "and workers again, and --resume"
        ) from None
    if failed:
        others = f" ({len(failed) - 1} more of {len(works)} parts failed too)" if len(failed) > 1 else ""
        raise ValueError(f"{failed[0]}{others}; all other parts are done: --resume does what is left")


def _do_all(works: Sequence[Work], output: OutputFolder, client: Client, bar: Bar) -> list[str]:
    """Have all parts done and keep them; what is wrong with those that cannot be done."""
    topic, used, failed = f"gladient-{uuid4().hex}", versions(), []
    own = lend(registered_in(works))
    client.subscribe_topic(topic, lambda event: bar.advance(event[1]))
    futures = {
        client.submit(_do, work, output, topic, used, own, key=(topic, work.name), priority=work.cost): work
        for work in works
    }
    for future in as_completed(futures):
        work = futures.pop(future)
        try:
            outcome, seconds = _result(future, work)
        except ValueError as error:  # of this part, such as a damaged checkpoint: the others can be done
            failed.append(str(error))
            continue
        output.save(work, outcome, seconds=seconds)
        bar.finish(f"{work.name}: done in {seconds:.1f} s")
    return failed


def _result(future: "Future[Any]", work: Work) -> tuple[Outcome, float]:
    try:
        return cast(tuple[Outcome, float], future.result())
    except KilledWorker:
        raise ValueError(
            f"{work.name} was lost with several workers, one after another, probably for lack of memory; "
            "use fewer --workers, or larger machines"
        ) from None


class _Unwanted(Exception):  # noqa: N818  (no error: the client is gone, or has all that it wants)
    pass


def _do(work: Work, output: OutputFolder, topic: str, expected: dict[str, str], own: bytes) -> tuple[Outcome, float]:
    """Do one part on this worker; its outcome, and how many seconds it took."""
    _check_versions(expected)
    learn(own)
    torch.set_num_threads(1)
    worker, scratch = get_worker(), _scratch(output) / work.name
    key, begun, reported, told = worker.get_current_task(), time.perf_counter(), 0.0, 0

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        ended = worker.status in (Status.closing, Status.closed, Status.failed)  # as when its scheduler is gone
        return task is not None and task.state == "executing" and not ended

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
