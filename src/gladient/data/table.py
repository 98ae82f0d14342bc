"""Prompts from a tidy table: CSV or Parquet, one row per example."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gladient._optional import require
from gladient._types import Array
from gladient.data.prompt import Examples, Prompt

__all__ = ["Table", "read_table", "table_prompts"]

PANDAS = {"needed_for": "reading a table", "install": "pip install 'gladient[data]'"}


@dataclass(frozen=True, eq=False)
class Table:
    """The prompts of a table.

    Attributes:
        prompts: one for each value of the task column, in the order of first appearance.
        clusters: the cluster of each prompt.
        roles: the sources' roles in the order of the prompt.
    """

    prompts: list[Prompt]
    clusters: list[Any]
    roles: tuple[str, ...]


def read_table(path: Path) -> Any:
    """A table of pandas from a CSV or a Parquet file.

    Raises:
        ValueError: if there is no such file, or it is not a table.
        ImportError: if pandas (or pyarrow, for Parquet) is absent.
    """
    pandas = require("pandas", **PANDAS)
    if not path.is_file():
        raise ValueError(f"{path} does not exist, or is a folder; give a CSV or Parquet file, one row per example")
    parquet = path.suffix in (".parquet", ".pq")
    if parquet:
        require("pyarrow", **PANDAS)
    try:
        frame = pandas.read_parquet(path) if parquet else pandas.read_csv(path)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own are among them
        kind = "Parquet" if parquet else "CSV"
        raise ValueError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())}") from None
    if len(frame) == 0 or len(frame.columns) < 2:
        shape = f"{len(frame)} rows and {len(frame.columns)} columns"
        raise ValueError(f"{path} has {shape}; it is not a table of examples")
    return frame


def table_prompts(
    frame: Any,
    *,
    target: str,
    features: Sequence[str],
    task: str,
    role: str,
    cluster: str | None = None,
    query: str = "query",
    roles: Sequence[str] = (),
) -> Table:
    """The prompts of a tidy table.

    Args:
        frame: one row per example.
        target: the column of labels.
        features: the columns of features.
        task: the column that names the task asked about: rows of one value are one prompt.
        role: the column that says which source a row belongs to, or that it is a query.
        cluster: the column of clusters, one value for each prompt; each prompt is its own if not given.
        query: what the role column says of queries.
        roles: the sources' roles in the order of the prompt; that of first appearance if not given.

    Raises:
        ValueError: if a column is absent, holds no numbers or has missing values, a task lacks a role or has others, or
            lies in several clusters.
    """
    if not features:
        raise ValueError("no feature is given; name at least one column")
    used = [target, *features, task, role, *([cluster] if cluster is not None else [])]
    for name in used:
        if name not in frame.columns:
            raise ValueError(f"there is no column {name!r}; the table has {', '.join(map(str, frame.columns))}")
        missing = int(frame[name].isna().sum())
        if missing:
            raise ValueError(
                f"column {name!r} misses {missing} of {len(frame)} values; drop those rows or fill the values in first"
            )
    X = np.column_stack([_numbers(frame, name) for name in features])
    y = _numbers(frame, target)
    # as text: a column of roles 1 and 2 reads as numbers, and what the caller types is text
    said = frame[role].astype(str).to_numpy()
    order = tuple(map(str, roles)) or tuple(name for name in dict.fromkeys(said.tolist()) if name != query)
    _check_roles(set(said.tolist()), order, role, query)
    prompts: list[Prompt] = []
    clusters: list[Any] = []
    for name, rows in frame.groupby(task, sort=False).indices.items():
        prompts.append(_prompt(f"{task} {name}", X[rows], y[rows], said[rows], order, query))
        values = frame[cluster].iloc[rows].unique().tolist() if cluster is not None else [name]
        if len(values) > 1:
            raise ValueError(f"{task} {name} lies in the clusters {values}; a prompt belongs to one")
        clusters += values
    if len(prompts) < 2:
        raise ValueError(f"column {task!r} has one value, so each role has one task; give many tasks")
    return Table(prompts, clusters, order)


def _numbers(frame: Any, name: str) -> Array:
    try:
        return np.asarray(frame[name].to_numpy(dtype=np.float64))
    except (TypeError, ValueError):
        raise ValueError(
            f"column {name!r} holds {frame[name].iloc[0]!r}, which is not a number; code categories as 0 and 1"
        ) from None


def _check_roles(found: set[str], order: tuple[str, ...], role: str, query: str) -> None:
    if query not in found:
        raise ValueError(f"column {role!r} holds {', '.join(sorted(found)[:9])}; some rows must be {query!r}")
    if not order:
        raise ValueError(
            f"every row of column {role!r} is {query!r}; a prompt needs sources, in at least one other role"
        )
    if found - {query} != set(order):
        raise ValueError(f"the roles are given as {', '.join(order)} and the table has {', '.join(sorted(found))}")


def _prompt(name: str, X: Array, y: Array, said: np.ndarray, order: tuple[str, ...], query: str) -> Prompt:
    def examples(role: str) -> Examples:
        chosen = said == role
        if not chosen.any():
            raise ValueError(f"{name} has no row of role {role!r}; each prompt needs every role: leave the task out")
        return X[chosen], y[chosen]

    return Prompt([examples(role) for role in order], examples(query))
