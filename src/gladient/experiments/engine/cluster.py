"""Workers: processes of this machine that end with the client, or those of a Dask scheduler."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
from distributed.security import Security

__all__ = ["connected"]

_CONNECT_WITHIN = 10.0  # seconds
# Without MALLOC_TRIM_THRESHOLD_, by which Dask makes workers return freed memory that the next step asks for again.
_ENVIRONMENT = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), 1)
# A terminal sends Ctrl-C to all its processes; the client alone decides what becomes of it.
_DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no SIGKILL; there SIGTERM ends a process at once


class _Scheduler(Scheduler):
    """Without the HTTP server, whose /info and /metrics answer every user of the machine."""

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """Starts none."""


class _Worker(Worker):
    """The same of a worker."""

    def start_http_server(self, *args: Any, **options: Any) -> None:
        """Starts none."""


@contextmanager
def connected(workers: int, scheduler: str | None) -> Iterator[Client]:
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
        _safe_path(),
        _cluster(workers) as cluster,
        Client(cluster) as client,
    ):
        try:
            yield client
        finally:
            for nanny in cluster.workers.values():  # asked to end, a worker would finish its step, or its test, first
                nanny.auto_restart = False
                os.kill(nanny.pid, _KILL)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keeps the current folder out of the search path of new processes, where a file random.py would be run."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        os.environ |= {"PYTHONSAFEPATH": before} if before is not None else {}


def _cluster(workers: int) -> SpecCluster:
    try:
        return _started(workers)
    except (RuntimeError, OSError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ChildProcessError(
            f"cannot start {workers} worker process{'es' * (workers > 1)} ({str(cause) or type(cause).__name__}), most "
            "likely for lack of memory: see ulimit -v and what else runs here; use fewer --workers, and --resume"
        ) from None


def _started(workers: int) -> SpecCluster:
    own: dict[str, Any] = {
        "host": "127.0.0.1",
        "protocol": "tls://",
        "security": Security.temporary(),  # other users of this machine are kept out
        "dashboard": False,
    }
    each = {"nthreads": 1, "memory_limit": 0, "preload": _DEAF, "worker_class": _Worker}
    nanny = {"cls": Nanny, "options": {**own, **each, "silence_logs": logging.CRITICAL}}
    return SpecCluster(
        workers=dict.fromkeys(range(workers), nanny),
        scheduler={"cls": _Scheduler, "options": own},
        security=own["security"],
        silence_logs=logging.CRITICAL,
    )
