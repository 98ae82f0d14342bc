"""Intervals of means by the bootstrap over clusters, for values whose tails are too heavy for a standard error."""

from collections.abc import Hashable, Sequence

import numpy as np

from gladient._types import Array, Float

__all__ = ["mean_intervals"]

_DRAWS = 999  # the 2.5% quantile is then the 25th smallest, known to a fifth of its distance from the median
_MOST = 400  # clusters that are drawn one by one; neighbours are joined where there are more: draws × clusters numbers
_SIDE = 0.025  # on either side of a 95% interval


def mean_intervals(values: Float[Array, "G Q"], labels: Sequence[Hashable]) -> Float[Array, "Q 2"]:
    """95% intervals of the means of Q columns, by the studentised bootstrap over clusters.

    A mean of skewed values and its standard error go together: the sample that misses the tail has both too small.
    Quantiles of (mean - truth) / error know of it, those of the mean do not.

    Args:
        values: one row for each prompt.
        labels: the cluster of each, at least two.

    Source: Efron and Tibshirani (1993), An introduction to the bootstrap, section 12.5, over clusters.

    >>> mean_intervals(np.arange(20.0)[:, None], range(20)).round(1)
    array([[ 6.5, 12.3]])
    """
    sums, counts, mean = _clusters(values, labels)
    C = len(counts)
    # The same seed always: a verdict that changes from call to call is none.
    drawn = np.random.default_rng(0).multinomial(C, np.full(C, 1.0 / C), size=_DRAWS).astype(np.float64)
    shifts = drawn @ sums / (drawn @ counts)[:, None]
    # Σ w (s - m n)² of each draw; sums are around the mean already, so nothing large cancels
    crossed = 2.0 * shifts * (drawn @ (sums * counts[:, None]))
    squares = drawn @ sums**2 - crossed + shifts**2 * (drawn @ counts**2)[:, None]
    errors = _error(squares, drawn @ counts, C)
    error = _error((sums**2).sum(0), counts.sum(), C)
    # Draws of one cluster alone have no spread, nor has a column of one number: their t is 0.
    t = np.where(errors > 1e-9 * error, shifts / np.where(errors > 0, errors, 1.0), 0.0)
    high, low = np.quantile(t, [_SIDE, 1.0 - _SIDE], axis=0)
    return np.column_stack([mean - low * error, mean - high * error])


def _clusters(values: Array, labels: Sequence[Hashable]) -> tuple[Array, Array, Array]:
    """Sums around the mean and counts of each cluster or of neighbours, and the means."""
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    groups = min(len(numbers), _MOST)
    codes = np.array([numbers[label] * groups // len(numbers) for label in labels])
    mean = values.mean(0)
    sums = np.stack([np.bincount(codes, weights=column) for column in (values - mean).T], axis=1)
    return sums, np.bincount(codes).astype(np.float64), mean


def _error(squares: Array, rows: Array, clusters: int) -> Array:
    rows = np.asarray(rows)[..., None] if np.ndim(rows) else rows
    return np.asarray(np.sqrt(squares.clip(0.0) * clusters / (clusters - 1)) / rows)
