"""Prompts from a panel, one row per group and time: periods of the past are the sources, the next one is the query."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gladient.data.columns import Names
from gladient.data.periods import Clock, Periods, bins_of, clock, each_time, windows_of
from gladient.data.prompt import Prompts
from gladient.data.shaping import Blocks, Rows, Table, clusters_of, listed, read_rows, shown_first
from gladient.data.table import counts_of

__all__ = ["prompts_from_panel"]

_LAGS = 3
_FEW_GROUPS = 5  # with fewer there are not five folds of groups to hold out, and clusters are times
_SERIES = 50  # windows of a series of single rows: enough prompts for standard errors, and the longest windows that do
_NAMED = 3  # prompts in a sentence
_SHORT = 0.1  # share of the prompts that may be too short before a prompt shows fewer examples


def prompts_from_panel(
    frame: Any,
    *,
    target: str,
    features: Sequence[str],
    time: str,
    group: str | None = None,
    lags: int | None = None,
    windows: str | None = None,
    bins: Sequence[str] = (),
    cluster: str | None = None,
    n: Sequence[int] = (),
    elapsed: Sequence[str] = (),
    changes: bool = False,
    drop_missing: bool = False,
) -> Table:
    """Prompts in which the past of a group is shown and what follows is asked: no row is later than a query's.

    Time is cut into periods, counted back from its end. A prompt asks about a group's rows of one period and shows
    those of the `lags` periods before it, the earliest first; with `bins` it asks about the last bin and shows the
    others. Without windows and bins a period is one time if groups have several rows of it; else some times together.

    Args:
        frame: one row per example.
        target: the column of labels.
        features: the columns of features; categories become one column for each level but the commonest.
        time: the column of times: numbers or dates.
        group: the column of groups; the table is one series if not given.
        lags: periods that a prompt shows before the query's, 3 if there are as many.
        windows: length of a period: 10y, 6mo, 2w, 1d, 12h, or 10 in the units of numbers.
        bins: last times of the periods, or how many periods of equally many times.
        cluster: the column of clusters, one value for each query. If not given the group, or with fewer than five
            groups runs of periods, with a gap that leaves out what they share.
        n: examples that a prompt shows of each source, its latest; one number for all or one each. If not given as
            many as nine in ten prompts have; those with fewer are left out.
        elapsed: features that are dates, to be taken as days since the earliest.
        changes: whether features and labels are changes since the group's row before, so that levels and trends go; a
            group has one row of each time then.
        drop_missing: whether rows with a missing value are left out.

    Raises:
        ValueError: if a column is absent, holds what it must not or has missing values, or no prompts come of it.

    >>> import pandas
    >>> rows = [(g, t, t % 3, g * t) for g in "1234567" for t in range(2000, 2012)]
    >>> frame = pandas.DataFrame(rows, columns=["g", "year", "x", "y"]).assign(y=lambda f: f.x * f.g.astype(int))
    >>> table = prompts_from_panel(frame, target="y", features=["x"], group="g", time="year", windows="4y", lags=2)
    >>> table.roles, table.n, table.names[0], table.prompts[0].query[1]
    (('2000–2003', '2004–2007'), (4, 4), 'g 1, 2008–2011', array([1., 2., 0., 1.]))
    """
    if windows is not None and bins:
        raise ValueError("windows and bins are both given; periods come from one of them: leave one out")
    if lags is not None and bins:
        raise ValueError("lags and bins are both given; a prompt shows all bins but the last: leave lags out")
    if lags is not None and lags < 1:
        raise ValueError(f"lags is {lags}; a prompt shows at least 1 period before the query's")
    named = [name for name in dict.fromkeys((group, cluster)) if name is not None]
    rows = read_rows(
        frame,
        target=target,
        wanted=features,
        named=named,
        elapsed=elapsed,
        drop_missing=drop_missing,
        missing_too=lambda frame: {time: np.isnan(clock(frame, time).t)},
    )
    if changes:
        rows = _changes(rows, rows.columns[group].codes if group else np.zeros(len(rows.y)), clock(rows.frame, time))
    panel = _Panel(rows, group, clock(rows.frame, time))
    if bins:
        periods = bins_of(panel.clock, bins)
        lags = len(periods.names) - 1
    elif windows is not None:
        periods = windows_of(panel.clock, windows)
        lags = lags or min(_LAGS, max(1, len(periods.names) - 1))
    else:
        periods, lags = panel.periods(lags)
    return panel.table(periods, lags, once=bool(bins), n=n, cluster=cluster)


def _changes(rows: Rows, group: np.ndarray, clock: Clock) -> Rows:
    """The rows with a row before them in their group, less that one."""
    order = np.lexsort((clock.t, group))
    follows = np.diff(group[order]) == 0
    later, before = order[1:][follows], order[:-1][follows]
    same = clock.t[later] == clock.t[before]
    if same.any():
        i = int(later[np.argmax(same)])
        raise ValueError(
            f"changes are asked for and a group has two rows of one time, {clock.text(clock.t[i])} (row "
            f"{rows.frame.index[i]} is the second); name the column of groups that tells them apart (--group)"
        )
    X, y = rows.features.X.copy(), rows.y.copy()
    X[later] -= rows.features.X[before]
    y[later] -= rows.y[before]
    kept = np.sort(later)
    return replace(
        rows,
        frame=rows.frame.iloc[kept],
        places=rows.places[kept],
        features=replace(rows.features, X=X[kept]),
        y=y[kept],
        columns={name: replace(each, codes=each.codes[kept]) for name, each in rows.columns.items()},
        said=(*rows.said, f"changes since the row before: {len(order) - len(kept)} first rows have none"),
    )


class _Panel:
    """The rows of a panel, by group and time.

    Args:
        rows: what they hold.
        group: the column of groups, if there is one.
        clock: their times.
    """

    def __init__(self, rows: Rows, group: str | None, clock: Clock) -> None:
        self.rows, self.clock, self.said = rows, clock, list(rows.said)
        self.title = group or ""
        self.groups = rows.columns[group] if group is not None else Names(("",), np.zeros(len(rows.y), np.intp), False)
        self.few = len(set(self.groups.codes.tolist())) < _FEW_GROUPS

    def periods(self, lags: int | None) -> tuple[Periods, int]:
        """Periods where nothing is said: each time, if groups have several rows of it, else some times together."""
        periods = each_time(self.clock)
        times = len(periods.names)
        _, counts = np.unique(self.groups.codes * times + periods.codes, return_counts=True)
        if np.median(counts) > 1:
            return periods, lags or min(_LAGS, max(1, times - 1))
        shown = lags or max(1, min(_LAGS, times // 2 - 1))
        together = times // (shown + 1)
        if self.few:
            together = max(2, min(together, times // _SERIES))
        if times < 2 * (shown + 1):
            raise ValueError(
                f"there is one row of each time, and {times} times are too few for {shown} periods of two rows before "
                "the query's; take fewer lags, or a table with more times"
            )
        periods = each_time(self.clock, together)
        self.said.append(f"one row of each time: {together} times together are a period (--windows sets their length)")
        return periods, shown

    def table(self, periods: Periods, lags: int, *, once: bool, n: Sequence[int], cluster: str | None) -> Table:
        """Prompts of `lags` periods and the one after them, the last of all or every one."""
        count = len(periods.names)
        if count < lags + 1:
            raise ValueError(
                f"there are {count} periods ({listed(periods.names)}) and a prompt takes {lags + 1} of them; take "
                "shorter windows or fewer lags"
            )
        blocks = Blocks(self.groups.codes * count + periods.codes, self.rows, np.argsort(self.clock.t, kind="stable"))
        asked = blocks.codes[blocks.codes % count >= (count - 1 if once else lags)]
        by_time = self.few and not once  # clusters are times then, which must be neighbours
        asked = asked[np.argsort(asked % count, kind="stable")] if by_time else asked
        at = np.stack([blocks.find(asked - back) for back in range(lags, -1, -1)])
        have = np.where(at < 0, 0, blocks.examples.n[at])
        roles = periods.names[:-1] if count == lags + 1 else tuple(f"lag {k}" for k in range(lags, 0, -1))
        shown = counts_of(n, roles) or self._usual(have)
        kept = self._long_enough(asked, have, shown, (*roles, "the query"), periods)
        parts = [blocks.take(each[kept]) for each in at]
        for k, (examples, chosen) in enumerate(parts[:-1]):  # the latest are nearest to the query
            parts[k] = shown_first(examples, chosen, np.arange(len(chosen), dtype=np.float64), shown[k])
        titles = self._titles(asked[kept], periods)
        if cluster is not None:
            clusters = clusters_of(self.rows, cluster, *parts[-1], titles)
        elif by_time:
            clusters = [f"run {run}" for run in (asked[kept] % count // (lags + 1)).tolist()]
        else:
            clusters = [self.groups.texts[g] for g in (asked[kept] // count).tolist()]
        return Table(
            prompts=Prompts(tuple(examples for examples, _ in parts)),
            clusters=clusters,
            roles=roles,
            names=titles,
            features=self.rows.features.names,
            rows=tuple(self.rows.places[chosen] for _, chosen in parts),
            n=shown,
            gap=_gap(asked[kept], lags, count, clusters),
            said=tuple(self.said),
        )

    def _usual(self, have: np.ndarray) -> tuple[int, ...]:
        """Examples of each source that nine in ten prompts have."""
        whole = (have > 0).all(0)
        if not whole.any():
            most = int((have > 0).sum(0).max(initial=0))
            raise ValueError(
                f"no group has rows in all {len(have)} periods of a prompt, {most} of them at most; take longer "
                "windows, fewer lags, or a column that tells times apart more finely"
            )
        n = tuple(np.quantile(have[:-1, whole], _SHORT, axis=1, method="lower").astype(int).tolist())
        self.said.append(f"a prompt shows {', '.join(map(str, n))} examples of its sources (--n sets another number)")
        return n

    def _long_enough(
        self, asked: np.ndarray, have: np.ndarray, n: Sequence[int], roles: Sequence[str], periods: Periods
    ) -> np.ndarray:
        """The prompts with enough examples of each source and a query; the others are counted and named."""
        need = np.array([*n, 1])
        lacks = have < need[:, None]
        short, kept = np.flatnonzero(lacks.any(0)), np.flatnonzero(~lacks.any(0))
        some = short[:_NAMED]
        told = [
            f"{title} has {have[k, i]} of {need[k]} examples in {roles[k]}"
            for title, i, k in zip(self._titles(asked[some], periods), some, lacks[:, some].argmax(0), strict=True)
        ]
        if told:
            more = f" and {len(short) - len(told)} more" if len(short) > len(told) else ""
            self.said.append(f"left out {len(short)} of {len(asked)} prompts as too short: {'; '.join(told)}{more}")
        if len(kept) < 2:
            raise ValueError(
                f"{len(kept)} prompt comes of this panel{f' ({self.said[-1]})' if told else ''}; take more groups, "
                "shorter windows, fewer lags or a smaller n"
            )
        count = len(periods.names)
        lost = [self.groups.texts[g] for g in np.setdiff1d(self.groups.codes, asked[kept] // count).tolist()]
        if lost:
            self.said.append(f"{len(lost)} of {len(self.groups.texts)} groups give no prompt: {listed(lost)}")
        return kept

    def _titles(self, asked: np.ndarray, periods: Periods) -> tuple[str, ...]:
        count = len(periods.names)
        of = [f"{self.title} {text}, " if self.title else "" for text in self.groups.texts]
        return tuple(f"{of[code // count]}{periods.names[code % count]}" for code in asked.tolist())


def _gap(asked: np.ndarray, lags: int, count: int, clusters: Sequence[Any]) -> int:
    """How many clusters apart prompts are that share rows: those of a group, up to `lags` periods apart."""
    order = np.argsort(asked)
    numbers = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
    cluster, found = np.array([numbers[label] for label in clusters]), 0
    for back in range(1, lags + 1):
        earlier = np.minimum(np.searchsorted(asked, asked - back, sorter=order), len(asked) - 1)
        share = (asked[order[earlier]] == asked - back) & (asked % count >= back)
        found = max(found, int(np.abs(cluster - cluster[order[earlier]])[share].max(initial=0)))
    return found
