"""Dates as people write them."""

import re
import warnings
from typing import Any

from gladient.data.numerals import MISSING

__all__ = ["dates", "first_not_date"]

_PARTS = re.compile(r"(\d{1,2})([/.\-])(\d{1,2})\2(\d{4}|\d{2})(\D.*)?")
_QUARTER = re.compile(r"(?:(\d{4})[ -]?)?[Qq]([1-4])(?:[ -]?(\d{4}))?")
_LIKE = re.compile(
    r"(?i)\d{4}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2}|\d{4}[ -]?q[1-4]|q[1-4][ -]?\d{4}|"
    r".*\b(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
)


def dates(values: Any) -> Any:
    """A series of dates without time zones, NaT where a value is missing; None if a value is no date.

    2010-01-31, 2010/1/31, 31.1.2010, 31/1/2010 or 1/31/2010, 31 Jan 2010, 2010Q1 and Q1 2010 are dates, numbers are
    none.

    Raises:
        ValueError: if no value tells which of 3/4/2010 is the month.

    >>> dates(["31/1/2010", "3/2/2010"]).dt.month.tolist()
    [1, 2]
    """
    import pandas

    values = pandas.Series(values)
    if pandas.api.types.is_datetime64_any_dtype(values.dtype):
        return values.dt.tz_convert(None) if getattr(values.dt, "tz", None) is not None else values
    if pandas.api.types.is_numeric_dtype(values.dtype) or isinstance(values.dtype, pandas.CategoricalDtype):
        return None
    codes, distinct = pandas.factorize(values)
    texts = {i: text for i, each in enumerate(distinct) if (text := str(each).strip()).lower() not in MISSING}
    if not texts or not all(_LIKE.match(text) for text in texts.values()):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, that it reads value by value
            read = pandas.to_datetime(pandas.Series(_iso(list(texts.values()))), format="mixed", utc=True)
    except (ValueError, OverflowError) as error:
        if "which is the month" in str(error):
            raise
        return None
    return read.dt.tz_localize(None).set_axis(list(texts)).reindex(codes).set_axis(values.index)


def first_not_date(values: Any) -> int:
    """The place of the first value that is no date, -1 if each is one.

    >>> first_not_date(["2010-01-31", None, "03/04/2010", "soon"])
    3
    """
    import pandas

    codes, distinct = pandas.factorize(pandas.Series(values))
    for i, each in enumerate(distinct):
        try:
            if dates([each]) is None and str(each).strip().lower() not in MISSING:
                return int((codes == i).argmax())
        except ValueError:  # 3/4/2010 is a date, if none that says which
            continue
    return -1


def _iso(texts: list[str]) -> list[str]:
    """Dates that begin with a day or a month with the year first; others as they are."""
    parts = [_PARTS.fullmatch(text) for text in texts]
    found = [_quarter(text) for text in texts]
    day_first = _day_first([part for part in parts if part]) if any(parts) else True
    for i, part in enumerate(parts):
        if part:
            day, month = (part[1], part[3]) if day_first else (part[3], part[1])
            year = part[4] if len(part[4]) == 4 else f"{'20' if int(part[4]) < 69 else '19'}{part[4]}"
            found[i] = f"{year}-{int(month):02}-{int(day):02}{part[5] or ''}"
    return found


def _quarter(text: str) -> str:
    match = _QUARTER.fullmatch(text)
    return f"{match[1] or match[3]}-{3 * int(match[2]) - 2:02}-01" if match else text


def _day_first(parts: list[re.Match[str]]) -> bool:
    if any(int(part[1]) > 12 for part in parts) or parts[0][2] == ".":  # with dots the day is first everywhere
        return True
    if any(int(part[3]) > 12 for part in parts):
        return False
    raise ValueError(f"of the date {parts[0][0]!r} nothing tells which is the month; write dates as 2010-01-31")
