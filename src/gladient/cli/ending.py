"""How a command ends: an exit code, and at most one line about what went wrong."""

import contextlib
import io
import os
import re
import select
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby

from gladient._text import printable

__all__ = ["EXIT_CODES", "end_well", "errors_in_one_line"]

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
_FRAME = re.compile(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]")


def end_well(work: Callable[[], int]) -> int:
    """Exit code of `work`: its own, or that of `EXIT_CODES` for how it ended, with one line about an error.

    Errors of other kinds (KeyError, TypeError …) are bugs, and keep their traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # an encoding without γ gets \u03b3, which JSON reads as γ
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return work()
        finally:
            if sys.stdout is not None:
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


@contextlib.contextmanager
def errors_in_one_line(arguments: Sequence[str], commands: Collection[str]) -> Iterator[None]:
    """What tyro says about bad options in a box of several lines, in one line as all other errors."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            yield
    except SystemExit as stopped:
        if stopped.code:
            known = " ".join(["gladient", *(name for name in arguments[:1] if name in commands)])
            _say(f"error: {_message(box.getvalue(), arguments)}; see {known} --help", 2)
        raise


def _message(box: str, arguments: Sequence[str]) -> str:
    """The first part of the box without its title, and what the other parts propose."""
    rows = [_FRAME.sub("", row).rstrip() for row in box.splitlines()[1:]]
    parts = ["\n".join(part) for rule, part in groupby(rows, lambda row: not row.strip("- ")) if not rule]
    message = " ".join(parts[0].split()).rstrip(".") if parts else "bad options"
    for part in parts[1:]:
        if part.strip().startswith("Available"):
            message += f"; {' '.join(part.split())}"
        if part.strip().startswith("Perhaps you meant"):
            # Option names stand 4 to 6 columns in, what explains them farther.
            near = dict.fromkeys(re.findall(r"^ {4,6}(--[\w-]+)", part, re.MULTILINE))
            message += "".join(f"; perhaps {name}" for name in near if name not in arguments)
    return message


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
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
