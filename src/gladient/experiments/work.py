"""The unit of work of a figure: what one process does from start to end, and what is kept of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

__all__ = ["OnStep", "Outcome", "Measurement", "Work"]

Measurement = dict[str, Any]
"""JSON values: what a figure's rows are made from."""
OnStep = Callable[[int], None]


@dataclass(frozen=True)
class Outcome:
    """What finished work leaves.

    Attributes:
        measurements: JSON values. One with a true `diverged` has no numbers that count, and is kept out of the rows.
        weights: contents of safetensors files with trained parameters, by the files' names without suffix.
    """

    measurements: list[Measurement]
    weights: Mapping[str, bytes] = field(default_factory=dict)


@runtime_checkable
class Work(Protocol):
    """A frozen dataclass of JSON values that decide its outcome: a stack of models to train, an algorithm to optimise.

    It is hashed, sent to a worker, written beside its measurements and compared when they are read again.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """What its files are called; no two units of a figure share it."""

    @property
    def steps(self) -> int:
        """How many times `run` calls `on_step`."""

    @property
    def cost(self) -> float:
        """What its time is about proportional to, in a unit that all work of the figure shares."""

    def run(self, scratch: Path, on_step: OnStep) -> Outcome:
        """Do it on this thread; the same outcome each time.

        Args:
            scratch: a folder of its own where unfinished work is kept, and resumed from.
            on_step: to be called with the number of steps done after each; it raises when the work is to stop.
        """
