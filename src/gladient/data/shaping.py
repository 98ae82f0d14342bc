"""From rows to prompts: blocks of rows, one for each role of each prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gladient._types import Array
from gladient.data.columns import Features, Names, features, names, numbers, require_values
from gladient.data.prompt import Prompts, RoleExamples

__all__ = ["Blocks", "Rows", "Table", "clusters_of", "listed", "read_rows", "shown_first"]

_NAMED = 5  # names in a sentence


@dataclass(frozen=True, eq=False)
class Table:
    """The prompts of a table.

    Attributes:
        prompts: the prompts, in the order of the table, or in that of time where clusters are times.
        clusters: the cluster of each prompt.
        roles: the sources' roles in the order of the prompt.
        names: what each prompt is called.
        features: the d features.
        rows: for each role, the query's last, the rows of the table that `prompts.roles` holds, by their place from 0.
        n: examples of each source that a prompt shows; None if nothing was said and no panel tells.
        gap: clusters beside a held-out block that share examples with it.
        said: what was decided on the way, in sentences.
    """

    prompts: Prompts
    clusters: list[Any]
    roles: tuple[str, ...]
    names: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    rows: tuple[np.ndarray, ...] = ()
    n: tuple[int, ...] | None = None
    gap: int = 0
    said: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a table that are examples.

    Attributes:
        frame: the table without the rows that were left out.
        places: where each row stands in the table that came, from 0.
        features: X and the names of its columns.
        y: labels.
        columns: columns of names, by column.
        said: what was decided.
    """

    frame: Any
    places: np.ndarray
    features: Features
    y: Array
    columns: dict[str, Names]
    said: tuple[str, ...]


class Blocks:
    """Rows by block: one array, block after block, in the rows' own order within each.

    Args:
        code: the block of each row, a whole number.
        rows: what the rows hold.
        order: the order of the rows; as they stand if not given.
    """

    def __init__(self, code: np.ndarray, rows: Rows, order: np.ndarray | None = None) -> None:
        within = np.arange(len(code)) if order is None else order
        self.order = within[np.argsort(code[within], kind="stable")]
        self.codes, counts = np.unique(code, return_counts=True)
        self.examples = RoleExamples(rows.features.X[self.order], rows.y[self.order], counts)

    def find(self, code: np.ndarray) -> np.ndarray:
        """The places of blocks among all, -1 where there is none."""
        place = np.minimum(np.searchsorted(self.codes, code), len(self.codes) - 1)
        return np.where(self.codes[place] == code, place, -1)

    def take(self, places: np.ndarray) -> tuple[RoleExamples, np.ndarray]:
        """The examples of blocks, and which of the rows they are."""
        return self.examples.take(places), self.order[self.examples.rows(places)]


def read_rows(
    frame: Any,
    *,
    target: str,
    wanted: Sequence[str],
    named: Sequence[str],
    elapsed: Sequence[str],
    drop_missing: bool,
    missing_too: Callable[[Any], dict[str, np.ndarray]] = lambda frame: {},
) -> Rows:
    """Labels, features and columns of names.

    Args:
        frame: one row per example.
        target: the column of labels.
        wanted: the columns of features.
        named: the columns of names.
        elapsed: features that are dates.
        drop_missing: whether rows with a missing value are left out.
        missing_too: where other columns miss values, by column.

    Raises:
        ValueError: if a column is absent or holds what it must not, or a value is missing and is not to be left out.
    """
    columns = {name: names(frame, name) for name in named}

    def where(i: int) -> str:
        of = ", ".join(f"{name} {each.texts[each.codes[i]]}" for name, each in columns.items() if each.codes[i] >= 0)
        return f"row {frame.index[i]}" + (f" ({of})" if of else "")

    found, y = features(frame, wanted, elapsed, where), numbers(frame, target, where)
    missing = {target: np.isnan(y)}
    missing |= {name: np.isnan(found.X[:, j]) for j, name in enumerate(found.names)}
    missing |= {name: each.codes < 0 for name, each in columns.items()} | missing_too(frame)
    said = list(found.said)
    left_out = np.any(list(missing.values()), axis=0)
    if left_out.any() and not drop_missing:
        for name, rows in missing.items():
            require_values(frame, name, rows)
    if left_out.all():
        raise ValueError(f"each of the {len(frame)} rows misses a value in {', '.join(missing)}; leave a column out")
    if left_out.any():
        parts = ", ".join(f"{name} {int(rows.sum())}" for name, rows in missing.items() if rows.any())
        said.append(f"left out {int(left_out.sum())} of {len(frame)} rows with missing values ({parts})")
    kept = np.flatnonzero(~left_out)
    return Rows(
        frame=frame.iloc[kept] if left_out.any() else frame,
        places=kept,
        features=Features(found.X[kept], found.names, found.said),
        y=y[kept],
        columns={name: Names(each.texts, each.codes[kept], each.numeric) for name, each in columns.items()},
        said=tuple(said),
    )


def shown_first(role: RoleExamples, rows: np.ndarray, key: Array, n: int) -> tuple[RoleExamples, np.ndarray]:
    """The n examples of each prompt with the largest keys first, in the order in which they stood; then the others."""
    by_key = np.lexsort((-key, role.prompt))
    rank = np.empty(len(key), dtype=np.intp)
    rank[by_key] = np.arange(len(key)) - np.repeat(role.starts, role.n)
    order = np.lexsort((rank >= n, role.prompt))
    return RoleExamples(role.X[order], role.y[order], role.n), rows[order]


def clusters_of(rows: Rows, cluster: str, role: RoleExamples, chosen: np.ndarray, named: Sequence[str]) -> list[Any]:
    """The cluster of each prompt, from the rows of one role that were chosen.

    Raises:
        ValueError: if a prompt lies in several.
    """
    found = rows.columns[cluster]
    codes = found.codes[chosen]
    least, most = np.minimum.reduceat(codes, role.starts), np.maximum.reduceat(codes, role.starts)
    if (least != most).any():
        i = int(np.argmax(least != most))
        several = sorted({found.texts[code] for code in codes[role.prompt == i].tolist()})
        raise ValueError(f"{named[i]} lies in the clusters {listed(several)}; a prompt belongs to one")
    return [found.texts[code] for code in least.tolist()]


def listed(texts: Sequence[str]) -> str:
    """The first few of them.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    rest = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")
