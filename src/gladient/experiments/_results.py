"""From the records of a figure's work to the rows of results.csv."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from gladient._files import write_atomically
from gladient.experiments._work import Record

__all__ = [
    "GAP_BOUND",
    "Z_BOUND",
    "ExactPoint",
    "Row",
    "largest_misses",
    "mean_risk",
    "read_rows",
    "reached",
    "summarise",
    "write_rows",
]

GAP_BOUND, Z_BOUND = 0.02, 3.0


@dataclass(frozen=True)
class Row:
    """One point of a figure; risks are divided by d.

    Attributes:
        figure, panel, n, model: which point; n counts all examples of the prompt.
        risk: mean over the seeds of the risk on fresh prompts.
        standard_error: standard error of that mean: test error, and the spread between seeds where that is larger.
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


def reached(gap: float, z: float) -> bool:
    """Whether a model reaches its exact risk, within 2% or 3 standard errors, or lies below it.

    >>> reached(-0.3, -9.0), reached(0.01, 9.0), reached(0.05, 2.0), reached(0.05, 9.0)
    (True, True, True, False)
    """
    return gap <= GAP_BOUND or z <= Z_BOUND


def largest_misses(rows: Sequence[Row]) -> str:
    """The largest gap and z of a figure's rows, in one line."""
    gap, z = (max((abs(getattr(row, name)) for row in rows), default=0.0) for name in ("gap", "z"))
    return f"largest |gap| {gap:.2%}, largest |z| {z:.1f}"


T = TypeVar("T")


def summarise(records: Sequence[Record], *, figure: str, panel: str, n: int, model: str, exact: float) -> Row:
    """One row from the records of a point's seeds; see `mean_risk`.

    >>> runs = [{"risk": 1.0, "standard_error": 0.1}, {"risk": 1.2, "standard_error": 0.1}]
    >>> row = summarise(runs, figure="f", panel="p", n=2, model="m", exact=1.0)
    >>> round(row.risk, 3), round(row.standard_error, 3), round(row.z, 3)
    (1.1, 0.1, 1.0)
    """
    risk, error = mean_risk([(record["risk"], record["standard_error"]) for record in records])
    gap, z = risk / exact - 1, (risk - exact) / error
    return Row(figure, panel, n, model, risk, error, len(records), exact, gap=gap, z=z)


def mean_risk(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean over a point's seeds, and its standard error, from each seed's risk and standard error.

    The variance of a seed's test risk is its test error's plus that between seeds; the larger of the mean test error
    and the variance seen between seeds estimates it.
    """
    risks, errors = np.array(runs).T
    between = float(np.var(risks, ddof=1)) if len(runs) > 1 else 0.0
    return float(risks.mean()), float(np.sqrt(max(float(np.mean(errors**2)), between) / len(runs)))


def write_rows(path: Path, kind: type[T], rows: Sequence[T]) -> None:
    """Write a CSV with one column per field, numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(cast(Any, kind))], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(cast(Any, row)) for row in rows)
    write_atomically(path, text.getvalue())


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """Read what `write_rows` wrote."""
    types = {field.name: cast(Any, field.type) for field in fields(cast(Any, kind))}
    with path.open(newline="", encoding="utf-8") as file:
        return [kind(**{name: read(row[name]) for name, read in types.items()}) for row in csv.DictReader(file)]
