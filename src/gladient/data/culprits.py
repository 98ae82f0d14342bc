"""Which assumption of the theory the data break, where predicted and measured disagree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gladient._types import Array
from gladient.data.cautions import SHARE, Caution, called, outlier
from gladient.data.crossfitting import CrossFit
from gladient.data.prompt import Prompts

__all__ = ["Culprit", "culprits"]

OWN_LEVEL = 0.25  # share of the features' variance that a task's examples share; 0 where every example is fresh
BEYOND = 0.25  # share of queries outside the range of their sources beyond what chance puts there


@dataclass(frozen=True)
class Culprit:
    """An assumption that the data break.

    Attributes:
        kind: intercept, outliers, range, features, drift, or one example.
        message: what was seen, and the cure.
    """

    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def culprits(found: CrossFit, gate: str) -> tuple[Culprit, ...]:
    """Every assumption that these data break, the likeliest first.

    Args:
        found: what was predicted and measured.
        gate: the family whose errors are asked about.
    """
    white = found.estimated.transform.unmapped.prompts(found.of.gathered)
    return (
        *_levels(found.warnings),
        *_outliers(found.errors[gate], white, found.of.names),
        *_features(white),
        *_range(white),
        *_drift(found.warnings, len(found.of.folds)),
        *_single(white),
    )


def _levels(warnings: tuple[Caution, ...]) -> Iterator[Culprit]:
    if any(caution.kind == "level" for caution in warnings):
        yield Culprit("intercept", "tasks differ in level, which the features do not carry; ask again with --intercept")


def _outliers(errors: Array, white: Prompts, names: Sequence[str]) -> Iterator[Culprit]:
    prompt, share = outlier(errors)
    if share > max(SHARE, 4.0 / len(errors)):  # of a few prompts each has a large share
        yield Culprit(
            "outliers", f"{called(names, prompt)} alone makes {share:.0%} of the measured error; look at its rows"
        )
    for k, role in enumerate(white.roles, start=1):
        row, share = outlier(role.y**2)
        if share > max(SHARE, 4.0 / len(role.y)):
            of = f"one example of role {k} ({called(names, int(role.prompt[row]))})"
            yield Culprit("outliers", f"{of} holds {share:.0%} of the squares of its labels; look at it")


def _features(white: Prompts) -> Iterator[Culprit]:
    """Features that hardly vary within a task: E x_i · x_j over two examples of one task is 0 if both are fresh."""
    several = [role for role in white.roles if (role.n > 1).any()]
    pairs = [np.sum(role.totals(role.X) ** 2) - np.sum(role.X**2) for role in several]
    X = np.concatenate([role.X for role in several]) if several else np.zeros((0, 0))
    varies = X.std(0) > 0  # an intercept is the same everywhere by intent
    counts = sum(float(np.sum(role.n * (role.n - 1.0))) for role in several) or 1.0
    share = (sum(map(float, pairs)) / counts - float(np.sum(~varies))) / max(1, int(varies.sum()))
    if share > OWN_LEVEL:
        yield Culprit(
            "features",
            f"{share:.0%} of the features' variance is a level that a task's examples share, and the theory draws them "
            "anew for each example; take off each task's own mean, or use changes instead of levels",
        )


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
        yield Culprit(
            "range",
            f"{worst:.0%} of the queries have a feature outside the range of their own sources, and chance puts "
            f"{chance:.0%} there: the prediction is an extrapolation",
        )


def _drift(warnings: tuple[Caution, ...], folds: int) -> Iterator[Culprit]:
    shifted = {caution.message.split(":")[0] for caution in warnings if caution.kind == "shift"}
    if shifted:
        yield Culprit(
            "drift",
            f"held-out prompts have other second moments than those of the estimate in {len(shifted)} of {folds} folds",
        )


def _single(white: Prompts) -> Iterator[Culprit]:
    single = [str(k) for k, role in enumerate(white.roles, start=1) if (role.n == 1).all()]
    if single:
        yield Culprit(
            "one example",
            f"role {', '.join(single)} has one example in each prompt, so its tasks' strength is taken from the others",
        )
