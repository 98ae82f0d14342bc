"""How far a command is, on standard error of a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]


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
