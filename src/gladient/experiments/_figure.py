"""What a figure is: a module of this folder defines one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Picture

from gladient.experiments._results import ExactPoint, Row
from gladient.experiments._stacks import Record, Stack

__all__ = ["Figure"]


@dataclass(frozen=True)
class Figure:
    """A figure of trained models over exact theory.

    Attributes:
        name: what `gladient reproduce --figure` takes.
        title, abstract: the head of its report.
        unjudged: models whose exact value is drawn for comparison, without a claim that they reach it.
        make_config: the config for `quick`, `seeds` and `device`; a frozen dataclass.
        stacks: the work of a config.
        rows: results of a config from the records of its finished stacks.
        exact_curves: the exact curves of a config.
        draw: the picture of rows and exact curves.
    """

    name: str
    title: str
    abstract: str
    unjudged: tuple[str, ...]
    make_config: Callable[..., Any]
    stacks: Callable[[Any], list[Stack]]
    rows: Callable[[Any, Mapping[Stack, Sequence[Record]]], list[Row]]
    exact_curves: Callable[[Any], list[ExactPoint]]
    draw: Callable[[Sequence[Row], Sequence[ExactPoint]], Picture]

    def judged(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that claim to reach their exact value."""
        return [row for row in rows if row.model not in self.unjudged]
