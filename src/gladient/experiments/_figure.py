"""What a figure is: a module of this folder defines one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Picture

from gladient.experiments._results import ExactPoint, Row
from gladient.experiments._work import Record, Work

__all__ = ["Column", "Figure"]


@dataclass(frozen=True)
class Column:
    """A column of the report's table.

    Attributes:
        name: the row's attribute.
        header: what stands above it; the name if not given.
        form: how a value is printed, as `format` takes it.
    """

    name: str
    header: str = ""
    form: str = ""

    def text(self, row: Any) -> str:
        """The row's value as it is printed."""
        return format(getattr(row, self.name), self.form)


@dataclass(frozen=True)
class Figure:
    """A figure of trained models beside the theory.

    Attributes:
        name: what `gladient reproduce --figure` takes.
        title, abstract: the head of its report.
        claim: what a judged row shows, after "12 of 12".
        note: how to read the table; what a row has to keep for the claim.
        columns: of the table.
        make_config: the config for `quick`, `seeds` and `device`; a frozen dataclass of JSON values.
        work: the work of a config, each unit by itself.
        rows: the rows of results.csv for a config and the records of its work.
        curves: the rows of exact.csv: what is drawn beside them.
        draw: the picture of both, read from their files.
        judge: whether a row keeps the claim; None if it claims nothing.
        summary: further lines about the judged rows.
        row, point: the frozen dataclasses of the two files, with fields of type str, int or float.
        seeds: training runs a point, unless told.
    """

    name: str
    title: str
    abstract: str
    claim: str
    note: str
    columns: tuple[Column, ...]
    make_config: Callable[..., Any]
    work: Callable[[Any], Sequence[Work]]
    rows: Callable[[Any, Mapping[Any, Sequence[Record]]], Sequence[Any]]
    curves: Callable[[Any, Mapping[Any, Sequence[Record]]], Sequence[Any]]
    draw: Callable[[Sequence[Any], Sequence[Any]], Picture]
    judge: Callable[[Any], bool | None]
    summary: Callable[[Sequence[Any]], list[str]] = lambda rows: []
    row: type = Row
    point: type = ExactPoint
    seeds: int = 1

    def verdict(self, rows: Sequence[Any]) -> str:
        """How many rows keep the claim."""
        judged = self.judged(rows)
        return f"{len(judged) - len(self.missed(rows))} of {len(judged)} {self.claim}"

    def judged(self, rows: Sequence[Any]) -> list[Any]:
        """The rows that claim something."""
        return [row for row in rows if self.judge(row) is not None]

    def missed(self, rows: Sequence[Any]) -> list[Any]:
        """The rows that do not keep their claim."""
        return [row for row in rows if self.judge(row) is False]

    def describe(self, row: Any) -> str:
        """A row in one line."""
        return ", ".join(f"{column.header or column.name} {column.text(row)}" for column in self.columns)
