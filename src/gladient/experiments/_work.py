"""The unit of work of a figure: what one process does from start to end and what is kept of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

__all__ = ["Record", "Work"]

Record = dict[str, Any]  # JSON values; what the figure's rows are made from


@runtime_checkable
class Work(Protocol):
    """A frozen dataclass of JSON values that decide its records: a stack of models to train, an algorithm to optimise.

    It is hashed, sent to a worker process, written beside its records and compared when they are read again.
    """

    @property
    def name(self) -> str:
        """What its files are called; no two units of a figure share it."""

    @property
    def steps(self) -> int:
        """How many times `run` calls `on_step`."""

    @property
    def cost(self) -> float:
        """What its time is about proportional to, in a unit that all work of the figure shares."""

    def run(self, *, checkpoint: Path, weights: Path, on_step: Callable[[int], None]) -> list[Record]:
        """Do it in this process; the same records each time.

        Args:
            checkpoint: where unfinished work is kept; a file that is already there is resumed from.
            weights: where trained parameters are kept.
            on_step: to be called with the number of steps done after each; it raises when the work is to stop.
        """
