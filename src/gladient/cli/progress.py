"""How far a command is, on standard error of a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gladient._text import printable

__all__ = ["Report", "progress", "reporting"]

Report = Callable[[str, int, int], None]
"""Told a task's name, what is done of it, and all of it."""


@contextmanager
def progress(what: str, steps: int) -> Iterator[Callable[[], None]]:
    """A bar of so many steps, and what to call after each; nothing where standard error is no terminal.

    >>> with progress("prompts", 2) as done:
    ...     done()
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(what), total=steps)
        yield lambda: bar.advance(task)


@contextmanager
def reporting() -> Iterator[Report]:
    """Bars on stderr, one per task, where it is a terminal; else one line per task."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def report(name: str, done: int, of: int) -> None:
            if name not in tasks:
                shown = printable(name)
                tasks[name] = progress.add_task(escape(shown), total=of)
                if not console.is_terminal:
                    print(f"{shown} …", file=sys.stderr, flush=True)
            progress.update(tasks[name], completed=done)

        yield report
