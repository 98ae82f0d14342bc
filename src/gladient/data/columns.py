"""Columns of a table as names, numbers, dates and features; an error names column, row, value and cure."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gladient._types import Array
from gladient.data.dates import dates, first_not_date
from gladient.data.numerals import parsed

__all__ = ["Features", "Names", "column", "elapsed", "features", "names", "not_a_date", "numbers", "require_values"]

Where = Callable[[int], str]

_MOST_LEVELS = 25  # of a category: more features than that cannot be estimated


@dataclass(frozen=True, eq=False)
class Names:
    """A column in which every value is a name.

    Attributes:
        texts: the names in the order of first appearance; whole numbers without .0.
        codes: which of them each row has.
        numeric: whether the column holds numbers.
    """

    texts: tuple[str, ...]
    codes: np.ndarray
    numeric: bool

    def find(self, typed: str) -> str:
        """The name that is meant: 0 and 0.0 are one where the column holds numbers."""
        return _whole(typed) if self.numeric else typed


@dataclass(frozen=True, eq=False)
class Features:
    """Columns of features.

    Attributes:
        X: [rows, d].
        names: the names of the d columns.
        said: what became of categories, in sentences.
    """

    X: Array
    names: tuple[str, ...]
    said: tuple[str, ...]


def column(frame: Any, name: str) -> Any:
    """One column.

    Raises:
        ValueError: if there is none of that name, or several, or its cells hold several values each.
    """
    found = [i for i, each in enumerate(frame.columns) if str(each) == name]
    if len(found) == 1:
        return _scalars(frame.iloc[:, found[0]], name)
    known = [str(each) for each in frame.columns]
    if found:
        places = " and ".join(str(i + 1) for i in found)
        raise ValueError(
            f"column {name!r} stands in the places {places} of the table; give each column a name of its own"
        )
    near = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), near, n=1)
    hint = f"; perhaps {near[close[0]]!r}" if close else ""
    raise ValueError(f"there is no column {name!r}; the table has {', '.join(known)}{hint}")


def _scalars(values: Any, name: str) -> Any:
    """A column whose cells hold one value each, unlike the lists and structures of Parquet, and no complex number."""
    first = next((each for each in values.head(1000) if each is not None), None) if values.dtype == object else None
    if values.dtype.kind == "c" or isinstance(first, list | dict | set | np.ndarray):
        held = "complex numbers" if values.dtype.kind == "c" else f"a {type(first).__name__} in each row"
        raise ValueError(f"column {name!r} holds {held}; give one number or name a row: make columns of them")
    return values


def names(frame: Any, name: str) -> Names:
    """A column of names: of groups, roles, clusters. NA and None are names, an empty cell is missing (code -1)."""
    import pandas

    values = column(frame, name)
    codes, found = pandas.factorize(values)
    numeric = bool(pandas.api.types.is_numeric_dtype(values.dtype))
    return Names(tuple(_whole(str(each)) if numeric else str(each) for each in found), codes, numeric)


def require_values(frame: Any, name: str, missing: np.ndarray) -> None:
    """Every value of a column is there.

    Raises:
        ValueError: if one is missing.
    """
    if missing.any():
        raise ValueError(
            f"column {name!r} misses {int(missing.sum())} of {len(frame)} values; drop those rows (--drop-missing) or "
            f"fill the values in first: row {frame.index[int(np.argmax(missing))]} is the first"
        )


def numbers(frame: Any, name: str, where: Where | None = None) -> Array:
    """A column of numbers, NaN where one is missing.

    Args:
        frame: a table of pandas.
        name: the column.
        where: what to say of the place of a row, by its number from 0.

    Raises:
        ValueError: if a value is not a number, or infinite.
    """
    found, bad = _numbers(frame, name)
    bad |= np.isinf(found)
    if bad.any():
        i = int(np.argmax(bad))
        value, place = column(frame, name).iloc[i], where(i) if where else f"row {frame.index[i]}"
        raise ValueError(
            f"column {name!r} holds {_told(value)} in {place}, which is not a number; {_cure(value, name)}"
        )
    return found


def elapsed(frame: Any, name: str) -> Array:
    """A column of dates as days since the earliest, NaN where one is missing.

    Raises:
        ValueError: if a value is no date.
    """
    found = dates(column(frame, name))
    if found is None:
        raise not_a_date(frame, name)
    return np.asarray((found - found.min()).dt.total_seconds().to_numpy(dtype=np.float64) / 86400.0)


def not_a_date(frame: Any, name: str) -> ValueError:
    """What to raise for a column of which one value at least is no date."""
    i = max(first_not_date(column(frame, name)), 0)
    return ValueError(
        f"column {name!r} holds {_told(column(frame, name).iloc[i])} in row {frame.index[i]}, which is no date; write "
        "it as 2010-01-31, or say with --na what means missing"
    )


def features(frame: Any, wanted: Sequence[str], dated: Sequence[str] = (), where: Where | None = None) -> Features:
    """Columns of features: numbers; categories as one column for each level but the commonest; dates if asked.

    Args:
        frame: a table of pandas.
        wanted: the columns; "a,b" is two of them if no column has that name.
        dated: those of them that are dates, to be taken as days since the earliest.
        where: see `numbers`.

    Raises:
        ValueError: if a column is absent, or holds what is neither numbers nor a category.
    """
    chosen = _split(frame, wanted)
    if not chosen:
        raise ValueError("no feature is given; name at least one column")
    for name in dated:
        if name not in chosen:
            raise ValueError(
                f"{name!r} is to be taken as elapsed time and is not among the features {', '.join(chosen)}"
            )
    parts = [([elapsed(frame, name)], [name], "") if name in dated else _feature(frame, name, where) for name in chosen]
    columns = [each for found, _, _ in parts for each in found]
    return Features(
        np.column_stack(columns),
        tuple(name for _, found, _ in parts for name in found),
        tuple(said for _, _, said in parts if said),
    )


def _split(frame: Any, wanted: Sequence[str]) -> list[str]:
    known = {str(each) for each in frame.columns}
    parts = [[name] if name in known else [part.strip() for part in name.split(",")] for name in wanted]
    return [name for part in parts for name in part if name]


def _feature(frame: Any, name: str, where: Where | None) -> tuple[list[Array], list[str], str]:
    if not _is_category(frame, name):
        return [numbers(frame, name, where)], [name], ""
    found = names(frame, name)
    sizes = np.bincount(found.codes[found.codes >= 0], minlength=len(found.texts))
    if len(sizes) > _MOST_LEVELS:
        raise ValueError(
            f"column {name!r} holds {len(sizes)} categories ({', '.join(found.texts[:3])} …); "
            f"{_MOST_LEVELS} are the most: leave it out, or join rare ones"
        )
    # the commonest is the base, so that no column is 1 almost everywhere
    base = max(range(len(sizes)), key=lambda k: (sizes[k], found.texts[k]))
    levels = [k for k in sorted(range(len(sizes)), key=lambda k: found.texts[k]) if k != base]
    missing = found.codes < 0
    columns = [np.where(missing, np.nan, found.codes == k) for k in levels]
    if not columns:
        raise ValueError(f"column {name!r} is {found.texts[0]!r} in every row; leave it out")
    listed = ", ".join(found.texts[k] for k in levels)
    return (
        columns,
        [f"{name}={found.texts[k]}" for k in levels],
        f"{name} is {listed} beside {found.texts[base]}, 1 or 0 each",
    )


def _is_category(frame: Any, name: str) -> bool:
    """Whether a column is one: declared so, or text of which most is neither a number nor a date."""
    import pandas

    values = column(frame, name)
    if isinstance(values.dtype, pandas.CategoricalDtype):
        return True
    if not _is_text(values) or dates(values) is not None:
        return False
    found, bad = _numbers(frame, name)
    return bool(bad.sum() > np.isfinite(found).sum()) and not _reads_both_ways(values)


def _numbers(frame: Any, name: str) -> tuple[Array, np.ndarray]:
    """The numbers of a column, NaN where there is none, and where it holds something else."""
    import pandas

    values = column(frame, name)
    if pandas.api.types.is_numeric_dtype(values.dtype):
        found = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return found, np.zeros(len(found), dtype=bool)
    present = values.notna().to_numpy()
    found, bad = np.full(len(values), np.nan), np.zeros(len(values), dtype=bool)
    texts = [str(each).strip() for each in values[present].tolist()]
    if pandas.api.types.is_datetime64_any_dtype(values.dtype):
        bad[present] = True
        return found, bad
    found[present], bad[present] = parsed(texts, frame.attrs.get("decimal"))
    return found, bad


def _is_text(values: Any) -> bool:
    import pandas

    return bool(values.dtype == object or pandas.api.types.is_string_dtype(values))


def _reads_both_ways(values: Any) -> bool:
    some = values.dropna().astype(str).head(1000).tolist()
    return any("," in text and not parsed([text], ".")[1][0] for text in some)


def _told(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else repr(str(value))


def _cure(value: Any, name: str) -> str:
    text = str(value).strip()
    if isinstance(value, float) or text.lower().lstrip("+-") in ("inf", "infinity"):
        return "leave that row out, or say that it means missing: --na inf --drop-missing"
    if "\n" in text:
        return "a quotation mark in or before that row is not closed"
    if "," in text and not parsed([text], ".")[1][0]:
        return "it reads both ways: say --decimal , or --thousands ,"
    if dates([text]) is not None:
        return f"it is a date: --elapsed {name} takes days since the earliest, for a feature"
    if any(c.isdigit() for c in text):
        return "write it as one; --decimal and --thousands say how numbers are written, --na what means missing"
    return f"code categories as 0 and 1; if it means missing, say --na {text}"


def _whole(text: str) -> str:
    """2007.0 as 2007; other text as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else text
