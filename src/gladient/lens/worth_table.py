"""What gates are worth, from the table that `Worth.to_pandas` makes and `gladient worth --out FILE` writes."""

import csv
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from gladient._optional import PARQUET, require
from gladient.lens.gate_worth import HeadWorth, Rise
from gladient.lens.layers import gated_layers
from gladient.lens.load import Loaded

__all__ = ["read_worth"]

_RISES = [field.name for field in fields(HeadWorth) if field.name not in ("layer", "head")]
_GIVE = "give what gladient worth --out FILE wrote"
_NEEDED = [name for name in _RISES if name not in ("no_erase", "alone")]  # the others may be absent


def read_worth(path: Path, loaded: Loaded, *, named: bool = False) -> list[HeadWorth]:
    """A row for each head, and one without layer and head for all of them.

    Args:
        path: a CSV or Parquet file with the columns layer, head and, for each rise, its name and its name with _error;
            an empty cell is what was not measured. With a column model, its rows of this one.
        loaded: the model.
        named: whether there must be a column model, as where several are looked into.

    Raises:
        ValueError: if it is no such table, or of another model; in one line, with the line of the file.
        ImportError: if the file is Parquet and pyarrow is absent.
    """
    rows = _rows(path, ["model"] if named else [])
    found = [_read(path, line, row) for line, row in enumerate(rows, 2) if row.get("model", loaded.name) == loaded.name]
    if not found:
        names = ", ".join(sorted({row.get("model") or "" for row in rows}))
        raise ValueError(f"{path} is of {names}, and has no row of {loaded.name}; {_GIVE}")
    known = {number for _, number, _, _ in gated_layers(loaded.module)}
    if strange := [row.layer for row in found if row.layer is not None and row.layer not in known]:
        raise ValueError(f"{path} has layer {strange[0]}, not one of the gated layers {sorted(known)} of {loaded.name}")
    return found


def _rows(path: Path, more: list[str]) -> list[dict[str, str | None]]:
    parquet = path.suffix.lower() == ".parquet"
    try:
        rows = _from_parquet(path) if parquet else _from_csv(path)
    except (ValueError, csv.Error) as error:  # bytes that are no text, or no Parquet, are ValueErrors
        raise ValueError(f"{path} is not a table in {'Parquet' if parquet else 'CSV'} ({error}); {_GIVE}") from None
    wanted = [*more, "layer", "head", *(name + end for name in _NEEDED for end in ("", "_error"))]
    absent = [name for name in wanted if not rows or name not in rows[0]]
    if absent:
        raise ValueError(f"{path} has no column {absent[0]}; {_GIVE}")
    return rows


def _from_csv(path: Path) -> list[dict[str, str | None]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _from_parquet(path: Path) -> list[dict[str, str | None]]:
    """As texts, like those of a CSV; numbers of Python say all their digits."""
    parquet = require("pyarrow.parquet", **PARQUET)
    rows = parquet.read_table(path).to_pylist()
    return [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]


def _read(path: Path, line: int, row: Mapping[str, str | None]) -> HeadWorth:
    def number(name: str) -> float | None:
        text = (row.get(name) or "").strip()
        try:
            found = float(text) if text else math.nan
        except ValueError:
            raise ValueError(f"{path}, line {line}: {name} is {text!r}, which is no number") from None
        return None if math.isnan(found) else found

    def rise(name: str) -> Rise | None:
        mean, error = number(name), number(f"{name}_error")
        return None if mean is None or error is None else Rise(mean, error)

    where = {name: None if (found := number(name)) is None else int(found) for name in ("layer", "head")}
    rises = {name: rise(name) for name in _RISES}
    if lacking := [name for name in _NEEDED if rises[name] is None]:
        raise ValueError(f"{path}, line {line}: {lacking[0]} and its error must be numbers")
    return HeadWorth(**where, **rises)  # type: ignore[arg-type]
