"""Many rounds of one map, x ← x + f(x), without taking them one by one."""

from collections.abc import Callable

import numpy as np

from gladient._types import Array, Float

__all__ = ["advance"]

_LEVELS = range(1, 9)  # steps in one leap; with 10 levels rounding shows in the twelfth digit, 6 take twice as long
_WORTH = sum(_LEVELS)  # values of f in one leap: fewer rounds are taken one by one
_CLOSE = 1e-11  # relative change by the last level that is accepted; what is left is smaller by a factor of ten


def advance(x: Float[Array, " D"], n: int, f: Callable[[Array], Array]) -> Float[Array, " D"]:
    """How far n rounds of x ← x + f(x) go from x > 0, for f ≥ 0 that changes the less the longer it goes on.

    A round is Euler's step of length 1 for dx/dt = f(x), and the results of Euler's steps of length h are a smooth
    function of h. So some longer steps, which are few, tell what steps of length 1 would give: Aitken's and Neville's
    interpolation at h = 1. A leap whose last levels differ is quartered, down to rounds taken one by one.

    Source: derived (Gragg's extrapolation, to h = 1 in place of 0).

    >>> advance(np.ones(1), 10**9, lambda x: 1 / (1 + 1 / x)).round(1)  # n - log n, and a constant
    array([9.99999979e+08])
    """
    way, done, leap = np.zeros_like(x), 0, 2 * _WORTH
    while done < n:
        left = min(leap, n - done)
        if left <= _WORTH:
            for _ in range(left):
                way = way + f(x + way)
            done, leap = done + left, 2 * leap
            continue
        found, change = _leap(x + way, left, f)
        if change <= _CLOSE:
            way, done, leap = way + found, done + left, 2 * left
        else:
            leap = left // 4
    return way


def _leap(x: Array, n: int, f: Callable[[Array], Array]) -> tuple[Array, float]:
    """How far n rounds go, and how much the last level changed that, relative to where they end."""
    lengths = [n / count for count in _LEVELS]
    row: list[Array] = []
    for i, (count, h) in enumerate(zip(_LEVELS, lengths, strict=True)):
        way = np.zeros_like(x)
        for _ in range(count):
            way = way + h * f(x + way)
        new = [way]
        for j in range(i):  # through the lengths i - j - 1 … i; both differences from h = 1 in place of 0
            new.append(new[j] + (new[j] - row[j]) * ((h - 1.0) / (lengths[i - j - 1] - h)))
        row, before = new, row
    return row[-1], float(np.max(np.abs(row[-1] - before[-1]) / (x + np.abs(row[-1]))))
