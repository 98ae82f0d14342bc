"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from gladient.experiments.work import Work

__all__ = ["Bar", "showing"]

_SAY_EVERY = 60.0  # seconds between two lines: an hour of a log is one page


@dataclass(frozen=True)
class Bar:
    """The bar of one run.

    Args:
        progress: what draws it.
        task: its number there.
        each: whether parts that are done have lines.
    """

    progress: Progress
    task: TaskID
    each: bool

    def advance(self, cost: float) -> None:
        """So much work was done."""
        self.progress.advance(self.task, cost)

    def finish(self, line: str) -> None:
        """A part is done; `line` says so."""
        self.progress.update(self.task, done=self.progress.tasks[0].fields["done"] + 1)
        if self.each:
            self.progress.console.print(line)

    def line(self) -> str:
        """Where it stands, in words."""
        task = self.progress.tasks[0]
        parts = f"{task.fields['done']} of {task.fields['parts']} parts done"
        return f"{task.percentage:.0f}% after {(task.elapsed or 0.0) / 60:.1f} min; {parts}"


@contextmanager
def showing(console: Console, works: Sequence[Work], doing: str = "training", *, each: bool = True) -> Iterator[Bar]:
    """The bar of a run, full when it ends well; where there is no terminal, its line at every `_SAY_EVERY`."""
    columns = (
        TextColumn("{task.description} {task.fields[done]}/{task.fields[parts]} parts"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        total = sum(work.cost for work in works)
        bar = Bar(progress, progress.add_task(doing, total=total, done=0, parts=len(works)), each)
        with _saying(bar, console):
            yield bar
        progress.update(bar.task, completed=progress.tasks[0].total)  # steps of a checkpoint were not counted


@contextmanager
def _saying(bar: Bar, console: Console) -> Iterator[None]:
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(_SAY_EVERY):
            console.print(bar.line())

    if console.is_terminal:
        yield
        return
    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
