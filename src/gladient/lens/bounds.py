"""Work on files of strangers, in bounded time and memory: what it does to its process ends there."""

import faulthandler
import json
import os
import select
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["BoundsError", "in_child", "in_memory"]

# Far more than honest files ask for: 48 layers of Qwen3-Next are laid out in 0.3 s of CPU.
_SECONDS = 30  # of CPU, so that a busy machine changes nothing; the clock ends what does not even compute
_CLOCK = 600
_BYTES = 2**32
_ANSWER = 2**26


class BoundsError(ValueError):
    """Work that failed in its process, or took more than it may."""


def in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns, a JSON value, computed by a child of this process.

    A thread would not do: a regular expression in native code cannot be stopped, nor its memory be bounded. The child
    is a fork, as transformers takes seconds to import; it computes with no tensors, whose threads a fork lacks. Systems
    without fork do the work in their own process, without bounds.

    Raises:
        BoundsError: if the work fails, with the type and text of its error, or takes more than 30 s of CPU or 4 GiB.

    >>> in_child(lambda: [1, 2])
    [1, 2]
    >>> in_child(lambda: 1 / 0)
    Traceback (most recent call last):
    gladient.lens.bounds.BoundsError: ZeroDivisionError: division by zero
    """
    found = _fork(work) if hasattr(os, "fork") else _answer(work)
    if "error" in found:
        raise BoundsError(found["error"])
    return found["found"]


def _fork(work: Callable[[], Any]) -> dict[str, Any]:
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads: the child waits for none of them
        child = os.fork()
    if child == 0:
        _work(work, write)
    os.close(write)
    try:
        answer = _read(read)
    finally:
        os.close(read)
        with suppress(ProcessLookupError):
            os.kill(child, 9)
        os.waitpid(child, 0)
    if not answer:
        return {"error": f"it took more than {_SECONDS} s of CPU or {_BYTES / 2**30:.0f} GiB of memory, or crashed"}
    found: dict[str, Any] = json.loads(answer)
    return found


def _read(pipe: int) -> bytes:
    """All that the child says; nothing if it does not end in time."""
    parts: list[bytes] = []
    while select.select([pipe], [], [], _CLOCK)[0]:
        part = os.read(pipe, 2**20)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""


def _work(work: Callable[[], Any], pipe: int) -> NoReturn:
    """In the child: nothing of it reaches the terminal, and no handler of the parent's runs at its end."""
    try:
        faulthandler.disable()  # its end is told by the parent
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        _limit()
        text = json.dumps(_answer(work)).encode()
        if len(text) > _ANSWER:
            text = json.dumps({"error": f"more than {_ANSWER / 2**20:.0f} MiB came out of it"}).encode()
        while text:
            text = text[os.write(pipe, text) :]
    finally:
        os._exit(0)


def _answer(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"found": work()}
    except BaseException as error:  # a panic of Rust is no Exception
        return {"error": f"{type(error).__name__}: {error}"[:1000]}


def _limit() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    if now := _address_space():
        resource.setrlimit(resource.RLIMIT_AS, (now + _BYTES, now + _BYTES))


def _address_space() -> int:
    """Bytes of this process' address space; 0 where the system does not tell, as outside of Linux."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@contextmanager
def in_memory(files: int) -> Iterator[None]:
    """While it lasts, memory that the machine does not have is refused by an error, not by killing some process.

    Args:
        files: bytes of the files that are mapped besides, which take no memory of their own.
    """
    now, free = _address_space(), _available()
    if not now or not free:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + free + files
    allowed = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([wanted, *allowed]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _available() -> int:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
