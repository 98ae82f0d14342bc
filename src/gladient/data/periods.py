"""Periods of time: the windows or bins into which the times of a panel fall, in order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gladient._types import Array
from gladient.data.columns import column, not_a_date, numbers
from gladient.data.dates import dates

__all__ = ["Clock", "Periods", "bins_of", "clock", "each_time", "windows_of"]

_LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_UNITS = {"y": "y", "year": "y", "m": "mo", "mo": "mo", "month": "mo", "w": "w", "week": "w", "d": "d", "day": "d"}
_UNITS |= {"h": "h", "hour": "h", "min": "min", "minute": "min", "s": "s", "second": "s"}
_SECONDS = {"w": 7 * 86400, "d": 86400, "h": 3600, "min": 60, "s": 1}


@dataclass(frozen=True, eq=False)
class Clock:
    """The times of a table's rows.

    Attributes:
        t: numbers, or seconds since 1970 for dates; NaN where one is missing.
        dated: whether they are dates.
    """

    t: Array
    dated: bool

    def text(self, t: float) -> str:
        """One time as people write it."""
        if not self.dated:
            return str(int(t)) if float(t).is_integer() else f"{t:g}"
        return str(np.datetime64(int(t), "s")).removesuffix("T00:00:00").replace("T", " ")

    def span(self, t: Array) -> str:
        """The first and the last time."""
        first, last = self.text(t.min()), self.text(t.max())
        if self.dated and first[:10] == last[:10] and t.min() < t.max():
            return first[:10]
        return first if first == last else f"{first}–{last}"


@dataclass(frozen=True, eq=False)
class Periods:
    """Periods of time in order.

    Attributes:
        codes: the period of each row, from 0.
        names: what each is called, by the first and last time in it.
    """

    codes: np.ndarray
    names: tuple[str, ...]


def clock(frame: Any, name: str) -> Clock:
    """The times of a column of numbers or dates.

    Raises:
        ValueError: if it holds neither.
    """
    found = dates(column(frame, name))
    if found is None:
        if (found := dates(column(frame, name).dropna().head(1))) is not None:
            raise not_a_date(frame, name)
        t = numbers(frame, name)
        found = _compact(t)
        if found is None:
            return Clock(t, dated=False)
    seconds = found.to_numpy(dtype="datetime64[s]")
    return Clock(np.where(np.isnat(seconds), np.nan, seconds.astype(np.int64).astype(np.float64)), dated=True)


def each_time(clock: Clock, together: int = 1) -> Periods:
    """A period for each time, or for some that follow one another; they are counted back from the last."""
    distinct, codes = np.unique(clock.t, return_inverse=True)
    return _named(clock, (len(distinct) - 1 - codes) // together)


def windows_of(clock: Clock, length: str) -> Periods:
    """Windows of a length such as 10y, 6mo, 2w, 1d, 12h, or 10 in the units of the numbers, back from the last time.

    Years are twelve months each, months those of the calendar, days end at midnight.

    Raises:
        ValueError: if it is no length, or of a unit that the times do not have.
    """
    match = _LENGTH.fullmatch(length.strip())
    unit = match[2].lower() if match else ""
    unit = _UNITS.get(unit, _UNITS.get(unit.removesuffix("s"), unit))
    if not match or float(match[1]) <= 0 or (unit and unit not in _UNITS.values()):
        raise ValueError(f"windows is {length!r}; give a length such as 10y, 6mo, 2w, 1d or 12h, or 10 for numbers")
    size = float(match[1])
    if not clock.dated:
        if unit not in ("", "y"):
            raise ValueError(f"windows is {length!r} and the times are numbers; give a length in their units, as 10")
        # what rounding leaves of (2.0 - 1.7) / 0.1 must not open a window of its own
        return _named(clock, np.floor((clock.t.max() - clock.t) / size + 1e-9))
    if not unit or size != int(size):
        raise ValueError(f"windows is {length!r} and the times are dates; give a whole number and a unit, such as 10y")
    if unit in ("y", "mo"):
        ticks = clock.t.astype("datetime64[s]").astype("datetime64[M]").astype(np.float64)
        size *= 12 if unit == "y" else 1
    else:  # windows of days begin at midnight, of hours on the hour
        step = _SECONDS["d" if unit == "w" else unit]
        ticks, size = np.floor(clock.t / step), size * _SECONDS[unit] / step
    return _named(clock, np.floor((ticks.max() - ticks) / size))


def bins_of(clock: Clock, bins: Sequence[str]) -> Periods:
    """Bins by their last times; one number is how many bins of equally many times there are.

    Raises:
        ValueError: if they are no times in order, or there are fewer than two bins.
    """
    distinct = np.unique(clock.t)
    if len(bins) == 1:
        count = int(bins[0]) if bins[0].isdigit() else 0
        if not 2 <= count <= len(distinct):
            raise ValueError(
                f"bins is {bins[0]}; one number is how many bins the {len(distinct)} times make, from 2 on: give the "
                "last times of two bins or more to set them by time"
            )
        ends = np.array([part[-1] for part in np.array_split(distinct, count)])
    else:
        ends = _ends(clock, bins)
    _, codes = np.unique(np.searchsorted(ends, clock.t, side="left"), return_inverse=True)  # bins without a time go
    if codes.max() == 0:
        raise ValueError(
            f"bins {' '.join(bins)} put all times, {clock.span(distinct)}, into one; give times among them"
        )
    return _named(clock, codes.max() - codes)


def _ends(clock: Clock, bins: Sequence[str]) -> Array:
    try:
        found = dates(list(bins)) if clock.dated else None
        read = found.to_numpy(dtype="datetime64[s]").astype(np.int64) if found is not None else [float(b) for b in bins]
    except ValueError:
        read = []
    ends = np.array(read, dtype=np.float64)
    if len(ends) != len(bins) or (np.diff(ends) <= 0).any():
        span = clock.span(clock.t)
        raise ValueError(f"bins are {' '.join(bins)}; they are last times of bins, within {span} and in order")
    return ends


def _named(clock: Clock, back: np.ndarray) -> Periods:
    """Periods from how many come after each."""
    codes = (back.max() - back).astype(np.int64)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(codes.max() + 2))
    spans = [clock.t[order[a:b]] for a, b in pairwise(ends.tolist())]
    return Periods(codes, tuple(clock.span(span) if len(span) else "no time" for span in spans))


def _compact(t: Array) -> Any:
    """Dates written as numbers like 20100131; None if the numbers are something else."""
    import pandas

    known = t[~np.isnan(t)]
    if len(known) == 0 or not ((known >= 18000101) & (known <= 21001231) & (known == np.floor(known))).all():
        return None
    found = pandas.to_datetime(pandas.Series(t).astype("Int64").astype("string"), format="%Y%m%d", errors="coerce")
    return found if found.notna().sum() == len(known) else None
