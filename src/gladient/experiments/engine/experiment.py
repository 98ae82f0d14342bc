"""What an experiment is: it ends as a figure, with a table and a report."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, TypeVar, final

from gladient.experiments.engine.results import Judgement
from gladient.experiments.models.stack import NamedSetting, TrainedStack
from gladient.experiments.work import Measurement, Work
from gladient.training import TrainingConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["OF_ZERO", "SQUARED_ERROR", "Column", "Config", "Experiment", "Reproducible", "risk_columns"]

SQUARED_ERROR = "expected squared error at the query"
"""The unit of `gladient risk`, and of what is compared with it."""
OF_ZERO = "share of the risk of predicting 0"
"""The unit of figures with panels of several settings."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What decides a figure's numbers; figures add fields of JSON values, and defaults of their own.

    Args:
        seeds: training runs per point.
        test_prompts: fresh prompts that each trained model is tested on.
        device: where to train: cpu, cuda, cuda:0 …
        training: steps, step sizes, schedule; some models take smaller steps for their gates.

    Raises:
        ValueError: if there is no seed, or too few prompts for a standard error.
    """

    seeds: int = 1
    test_prompts: int = 2**17
    device: str = "cpu"
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self) -> None:
        if isinstance(self.seeds, bool) or self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds!r}; each point needs at least 1 training run")
        if self.test_prompts < 2:
            raise ValueError(f"test_prompts is {self.test_prompts}; a standard error needs at least 2")

    def stack(self, name: str, model: str, panels: Sequence[NamedSetting], *, key_channels: int = 4) -> TrainedStack:
        """The work that trains one kind of model, for each seed, on settings that differ in r alone."""
        seeds = tuple(range(self.seeds))
        return TrainedStack(
            name, model, tuple(panels), seeds, self.training, self.test_prompts, key_channels, self.device
        )


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

    def text(self, row: object) -> str:
        """The row's value as it is printed, names in words."""
        value = getattr(row, self.name)
        return value.replace("_", " ") if isinstance(value, str) else format(value, self.form)


def risk_columns(panel: str, n: str = "n") -> tuple[Column, ...]:
    """The columns of a table of `RiskRow`s; what panel and n are called."""
    return (
        Column("panel", panel),
        Column("n", n, "d"),
        Column("model"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("seeds", form="d"),
        Column("exact", form=".4f"),
        Column("gap", form="+.2%"),
        Column("z", form="+.1f"),
    )


C = TypeVar("C", bound=Config)
W = TypeVar("W", bound=Work)
R = TypeVar("R")
P = TypeVar("P")


class Experiment(ABC, Generic[C, W, R, P]):
    """Trained models beside the theory, in one figure: its config, its work, its rows and its points.

    Attributes:
        name: what it is called.
        title, abstract: the head of its report.
        claim: what a judged row shows, after "12 of 12".
        note: how to read the table; what a row has to keep for the claim.
        unit: what risks are measured in; empty if none is shown, or the note says it.
        columns: the table's columns.
        row, point: the frozen dataclasses of results.csv and exact.csv, with fields of type str, int or float.
    """

    name: str
    title: str
    abstract: str
    claim: str
    note: str
    unit: str = ""
    columns: tuple[Column, ...]
    row: type[R]
    point: type[P]

    @abstractmethod
    def work(self, config: C) -> Sequence[W]:
        """The work of a config, each unit by itself."""

    @abstractmethod
    def rows(self, config: C, measured: Mapping[W, Sequence[Measurement]]) -> list[R]:
        """The rows of results.csv; points without measurements have none."""

    @abstractmethod
    def points(self, config: C, measured: Mapping[W, Sequence[Measurement]]) -> list[P]:
        """The rows of exact.csv: what is drawn beside the rows."""

    @abstractmethod
    def draw(self, rows: Sequence[R], points: Sequence[P]) -> "Figure":
        """The picture of both, as read from their files."""

    @abstractmethod
    def judge(self, row: R) -> Judgement | None:
        """Whether a row keeps the claim, misses it, or cannot tell; None if it claims nothing."""

    @abstractmethod
    def summary(self, judged: Sequence[R]) -> list[str]:
        """Further lines about the rows that claim something."""

    def judged(self, rows: Sequence[R]) -> list[R]:
        """The rows that claim something."""
        return [row for row in rows if self.judge(row) is not None]

    def missed(self, rows: Sequence[R]) -> list[R]:
        """The rows that do not keep their claim."""
        return [row for row in rows if self.judge(row) == "missed"]

    def undecided(self, rows: Sequence[R]) -> list[R]:
        """The rows whose errors are too large to tell."""
        return [row for row in rows if self.judge(row) == "undecided"]

    def verdict(self, rows: Sequence[R]) -> str:
        """How many rows keep the claim, and how many cannot tell."""
        kept, undecided = sum(self.judge(row) == "reached" for row in rows), len(self.undecided(rows))
        open_ = f"; {undecided} undecided, more test prompts would tell" if undecided else ""
        return f"{kept} of {len(self.judged(rows))} {self.claim}{open_}"

    def panels(self, rows: Sequence[R]) -> dict[str, list[R]]:
        """The rows that share a panel: the texts that lead the table."""
        leading = list(takewhile(lambda column: not column.form, self.columns))
        panels: dict[str, list[R]] = {}
        for row in rows:
            panels.setdefault(", ".join(column.text(row) for column in leading), []).append(row)
        return panels

    def describe(self, row: R) -> str:
        """A row in one line."""
        return ", ".join(f"{column.header or column.name} {column.text(row)}" for column in self.columns)


class Reproducible(Experiment[C, W, R, P]):
    """A figure with configs of its own, which `gladient reproduce --figure NAME` makes.

    Attributes:
        full, quick: what decides its numbers, and with `--quick`: fewer points.
    """

    full: C
    quick: C

    @final
    def config(self, *, quick: bool, seeds: int | None, device: str) -> C:
        """What decides the numbers; the figure's own number of seeds if none is given."""
        found = replace(self.quick if quick else self.full, device=device)
        return found if seeds is None else replace(found, seeds=seeds)
