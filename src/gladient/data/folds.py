"""Held-out blocks of clusters, and standard errors that count a cluster as one."""

from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from gladient._types import Array

__all__ = ["clustered_error", "folds_of"]


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
