"""Intervals of means over clusters that hold what they say, for values of heavy tails too."""

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import stdtrit

from gladient._types import Array, Float

__all__ = ["mean_intervals", "percentile", "studentised"]

_DRAWS = 999  # the 2.5% quantile is then the 25th smallest, known to a fifth of its distance from the median
_MOST = 400  # clusters that are drawn one by one; neighbours are joined where there are more: draws × clusters numbers
_SIDE = 0.025  # on either side of a 95% interval


def mean_intervals(values: Float[Array, "G Q"], labels: Sequence[Hashable]) -> Float[Array, "Q 2"]:
    """95% intervals of the means of Q columns: at each end the farther of Student's and the studentised bootstrap's.

    Skewed values need the bootstrap, as the sample that misses the tail has a mean and an error that are both too
    small; of symmetric ones with heavy tails the bootstrap's ends are too near. `benchmarks.data_coverage` measures it.

    Args:
        values: one row for each prompt.
        labels: the cluster of each, at least two.

    Source: Efron and Tibshirani (1993), An introduction to the bootstrap, section 12.5, over clusters; the farther end
    is ours.

    >>> mean_intervals(np.arange(20.0)[:, None], range(20)).round(1)
    array([[ 6.7, 12.4]])
    """
    bootstrapped, student = studentised(values, labels), _student(values, labels)
    return np.column_stack(
        [np.minimum(bootstrapped[:, 0], student[:, 0]), np.maximum(bootstrapped[:, 1], student[:, 1])]
    )


def studentised(values: Float[Array, "G Q"], labels: Sequence[Hashable]) -> Float[Array, "Q 2"]:
    """The interval by the quantiles of (mean - truth) / error over draws of clusters."""
    sums, counts, mean = _clusters(values, labels)
    drawn = _draws(len(counts))
    rows = drawn @ counts
    shifts = drawn @ sums / rows[:, None]
    # Σ w (s - m n)² of each draw; sums are around the mean already, so nothing large cancels
    crossed = 2.0 * shifts * (drawn @ (sums * counts[:, None]))
    squares = drawn @ sums**2 - crossed + shifts**2 * (drawn @ counts**2)[:, None]
    errors, error = _error(squares, rows[:, None], len(counts)), _error((sums**2).sum(0), counts.sum(), len(counts))
    # A draw that misses the one cluster of most of the spread has next to no error, and its t would reach 10⁶: a tenth
    # of the error is the least. A column of one number has none; its t is 0.
    errors = np.maximum(errors, 0.1 * error)
    t = np.where(errors > 0, shifts / np.where(errors > 0, errors, 1.0), 0.0)
    high, low = np.quantile(t, [_SIDE, 1.0 - _SIDE], axis=0)
    return np.column_stack([mean - low * error, mean - high * error])


def percentile(values: Float[Array, "G Q"], labels: Sequence[Hashable]) -> Float[Array, "Q 2"]:
    """The interval by the quantiles of the mean itself over draws of clusters, to compare."""
    sums, counts, mean = _clusters(values, labels)
    drawn = _draws(len(counts))
    return np.asarray(
        mean[:, None] + np.quantile(drawn @ sums / (drawn @ counts)[:, None], [_SIDE, 1 - _SIDE], axis=0).T
    )


def _student(values: Array, labels: Sequence[Hashable]) -> Array:
    sums, counts, mean = _clusters(values, labels)
    half = stdtrit(len(counts) - 1, 1.0 - _SIDE) * _error((sums**2).sum(0), counts.sum(), len(counts))
    return np.column_stack([mean - half, mean + half])


def _draws(clusters: int) -> Array:
    # The same seed always: a verdict that changes from call to call is none.
    rng = np.random.default_rng(0)
    return rng.multinomial(clusters, np.full(clusters, 1.0 / clusters), size=_DRAWS).astype(np.float64)


def _clusters(values: Array, labels: Sequence[Hashable]) -> tuple[Array, Array, Array]:
    """Sums around the mean and counts of each cluster or of neighbours, and the means."""
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    groups = min(len(numbers), _MOST)
    codes = np.array([numbers[label] * groups // len(numbers) for label in labels])
    mean = values.mean(0)
    sums = np.stack([np.bincount(codes, weights=column) for column in (values - mean).T], axis=1)
    return np.asarray(sums, dtype=np.float64), np.bincount(codes).astype(np.float64), mean


def _error(squares: Array, rows: Array, clusters: int) -> Array:
    return np.asarray(np.sqrt(squares.clip(0.0) * clusters / (clusters - 1)) / rows)
