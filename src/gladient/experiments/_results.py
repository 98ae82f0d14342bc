"""From the records of a figure's work to the rows of results.csv."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from gladient._files import write_atomically
from gladient.experiments._work import Record

__all__ = ["GAP_BOUND", "Z_BOUND", "ExactPoint", "Row", "read_rows", "summarise", "write_rows"]

GAP_BOUND, Z_BOUND = 0.02, 3.0


@dataclass(frozen=True)
class Row:
    """One point of a figure; risks are divided by d.

    Attributes:
        figure, panel, n, model: which point; n counts all examples of the prompt.
        risk: mean over the seeds of the risk on fresh prompts.
        standard_error: of that mean: test error, and the spread between seeds where that is larger.
        seeds: training runs.
        exact: the exact risk that theory gives.
        gap: risk / exact - 1.
        z: (risk - exact) / standard_error.
    """

    figure: str
    panel: str
    n: int
    model: str
    risk: float
    standard_error: float
    seeds: int
    exact: float
    gap: float
    z: float

    @property
    def hit(self) -> bool:
        """Whether the point lies within 2% or 3 standard errors of its exact value."""
        return abs(self.gap) <= GAP_BOUND or abs(self.z) <= Z_BOUND


@dataclass(frozen=True)
class ExactPoint:
    """A point of an exact curve; the risk is divided by d."""

    panel: str
    n: int
    curve: str
    risk: float


_T = TypeVar("_T")


def summarise(records: Sequence[Record], *, figure: str, panel: str, n: int, model: str, exact: float) -> Row:
    """One row from the records of a point's seeds.

    The variance of a seed's test risk is its test error's plus that between seeds; the larger of the mean test error
    and the variance seen between seeds estimates it.

    >>> runs = [{"risk": 1.0, "standard_error": 0.1}, {"risk": 1.2, "standard_error": 0.1}]
    >>> row = summarise(runs, figure="f", panel="p", n=2, model="m", exact=1.0)
    >>> round(row.risk, 3), round(row.standard_error, 3), round(row.z, 3)
    (1.1, 0.1, 1.0)
    """
    risks = np.array([record["risk"] for record in records])
    errors = np.array([record["standard_error"] for record in records])
    between = float(np.var(risks, ddof=1)) if len(risks) > 1 else 0.0
    error = float(np.sqrt(max(float(np.mean(errors**2)), between) / len(risks)))
    risk = float(risks.mean())
    return Row(figure, panel, n, model, risk, error, len(risks), exact, gap=risk / exact - 1, z=(risk - exact) / error)


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    """Write a CSV with one column a field, numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(rows[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_atomically(path, text.getvalue())


def read_rows(path: Path, kind: type[_T]) -> list[_T]:
    """Read what `write_rows` wrote."""
    with path.open(newline="") as file:
        return [_typed(kind, record) for record in csv.DictReader(file)]


def _typed(kind: type[_T], record: dict[str, str]) -> _T:
    types: Iterable[tuple[str, Any]] = ((field.name, field.type) for field in fields(cast(Any, kind)))
    return kind(**{name: read(record[name]) for name, read in types})
