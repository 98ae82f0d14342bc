"""The multitask figure in a minute size, made once; and a scheduler for what tests no process."""

from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import LocalCluster
from tiny_figure import Tiny

from gladient.experiments import make


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """Its address; its worker is a thread of this process, since one of its own takes seconds to import torch."""
    options = {"protocol": "tcp://", "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "processes": False}
    quiet = {"distributed.worker.profile.enabled": False}  # it would look at every thread 100 times a second
    with dask.config.set(quiet), LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def _here(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands train in this process."""
    monkeypatch.setenv("GLADIENT_SCHEDULER", scheduler)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """Its folder."""
    out = tmp_path_factory.mktemp("tiny") / "out"
    config = Tiny().config(quick=False, seeds=None, device="cpu")
    make(Tiny(), config, out, command="test", scheduler=scheduler)
    return out
