"""Held-out blocks of clusters, and standard errors that count a cluster as one."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gladient._types import Array
from gladient.data.estimate import counts_shown
from gladient.data.prompt import Prompt, Prompts
from gladient.data.refusal import RefusedError

__all__ = ["Split", "clustered_error", "folds_of", "split"]

_FOLDS = 5  # a fifth held out leaves an estimate nearly as good as that of all


@dataclass(frozen=True, eq=False)
class Split:
    """Prompts in blocks of clusters, each of which is held out once.

    Attributes:
        prompts: all of them.
        clusters: the cluster of each.
        n: examples of each source that a prompt shows.
        intercept: whether each task has a level of its own.
        folds: the places of the prompts to fit and of those held out, for each block.
        names: what each prompt is called; empty if they have numbers alone.
    """

    prompts: Prompts
    clusters: Sequence[Hashable]
    n: tuple[int, ...]
    intercept: bool
    folds: tuple[tuple[np.ndarray, np.ndarray], ...]
    names: Sequence[str] = ()


def split(
    prompts: Sequence[Prompt],
    *,
    clusters: Sequence[Hashable] | None = None,
    n: Sequence[int] | None = None,
    folds: int | None = None,
    gap: int = 0,
    intercept: bool = False,
    names: Sequence[str] = (),
) -> Split:
    """Prompts in folds; see `cross_fit` for the arguments.

    Raises:
        ValueError: if the arguments do not fit the prompts.
        RefusedError: a ValueError, if the prompts are too few for folds.
    """
    if len(prompts) < 2:
        raise ValueError(f"{len(prompts)} prompt came: each role has one task; give many prompts, with new tasks each")
    gathered = Prompts.of(prompts)
    labels = list(range(len(gathered)) if clusters is None else clusters)
    if len(labels) != len(gathered):
        raise ValueError(f"clusters has {len(labels)} entries for {len(gathered)} prompts; give each prompt's cluster")
    number = len(set(labels))
    if number < 2:
        raise RefusedError("all prompts are in one cluster; standard errors need at least two, and predictions many")
    blocks = folds_of(labels, min(_FOLDS, number) if folds is None else folds, gap)
    for place, (fitted, _) in enumerate(blocks, start=1):
        if len(fitted) < 2:
            raise RefusedError(
                f"folds is {len(blocks)} and gap {gap}: with fold {place} held out, {len(fitted)} of {len(gathered)} "
                "prompts are left to fit; take more folds, a smaller gap, or more clusters"
            )
    return Split(gathered, labels, tuple(counts_shown(gathered, n).tolist()), intercept, tuple(blocks), names)


def folds_of(labels: Sequence[Hashable], folds: int, gap: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Indices of the prompts to fit and of those held out, for each contiguous block of clusters.

    Args:
        labels: the cluster of each prompt.
        folds: how many blocks.
        gap: clusters on either side of a block that belong to neither part.

    Raises:
        ValueError: if folds are fewer than two or more than the clusters, or gap is below 0.

    >>> [(train.tolist(), test.tolist()) for train, test in folds_of("aabbcd", 2, gap=1)]
    [([5], [0, 1, 2, 3]), ([0, 1], [4, 5])]
    """
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    if not 2 <= folds <= len(numbers):
        raise ValueError(f"folds is {folds} with {len(numbers)} clusters; there must be from 2 to as many as clusters")
    if gap < 0:
        raise ValueError(f"gap is {gap}; it counts clusters, 0 or more")
    cluster = np.array([numbers[label] for label in labels])
    ends = np.linspace(0, len(numbers), folds + 1).round().astype(int).tolist()
    return [
        (
            np.flatnonzero((cluster < start - gap) | (cluster >= end + gap)),
            np.flatnonzero((cluster >= start) & (cluster < end)),
        )
        for start, end in pairwise(ends)
    ]


def clustered_error(values: Array, labels: Sequence[Hashable]) -> float:
    """Standard error of the mean, with the values of a cluster taken as one.

    >>> round(clustered_error(np.array([1.0, 2.0, 3.0, 4.0]), "abcd"), 4)
    0.6455
    """
    # Errors within a cluster add up, those of two clusters are independent; C/(C - 1), as the mean is the values' own.
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    sums = np.bincount([numbers[label] for label in labels], weights=values - values.mean())
    return float(np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1)) / len(values))
