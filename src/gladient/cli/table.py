"""Options that say what a table's prompts are, and the prompts."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gladient._text import printable
from gladient.cli.numbers import Whole, Wholes

if TYPE_CHECKING:
    from gladient.data import Table

__all__ = ["TableOptions", "preview"]

_PREVIEWED, _ROWS = 3, 4  # prompts, and rows of each role


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """A table, and which of its rows make a prompt."""

    file: Annotated[Path, tyro.conf.Positional]
    """A CSV, Parquet, Feather, Excel or Stata file, or - for standard input."""
    target: str
    """Column of labels."""
    features: tuple[str, ...]
    """Columns of features: numbers, or categories, which become 0 and 1 for each level but the commonest."""
    group: str | None = None
    """A panel's column of groups: countries, pupils, shops. Left out: the table is one series."""
    time: str | None = None
    """A panel's column of times, numbers or dates: a prompt shows periods of the past and asks about the next."""
    lags: Whole | None = None
    """Periods that a prompt of a panel shows before the one it asks about; 3 if not given."""
    windows: str | None = None
    """Length of a period: 10y, 6mo, 2w, 1d, 12h, or 10 where times are numbers."""
    bins: tuple[str, ...] = ()
    """Last times of the periods, or how many there are; the last one is asked about."""
    task: str | None = None
    """Instead of group and time: column that names the task asked about; rows of one value are one prompt."""
    role: str | None = None
    """With --task: column that says which source of the prompt a row belongs to, or that it is a query."""
    query: str = "query"
    """What the role column says of the examples asked about."""
    roles: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--role-order"])] = ()
    """The other roles in the prompt's order; if not given that of first appearance, or of size if they are numbers."""
    cluster: str | None = None
    """Column of clusters, for prompts that share data; if not given a panel's groups, else each prompt is its own."""
    n: Wholes = ()
    """Examples that a prompt shows of each source, one number for all or one each: a panel's latest, else drawn."""
    seed: Whole = 0
    """Of the draw for --n."""
    elapsed: tuple[str, ...] = ()
    """Features that are dates, to be taken as days since the earliest."""
    changes: bool = False
    """Of a panel: take features and labels as changes since the group's row before, so that levels and trends go."""
    drop_missing: bool = False
    """Leave out rows with a missing value, and tasks that lack a role then."""
    sep: str | None = None
    """What separates columns: , ; | tab or space. Found in the file if not given, like the next three."""
    decimal: str | None = None
    """Decimal sign: . or ,"""
    thousands: str | None = None
    """What separates thousands: , . a space or an apostrophe."""
    encoding: str | None = None
    """Encoding of the text: utf-8, cp1252, utf-16 …"""
    na: tuple[str, ...] = ()
    """Cells that mean missing, such as -999."""
    sheet: str | None = None
    """Sheet of an Excel file, by its name or its number from 1; the first if not given."""
    show_prompts: bool = False
    """Show what became of the table, the first prompts with their rows, and stop."""

    def load(self) -> tuple["Table", Any]:
        """The prompts, and the table that they come from."""
        from gladient.data import prompts_from_panel, read_table, table_prompts

        panel = self._is_panel()
        frame = read_table(
            self.file,
            sep=self.sep,
            decimal=self.decimal,
            thousands=self.thousands,
            encoding=self.encoding,
            na=self.na,
            sheet=self.sheet,
        )
        common: dict[str, Any] = {
            "target": self.target,
            "features": self.features,
            "cluster": self.cluster,
            "n": self.n,
            "elapsed": self._split(self.elapsed, frame),
            "drop_missing": self.drop_missing,
        }
        names = ("group", "time", "lags", "windows", "changes") if panel else ("task", "role", "query", "roles", "seed")
        chosen: dict[str, Any] = {name: getattr(self, name) for name in names}
        if panel:
            table = prompts_from_panel(frame, **chosen, bins=self._split(self.bins, frame), **common)
        else:
            table = table_prompts(frame, **chosen, **common)
        return replace(table, said=(*frame.attrs["assumed"], *table.said)), frame

    def used(self, frame: Any) -> list[str]:
        """The table's columns that the options name."""
        named = {self.target, *self._split(self.features, frame), self.cluster}
        named |= {self.group, self.time, self.task, self.role}
        return [name for name in frame.columns if name in named]

    def typed(self) -> list[str]:
        """The options that decide the numbers, as they are typed."""
        given = [self.file.name, "--target", self.target, "--features", *self.features]
        for name in ("group", "time", "lags", "windows", "bins", "task", "role", "roles", "cluster", "n", "elapsed"):
            given += _typed(name, getattr(self, name))
        if not self._is_panel():
            given += ["--query", self.query, *(_typed("seed", self.seed) if self.n else [])]
        for name in ("sep", "decimal", "thousands", "encoding", "na", "sheet"):
            given += _typed(name, getattr(self, name))
        flags = [("--changes", self.changes), ("--drop-missing", self.drop_missing)]
        return [*given, *(flag for flag, on in flags if on)]

    def _is_panel(self) -> bool:
        names = ("group", "time", "lags", "windows", "bins", "changes")
        panel = [f"--{name}" for name in names if getattr(self, name)]
        tasks = [f"--{name}" for name in ("task", "role", "roles") if getattr(self, name)]
        if panel and tasks:
            raise ValueError(
                f"{panel[0]} and {tasks[0]} are both given; a panel has --group and --time, a table of prompts has "
                "--task and --role"
            )
        if panel and (self.query != "query" or self.seed):
            raise ValueError(
                f"{'--seed' if self.seed else '--query'} belongs to --task and --role, and {panel[0]} is given"
            )
        if panel and self.time is None:
            raise ValueError(f"{panel[0]} is given without --time, the column that tells the past from what follows")
        if not panel and (self.task is None or self.role is None):
            raise ValueError(
                "give --group and --time for a panel, one row per group and time; or --task and --role for a table "
                "whose columns say which prompt and role each row belongs to"
            )
        return bool(panel)

    @staticmethod
    def _split(given: tuple[str, ...], frame: Any) -> tuple[str, ...]:
        """Entries that are typed with spaces or commas between them; a column's own comma stays."""
        known = set(frame.columns)
        return tuple(
            part for each in given for part in ([each] if each in known else map(str.strip, each.split(","))) if part
        )


def preview(table: "Table", frame: Any, columns: list[str]) -> str:
    """How many prompts there are, and the first of them with some rows of each role in some columns."""
    parts = list(zip((*table.roles, "query"), table.prompts.roles, table.rows, strict=True))
    clusters, features = len(set(table.clusters)), ", ".join(table.features)
    lines = [f"{len(table.prompts)} prompts in {clusters} clusters; features: {features}"]
    for k, (role, examples, _) in enumerate(parts):
        least, most = int(examples.n.min()), int(examples.n.max())
        counts = f"{least}" if least == most else f"{least} to {most}"
        shown = f", {table.n[k]} shown" if table.n and k < len(table.n) else ""
        lines.append(f"  {role}: {counts} examples{shown}")
    for i in range(min(_PREVIEWED, len(table.prompts))):
        lines += ["", f"{table.names[i]} (cluster {table.clusters[i]})"]
        for role, examples, rows in parts:
            places = rows[examples.starts[i] : examples.starts[i] + examples.n[i]]
            lines.append(f"  {role}:")
            lines += [f"    {line}" for line in frame.iloc[places[:_ROWS]][columns].to_string().splitlines()]
            lines += [f"    … and {len(places) - _ROWS} more"] if len(places) > _ROWS else []
    return "\n".join(map(printable, lines))


def _typed(name: str, value: Any) -> list[str]:
    if value is None or value == ():
        return []
    return [f"--{name}", *map(str, value)] if isinstance(value, tuple) else [f"--{name}", str(value)]
