"""How a command ends: an exit code, and at most one line about what went wrong."""

import io
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

from gladient._text import printable

__all__ = ["EXIT_CODES", "end_well"]

EXIT_CODES = {
    0: "done, and what the command checks holds",
    1: "done, but a check failed: a model missed its exact risk, is undecided or diverged, a layer was not rebuilt; or "
    "nobody read what was printed",
    2: "an error, told in one line: options, files, memory, a full disk",
    3: "the scheduler of --scheduler went away; --resume goes on",
    130: "interrupted by Ctrl-C; --resume goes on",
}
"""What the exit code of a command says."""

_LONGEST = 1000  # characters of an error, a dozen rows of a terminal: some quote a whole file or matrix


def end_well(work: Callable[[], int]) -> int:
    """Exit code of `work`: its own, or that of `EXIT_CODES` for how it ended, with one line about an error.

    Errors of other kinds (KeyError, TypeError …) are bugs, and keep their traceback.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us; libraries ask it for its encoding
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # an encoding without γ gets \u03b3, which JSON reads as γ
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()  # now, while an error can still be told
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return 1  # as Python's manual has it; 0 would say that a figure keeps its claim, though nobody saw it
        if os.environ.get("GLADIENT_TRACEBACK"):
            raise
        name, told = type(error).__name__, str(error)
        if isinstance(error, RuntimeError | MemoryError):
            return _say(f"error: {name}: {told} (GLADIENT_TRACEBACK=1 shows where)", 2)
        return _say(f"error: {told or name}", getattr(error, "exit_code", 2))
    finally:
        _let_go_of_stdout()


def _say(message: str, code: int) -> int:
    line = printable(" ".join(message.split()))  # messages quote files, whose text may drive a terminal
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    print(f"gladient: {line}", file=sys.stderr)
    return code


def _reader_left() -> bool:
    """Whether it is standard output whose pipe is broken: other pipes lead to worker processes."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, AttributeError):  # not a file at all, or a system without poll
        return False
    return bool(poll.poll(0))


def _let_go_of_stdout() -> None:
    """What cannot be written now cannot be written at exit either, where Python would complain a second time."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
