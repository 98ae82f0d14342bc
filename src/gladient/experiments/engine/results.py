"""From the measurements of a figure's work to the rows of results.csv, and what they say of an exact risk."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np

from gladient._files import write_atomically
from gladient.experiments.models.stack import NamedSetting, TrainedStack
from gladient.experiments.work import Measurement

__all__ = [
    "GAP_BOUND",
    "Z_BOUND",
    "ExactPoint",
    "Judgement",
    "RiskRow",
    "by_panel",
    "judge_gap",
    "largest_misses",
    "mean_risk",
    "read_rows",
    "relative_gap",
    "summarise",
    "write_rows",
]

# A risk is known to 3 standard errors, 1.35% of it with 131,072 prompts: a bound of 3% leaves as much for the training.
GAP_BOUND, Z_BOUND = 0.03, 3.0

Judgement: TypeAlias = Literal["reached", "missed", "undecided"]
"""What a measured risk says of a claim; see `judge_gap`."""


@dataclass(frozen=True)
class RiskRow:
    """One point of a figure; risks are shares of that of predicting 0.

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
    def outcome(self) -> Judgement:
        """Whether the point is known to lie within 3% of its exact value; see `judge_gap`."""
        return judge_gap(self.risk, self.standard_error, self.exact)


@dataclass(frozen=True)
class ExactPoint:
    """A point of an exact curve; the risk is a share of that of predicting 0."""

    panel: str
    n: int
    curve: str
    risk: float


def judge_gap(
    risk: float, error: float, exact: float, *, bound: float = GAP_BOUND, or_below: bool = False
) -> Judgement:
    """Whether a measured risk is known to lie within a bound of the exact one.

    The risk is taken to be anywhere within 3 standard errors. Reached: all of that interval lies within the bound;
    missed: none of it does; undecided: it crosses the bound, and more test prompts would tell. So a test that is too
    small decides nothing, where "within 3 standard errors" would let everything pass.

    Args:
        risk: as measured.
        error: its standard error.
        exact: what theory gives.
        bound: the largest distance, relative to exact.
        or_below: whether a risk below the exact one reaches it, however far.

    >>> judge_gap(1.01, 0.005, 1.0), judge_gap(1.01, 0.01, 1.0), judge_gap(1.16, 0.05, 1.0), judge_gap(1.16, 0.01, 1.0)
    ('reached', 'undecided', 'undecided', 'missed')
    >>> judge_gap(0.5, 0.001, 1.0), judge_gap(0.5, 0.001, 1.0, or_below=True)
    ('missed', 'reached')
    """
    away, spread = (risk - exact if or_below else abs(risk - exact)), Z_BOUND * error
    if away + spread <= bound * exact:
        return "reached"
    return "missed" if away - spread > bound * exact else "undecided"


def relative_gap(risk: float, exact: float) -> float:
    """Risk / exact - 1; infinite over an exact risk of 0."""
    return risk / exact - 1 if exact > 0 else math.inf


def largest_misses(rows: Sequence[RiskRow]) -> str:
    """The largest gap and z of a figure's rows, in one line."""
    gap, z = (max((abs(getattr(row, name)) for row in rows), default=0.0) for name in ("gap", "z"))
    return f"largest |gap| {gap:.2%}, largest |z| {z:.1f}"


def by_panel(
    measured: Mapping[TrainedStack, Sequence[Measurement]],
) -> list[tuple[TrainedStack, NamedSetting, list[Measurement]]]:
    """For each stack and setting the measurements of its seeds; none where all of them diverged."""
    return [
        (stack, panel, runs)
        for stack, found in measured.items()
        for panel in stack.panels
        if (runs := [run for run in found if run["panel"] == panel.name])
    ]


T = TypeVar("T")


def summarise(measured: Sequence[Measurement], *, figure: str, panel: str, n: int, model: str, exact: float) -> RiskRow:
    """One row from the measurements of a point's seeds; see `mean_risk`.

    >>> runs = [{"risk": 1.0, "standard_error": 0.1}, {"risk": 1.2, "standard_error": 0.1}]
    >>> row = summarise(runs, figure="f", panel="p", n=2, model="m", exact=1.0)
    >>> round(row.risk, 3), round(row.standard_error, 3), round(row.z, 3)
    (1.1, 0.1, 1.0)
    """
    risk, error = mean_risk([(run["risk"], run["standard_error"]) for run in measured])
    gap, z = relative_gap(risk, exact), (risk - exact) / error
    return RiskRow(figure, panel, n, model, risk, error, len(measured), exact, gap=gap, z=z)


def mean_risk(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean over a point's seeds, and its standard error, from each seed's risk and standard error.

    The variance of a seed's test risk is its test error's plus that between seeds; the larger of the mean test error
    and the variance seen between seeds estimates it.
    """
    risks, errors = np.array(runs).T
    between = float(np.var(risks, ddof=1)) if len(runs) > 1 else 0.0
    return float(risks.mean()), float(np.sqrt(max(float(np.mean(errors**2)), between) / len(runs)))


def write_rows(path: Path, kind: type[T], rows: Sequence[T], more: Mapping[str, Sequence[str]] | None = None) -> None:
    """Write a CSV with one column per field, numbers in full precision, and `more` columns."""
    text, names = io.StringIO(), [field.name for field in fields(cast(Any, kind))]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *(more or {})])
    for i, row in enumerate(rows):
        writer.writerow([*(getattr(row, name) for name in names), *(column[i] for column in (more or {}).values())])
    write_atomically(path, text.getvalue())


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """Read what `write_rows` wrote, but for further columns."""
    types = {field.name: cast(Any, field.type) for field in fields(cast(Any, kind))}
    with path.open(newline="", encoding="utf-8") as file:
        return [kind(**{name: read(row[name]) for name, read in types.items()}) for row in csv.DictReader(file)]
