"""Which assumption of the theory the data break, and which of those explains that predicted and measured disagree."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gladient.data.agreement import BASE, Drift, apart, drift_of
from gladient.data.cautions import SHARE, called, outlier
from gladient.data.crossfitting import CrossFit, estimates
from gladient.data.folds import Split, split
from gladient.data.prompt import Prompts

__all__ = ["Culprit", "culprits"]

OWN_LEVEL = 0.25  # share of the features' variance that a task's examples share; 0 where every example is fresh
MANY = 0.25  # of the prompts: without more of them these would be other data
BEYOND = 0.25  # share of queries outside the range of their sources beyond what chance puts there
TOP, HELD = 0.01, 0.3  # of the examples, and of the labels' squares: Gaussian tasks and noise put 11% to 15% there


@dataclass(frozen=True)
class Culprit:
    """An assumption that the data break.

    Attributes:
        kind: intercept, outliers, drift, features, range, or one example.
        message: what was seen, and the cure.
        explains: whether predicted and measured agree without it; None if that was not tried.
    """

    kind: str
    message: str
    explains: bool | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def culprits(found: CrossFit, gate: str, drift: Drift | None) -> tuple[Culprit, ...]:
    """Every assumption that these data break, the likeliest first.

    Where predicted and measured disagree, what can be removed is removed: levels by an intercept, outliers with their
    prompts, a drift by folds of every fifth cluster. Those without which both agree come
    first.

    Args:
        found: what was predicted and measured.
        gate: the family whose disagreement is asked about.
        drift: that of the errors, if there is one.
    """
    white = found.estimated.transform.unmapped.prompts(found.of.prompts)
    removable = (*_levels(found), *_outliers(found, white), *_drift(found, drift))
    seen = [*removable, *((culprit, None) for culprit in (*_features(white), *_range(white), *_single(white)))]
    if (drift is not None and drift.rises) or apart(found, gate):
        seen = [(_tried(culprit, without, gate), without) for culprit, without in seen]
    order = {True: 0, None: 1, False: 2}
    return tuple(sorted((culprit for culprit, _ in seen), key=lambda each: order[each.explains]))


Seen = Iterator[tuple[Culprit, Split | None]]  # and the data without it, where that can be made


def _tried(culprit: Culprit, without: Split | None, gate: str) -> Culprit:
    if without is None:
        return culprit
    try:
        again = estimates(without).compare()
        left = drift_of(again)
        explains = not apart(again, gate) and (left is None or not left.rises)
    except ValueError:
        explains = False
    told = "; without it predicted and measured agree" if explains else ""
    return replace(culprit, explains=explains, message=culprit.message + told)


def _levels(found: CrossFit) -> Seen:
    if any(caution.kind == "level" for caution in found.warnings):
        message = "tasks differ in level, which the features do not carry; ask again with --intercept"
        yield Culprit("intercept", message), replace(found.of.split, intercept=True)


def _outliers(found: CrossFit, white: Prompts) -> Seen:
    of, names = found.of.split, found.of.split.names
    place, share = outlier(found.errors[BASE])
    alone = share > max(SHARE, 4.0 / len(of.prompts))  # of a few prompts each has a large share
    squares = np.concatenate([role.y**2 for role in white.roles])
    prompt = np.concatenate([role.prompt for role in white.roles])
    count = int(np.ceil(TOP * len(squares)))
    top = np.argsort(-squares)[:count]
    held = float(squares[top].sum() / squares.sum())
    many = held > max(HELD, 10.0 * count / len(squares))
    if not alone and not many:
        return
    told = [f"{called(names, place)} alone makes {share:.0%} of the measured error"] if alone else []
    if many:
        which = "one example holds" if count == 1 else f"{count} of {len(squares)} examples hold"
        told.append(f"{which} {held:.0%} of the labels' squares, the largest in {called(names, int(prompt[top[0]]))}")
    out = np.union1d([place] * alone, prompt[top] if many else []).astype(int)
    message = f"{' and '.join(told)}; look at these rows, or take logarithms of labels that are never below 0"
    few = len(out) <= MANY * len(of.prompts)
    yield Culprit("outliers", message), _kept(of, np.setdiff1d(np.arange(len(of.prompts)), out)) if few else None


def _drift(found: CrossFit, drift: Drift | None) -> Seen:
    if drift is not None:
        yield (
            Culprit("drift", f"{drift.text}; use changes (--changes, for a panel), or a shorter time"),
            _interleaved(found.of.split),
        )


def _features(white: Prompts) -> Iterator[Culprit]:
    """Features that hardly vary within a task: E x_i · x_j over two examples of one task is 0 if both are fresh."""
    several = [role for role in white.roles if (role.n > 1).any()]
    pairs = [np.sum(role.totals(role.X) ** 2) - np.sum(role.X**2) for role in several]
    X = np.concatenate([role.X for role in several]) if several else np.zeros((0, 0))
    varies = X.std(0) > 0  # an intercept is the same everywhere by intent
    counts = sum(float(np.sum(role.n * (role.n - 1.0))) for role in several) or 1.0
    share = (sum(map(float, pairs)) / counts - float(np.sum(~varies))) / max(1, int(varies.sum()))
    if share > OWN_LEVEL:
        message = (
            f"{min(share, 1.0):.0%} of the features' variance is a level that a task's examples share, and the theory "
            "draws them anew for each example; use changes instead of levels (--changes, for a panel)"
        )
        yield Culprit("features", message)


def _range(white: Prompts) -> Iterator[Culprit]:
    """Queries whose features lie outside those of their own prompt's sources."""
    source = [(role.X, role) for role in white.sources]
    low = np.min([np.minimum.reduceat(X, role.starts, axis=0) for X, role in source], axis=0)
    high = np.max([np.maximum.reduceat(X, role.starts, axis=0) for X, role in source], axis=0)
    query = white.query
    outside = (low[query.prompt] > query.X) | (high[query.prompt] < query.X)
    chance = float(np.mean(2.0 / (1.0 + np.sum([role.n for role in white.sources], axis=0))))
    varies = query.X.std(0) > 0
    worst = float((outside.mean(0) * varies).max(initial=0.0))
    if worst > chance + BEYOND:
        message = (
            f"{worst:.0%} of the queries have a feature outside the range of their own sources, and chance puts "
            f"{chance:.0%} there: the prediction is an extrapolation (for a panel, --changes cures a trend)"
        )
        yield Culprit("range", message)


def _single(white: Prompts) -> Iterator[Culprit]:
    single = [str(k) for k, role in enumerate(white.roles, start=1) if (role.n == 1).all()]
    if single:
        message = (
            f"role {', '.join(single)} has one example in each prompt, so its tasks' strength is taken from others"
        )
        yield Culprit("one example", message)


def _kept(of: Split, places: np.ndarray) -> Split | None:
    """Some of the prompts, in folds of their own."""
    clusters = [of.clusters[i] for i in places.tolist()]
    names = [of.names[i] for i in places.tolist()] if of.names else ()
    try:
        return split(
            of.prompts.take(places), clusters=clusters, n=of.n, folds=len(of.folds), intercept=of.intercept, names=names
        )
    except ValueError:
        return None


def _interleaved(of: Split) -> Split | None:
    """Folds of every fifth cluster: all times are in each, and so is a little of what neighbours share."""
    numbers = {label: i for i, label in enumerate(dict.fromkeys(of.clusters))}
    cluster = np.array([numbers[label] for label in of.clusters])
    return _kept(of, np.lexsort((cluster, cluster % len(of.folds))))
