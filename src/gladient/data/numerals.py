"""Numbers as people write them: 0,9054, -3,341.08, 1 234, 12%, $5; and what stands for a missing one."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from gladient._types import Array

__all__ = ["MISSING", "decimal_sign", "numerals", "parsed"]

MISSING = ("", "na", "n/a", "n.a.", "nan", "null", "none", "#n/a", "?", "-", "--", ".", "<na>")
"""What stands for a missing number, in small letters; where a name stands, each of them is a name."""

_EXPONENT = r"(?:[eE][+-]?\d+)?"
_PATTERNS = {
    ".": re.compile(rf"(?=.*\d)[+-]?(?:\d+|[1-9]\d{{0,2}}(?:,\d{{3}})+)?(?:\.\d*)?{_EXPONENT}"),
    ",": re.compile(rf"(?=.*\d)[+-]?(?:\d+|[1-9]\d{{0,2}}(?:\.\d{{3}})+)?(?:,\d*)?{_EXPONENT}"),
}
_SPACED = re.compile(r"(?<=\d)[ '’\u00a0\u202f\u2009](?=\d{3}(?!\d))")  # 1 234 and 1'234
_MONEY = re.compile(r"^([+-]?)[$€£¥]\s*|\s*[$€£¥]$")
_CODE = r"[+-]?(?:0\d|\d{16})"  # 0014 and long numbers are names: two of them could become one float64
_LOOK = 50  # values of a column of names that are tried as numbers before the rest is
_MOST = 20_000  # values that tell the decimal sign; each of them all is read with it then
_INFINITE = ("inf", "+inf", "-inf", "infinity", "-infinity")


def decimal_sign(decimal: str | None, thousands: str | None) -> str | None:
    """The decimal sign from what a user says of it and of thousands; None if the columns are to tell.

    Raises:
        ValueError: if one is no such sign, or both are the same.

    >>> decimal_sign(None, "."), decimal_sign(".", None), decimal_sign(None, " ")
    (',', '.', None)
    """
    if decimal not in (None, ".", ","):
        raise ValueError(f"decimal is {decimal!r}; it is '.' or ','")
    if thousands not in (None, ".", ",", " ", "'"):
        raise ValueError(f"thousands is {thousands!r}; it is ',', '.', a space or an apostrophe")
    if decimal is not None and decimal == thousands:
        raise ValueError(f"decimal and thousands are both {decimal!r}; they differ")
    return decimal or {",": ".", ".": ","}.get(thousands or "")


def numerals(frame: Any, decimal: str | None, na: Sequence[str]) -> tuple[Any, list[str]]:
    """The table with numbers in the columns of text that hold nothing else, and what was assumed for that.

    Args:
        frame: a table of pandas.
        decimal: the decimal sign; the columns tell if not given.
        na: what means missing, besides an empty cell.
    """
    import pandas

    marks = pandas.to_numeric(pandas.Series(na, dtype=object), errors="coerce").dropna().tolist()
    columns = [_without(frame.iloc[:, i], na) for i in range(frame.shape[1])]
    looked = [_look(column) for column in columns]
    odd = [column for column, (_, is_odd) in zip(columns, looked, strict=True) if is_odd]
    told = {sign for column in odd if (sign := _told(_distinct(column)))} if decimal is None else {decimal}
    if not told and any(_both(_distinct(column)) for column in odd):  # do the others say what 1,234 means?
        others = (column for column, (plain, _) in zip(columns, looked, strict=True) if plain is not None)
        told = {sign for column in others if (sign := _told(_distinct(column)))}
    sign = told.pop() if len(told) == 1 else None
    found = [_read(column, *each, sign, marks) for column, each in zip(columns, looked, strict=True)]
    made = pandas.concat(found, axis=1).set_axis(frame.columns, axis=1)
    made.attrs.update(decimal=sign, na=tuple(na))
    read = any(is_odd and not _is_text(each) for (_, is_odd), each in zip(looked, found, strict=True))
    assumed = ["took % for hundredths"] if read and any(_percents(column) for column in odd) else []
    commas = any(column.str.contains(",", regex=False, na=False).any() for column in odd)
    if decimal is None and sign and read and (sign == "," or commas):
        what = "the decimal sign (--decimal)" if sign == "," else "the sign of thousands (--thousands)"
        assumed.append(f"took ',' for {what}")
    return made, assumed


def parsed(texts: Sequence[str], decimal: str | None) -> tuple[Array, np.ndarray]:
    """The numbers that texts spell, and which of the texts spell none; missing ones are NaN and not among those.

    >>> parsed(["1.234,5", "NA", "red"], None)
    (array([1234.5,    nan,    nan]), array([False, False,  True]))
    """
    import pandas

    missing = np.array([text.lower() in MISSING for text in texts], dtype=bool)
    # What float() reads needs no patterns, which take twenty times as long.
    points = (
        [text.replace(",", ".") for text in texts] if decimal == "," and not any("." in t for t in texts) else texts
    )
    if decimal != "," or points is not texts:
        numbers = pandas.to_numeric(pandas.Series(points, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
        if not (np.isnan(numbers) & ~missing).any():
            return np.array(numbers), np.zeros(len(texts), dtype=bool)
    sign = decimal or _told(texts)
    if sign is None:  # every value reads both ways, or none does
        sign = "." if not _both(texts) else None
    numbers = np.array([np.nan if sign is None else _number(text, sign) for text in texts], dtype=np.float64)
    percent = np.array([text.endswith("%") for text in texts], dtype=bool)
    if percent.any():  # 0.5 beside 12%: nobody knows what the first one means
        numbers = np.where(percent, numbers / 100.0, np.nan)
    return numbers, np.isnan(numbers) & ~missing


def _without(column: Any, na: Sequence[str]) -> Any:
    """Text without what means missing."""
    if not _is_text(column):
        return column
    column = column.str.strip()
    return column.where(~column.isin([*na, ""]))


def _look(column: Any) -> tuple[Any, bool]:
    """The numbers of a column of text that needs no more than float(), else None; and whether it holds other text.

    Codes are no numbers, and what stands for a missing number is no other text.
    """
    import pandas

    if not _is_text(column):
        return None, False
    numbers = pandas.to_numeric(column, errors="coerce")
    rest = column[numbers.isna() & column.notna()]
    if len(rest) or len(rest) == len(column.dropna()):
        return None, any(text.lower() not in MISSING for text in _distinct(rest))
    whole = not (numbers % 1 > 0).any()
    return (None if whole and column.str.match(_CODE, na=False).any() else numbers), False


def _read(column: Any, plain: Any, odd: bool, sign: str | None, marks: Sequence[float]) -> Any:
    import pandas

    if plain is not None:
        if sign != "," or not column.str.contains(".", regex=False, na=False).any() or not _spelled(column, ","):
            return plain.mask(plain.isin(marks)) if marks else plain
    elif not _is_text(column):
        known = marks and pandas.api.types.is_numeric_dtype(column.dtype)
        return column.mask(column.isin(marks)) if known else column
    elif not odd:  # with NA, which may be a name; what takes the column for numbers knows that it is missing
        return column
    texts = column.dropna().tolist()
    if np.isnan(parsed(texts[:_LOOK], sign)[0]).any() or any(re.match(_CODE, text) for text in texts):
        return column
    numbers, _ = parsed(texts, sign)
    if np.isnan(numbers).any():
        return column
    return pandas.Series(numbers, index=column.dropna().index).reindex(column.index)


def _spelled(column: Any, sign: str) -> bool:
    return all(_PATTERNS[sign].fullmatch(text) for text in _distinct(column))


def _percents(column: Any) -> bool:
    return bool(column.dropna().str.endswith("%").all())


def _distinct(column: Any) -> list[str]:
    return list(column.dropna().drop_duplicates())


def _is_text(column: Any) -> bool:
    import pandas

    kind = column.dtype
    return bool(pandas.api.types.is_string_dtype(column) and not isinstance(kind, pandas.CategoricalDtype))


def _bare(text: str) -> str:
    return _SPACED.sub("", _MONEY.sub(r"\1", text.strip().replace("−", "-").removesuffix("%").strip()))


def _told(texts: Sequence[str]) -> str | None:
    """The decimal sign that the numbers among texts tell: each is a number with it, and one is not with the other."""
    texts = [text for text in texts[:_MOST] if text.lower() not in MISSING]
    fits = [tuple(bool(_PATTERNS[sign].fullmatch(_bare(text))) for sign in ".,") for text in texts]
    numbers = [fit for fit in fits if any(fit)]
    if 2 * len(numbers) < len(texts):  # names, among which a number stands
        return None
    point, comma = (all(fit[k] for fit in numbers) for k in (0, 1))
    return None if point == comma else "." if point else ","


def _both(texts: Sequence[str]) -> bool:
    """Whether one is 1,234, and nothing tells if it means 1234 or 1.234."""
    return any("," in text and all(p.fullmatch(_bare(text)) for p in _PATTERNS.values()) for text in texts)


def _number(text: str, sign: str) -> float:
    if text.lower() in _INFINITE:
        return float(text)
    bare = _bare(text)
    if not _PATTERNS[sign].fullmatch(bare):
        return np.nan
    return float(bare.replace("." if sign == "," else ",", "").replace(",", "."))
