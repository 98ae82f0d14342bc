"""The engine: workers, clients and schedulers that die, those started by hand, and what a run cannot do."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client
from rich.console import Console
from tiny_figure import COMMAND

from gladient.cli import main
from gladient.experiments import Outcome
from gladient.experiments.engine import cluster as engine_cluster
from gladient.experiments.engine import progress, runner
from gladient.experiments.engine.output import open_output
from gladient.experiments.engine.versions import versions
from gladient.experiments.models.register import lend
from gladient.experiments.work import OnStep

DASK = [sys.executable, "-m", "dask"]


def results(out: Path) -> bytes:
    return (out / "results.csv").read_bytes()


def wait_for(happened: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_points(out: Path, count: int = 1) -> None:
    wait_for(lambda: len(list(out.glob("points/*.json"))) >= count)


def kill_a_worker(process: subprocess.Popen[str]) -> None:
    """Kill one of the processes that train: those are busiest."""
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    max(workers, key=lambda child: sum(child.cpu_times()[:2])).kill()


def end(client: subprocess.Popen[str], out: Path, by: Callable[[], None], code: int) -> None:
    """End a run before it is done: in silence, with all its workers."""
    family = psutil.Process(client.pid).children(recursive=True)
    by()
    _, errors = client.communicate(timeout=600)
    assert client.returncode == code
    assert "Traceback" not in errors
    assert not (out / "results.csv").exists()
    assert len(list(out.glob("points/*.json"))) < 8
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_results_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    """A worker is killed, and replaced; then the client; the run that goes on is interrupted, and goes on again."""
    out = tmp_path / "out"
    own: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    client = subprocess.Popen([*COMMAND, str(out)], **own)
    wait_for_points(out)
    kill_a_worker(client)
    wait_for_points(out, 3)
    end(client, out, client.kill, -signal.SIGKILL)
    client = subprocess.Popen([*COMMAND, str(out), "--resume"], **own)
    wait_for_points(out, 5)
    end(client, out, lambda: os.killpg(client.pid, signal.SIGINT), 130)  # as a terminal does: workers get it too
    resumed = subprocess.run([*COMMAND, str(out), "--resume"], capture_output=True, text=True, check=False)
    assert resumed.returncode in (0, 1), resumed.stderr
    assert "were finished before" in resumed.stderr
    for name in ("results.csv", "exact.csv", "figure.svg", "figure.png"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name


@contextmanager
def cluster(folder: Path, workers: int, port: int = 0) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and workers as one starts them by hand, each in a folder of its own."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([*DASK, "scheduler", "--host", address, "--no-dashboard", "--no-show"], **quiet)]
    for number in range(workers):
        place = folder / f"worker-{number}"
        place.mkdir(parents=True)
        started.append(
            subprocess.Popen(
                [*DASK, "worker", address, "--nthreads", "1", "--no-dashboard"],
                cwd=place,
                **quiet,
            )
        )
    try:
        yield address, started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=60)


def busy(nanny: subprocess.Popen[bytes]) -> bool:
    """Whether a worker, or anything below it, computes."""
    try:
        family = [psutil.Process(nanny.pid), *psutil.Process(nanny.pid).children(recursive=True)]
        return sum(process.cpu_percent(0.5) for process in family) > 20
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_workers_started_by_hand_give_the_same_bits_whoever_dies(finished: Path, tmp_path: Path) -> None:
    """A nanny with its worker; the client, whose run goes on; the scheduler, which ends it in one line; a new one."""
    out = tmp_path / "out"
    with cluster(tmp_path, workers=2) as (address, started):
        command = [*COMMAND, str(out), "--scheduler", address]
        client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for_points(out)
        started[1].kill()
        wait_for_points(out, 3)
        client.kill()
        client.communicate()
        client = subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True)
        wait_for_points(out, 5)
        started[0].kill()
        _, told = client.communicate(timeout=600)
        assert client.returncode == 3
        error = told[told.index("gladient: error: ") :]
        assert f"the scheduler {address} went away" in error
        assert "--resume" in error
        assert error.count("\n") == 1
        assert "Traceback" not in told
        wait_for(lambda: not any(busy(process) for process in started[1:]))
        with cluster(tmp_path / "again", workers=1, port=int(address.rsplit(":", 1)[1])) as (again, _):
            assert again == address
            assert subprocess.run([*command, "--resume"], check=False).returncode in (0, 1)
    assert results(out) == results(finished)
    assert f"the workers of {address}" in (out / "report.html").read_text()
    assert not list((out / "checkpoints").iterdir())


def test_nothing_answers_at_the_schedulers_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_cluster, "_CONNECT_WITHIN", 1.0)
    arguments = ["reproduce", "--out", str(tmp_path / "out"), "--scheduler", "tcp://127.0.0.1:1"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "tcp://127.0.0.1:1" in error


def test_a_schedulers_address_has_a_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GLADIENT_SCHEDULER", "tcp://cluster")
    assert main(["reproduce", "--quick"]) == 2
    assert "scheduler is 'tcp://cluster'; it must be an address with a port" in capsys.readouterr().err


def test_a_worker_of_another_version_is_refused(tmp_path: Path, scheduler: str) -> None:
    with open_output(tmp_path / "out", config={"figure": "f"}, resume=False) as output, Client(scheduler) as client:
        other = {**versions(), "torch": "1.0"}
        future = client.submit(runner._do, Endless(), output, "topic", other, lend({}))
        with pytest.raises(ValueError, match=r"a worker has torch .* and the client 1\.0"):
            future.result()


def test_workers_started_here_are_locked_and_keep_their_memory() -> None:
    before = listening()
    with engine_cluster.connected(1, None) as client:
        assert client.scheduler_info()["address"].startswith("tls://127.0.0.1")
        (found,) = client.run(lambda: dict(os.environ)).values()
        assert "MALLOC_TRIM_THRESHOLD_" not in found
        assert found["OMP_NUM_THREADS"] == "1"
        (handler,) = client.run(lambda: signal.getsignal(signal.SIGINT)).values()
        assert handler == signal.SIG_IGN
        # scheduler, nanny and worker, each behind TLS; no dashboard, no /info, no /metrics
        assert len(listening() - before) == 3
        assert not client.scheduler_info()["services"]


def test_workers_that_cannot_start_are_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(workers: int) -> None:
        raise RuntimeError("Nanny failed to start.") from MemoryError()

    monkeypatch.setattr(engine_cluster, "_started", fail)
    with (
        pytest.raises(OSError, match=r"cannot start 2 worker processes \(MemoryError\), .* lack of memory"),
        engine_cluster.connected(2, None),
    ):
        pass


def listening() -> set[tuple[int, str]]:
    """Where this process and those below it can be reached."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return {
        (process.pid, str(line.laddr))
        for process in family
        for line in process.net_connections()
        if line.status == psutil.CONN_LISTEN
    }


def test_a_run_without_a_terminal_says_now_and_then_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SAY_EVERY", 0.01)
    log = io.StringIO()
    with progress.showing(Console(file=log), [Endless(), Endless(name="other")]) as bar:
        bar.advance(500.0)
        bar.finish("endless: done in 1.0 s")
        wait_for(lambda: "25% after 0.0 min; 1 of 2 parts done\n" in log.getvalue(), seconds=60)
    said = log.getvalue()
    assert "endless: done in 1.0 s\n" in said
    time.sleep(0.05)
    assert log.getvalue() == said


@dataclass(frozen=True)
class Endless:
    """Work that says where it is, until it is told to stop."""

    name: str = "endless"
    steps: int = 1000
    cost: float = 1000.0

    def run(self, scratch: Path, on_step: OnStep) -> Outcome:
        """At most 20 seconds."""
        try:
            for done in range(1, 401):
                time.sleep(0.05)
                on_step(done)
        except BaseException:
            (scratch / "stopped").touch()
            raise
        return Outcome([{"risk": 1.0}])


def test_work_that_nobody_waits_for_stops_and_keeps_its_checkpoints(tmp_path: Path) -> None:
    """As when the client of a shared scheduler is interrupted or dies; until then it reports its progress."""
    told: list[float] = []
    with (
        open_output(tmp_path / "out", config={"figure": "f"}, resume=False) as output,
        Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client,
    ):
        client.subscribe_topic("topic", lambda event: told.append(event[1]))
        future = client.submit(runner._do, Endless(), output, "topic", versions(), lend({}), key="endless")
        wait_for(lambda: len(told) > 2)
        assert 0 < sum(told) < 1000
        assert not (output.checkpoints / "endless" / "stopped").exists()
        future.release()
        wait_for(lambda: (output.checkpoints / "endless" / "stopped").exists(), seconds=5)


def test_checkpoints_go_where_the_client_will_find_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with open_output(tmp_path / "out", config={"figure": "f"}, resume=False) as output:
        assert runner._scratch(output) == output.checkpoints
        (tmp_path / "out" / "config.json").write_text("another run's")
        there = runner._scratch(output)
        assert there.is_relative_to(tmp_path / "cache" / "gladient" / "checkpoints")
        (tmp_path / "out" / "config.json").unlink()
        assert runner._scratch(output) == there
