"""One real prompt: its sources in order, then the examples asked about."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gladient._types import Array, ArrayLike

__all__ = ["Examples", "Prompt"]

Examples = tuple[Array, Array]  # X [n, d] and y [n]


@dataclass(frozen=True, eq=False)
class Prompt:
    """Examples of K tasks in order, and examples of the task that is asked about.

    A place in the order is a role, and a role means the same in every prompt: "the day before", "another school".

    Args:
        sources: X [n, d] and y [n] of each task, K pairs.
        query: X [m, d] and y [m] of the task asked about; one example, or as many as there are.

    Raises:
        ValueError: if there is no source, shapes do not agree, or a value is missing, infinite or not a number.

    >>> prompt = Prompt([([[1.0], [2.0]], [1.1, 1.9]), ([[3.0]], [3.2])], ([[4.0]], [4.1]))
    >>> len(prompt.sources), prompt.d
    (2, 1)
    """

    sources: tuple[Examples, ...]
    query: Examples

    def __init__(self, sources: Sequence[tuple[ArrayLike, ArrayLike]], query: tuple[ArrayLike, ArrayLike]) -> None:
        if len(sources) == 0:
            raise ValueError("a prompt came without sources; give the examples of at least one task before the query")
        names = [f"source {k}" for k in range(1, len(sources) + 1)]
        object.__setattr__(self, "sources", tuple(_examples(n, *s) for n, s in zip(names, sources, strict=True)))
        object.__setattr__(self, "query", _examples("the query", *query))
        widths = {X.shape[1] for X, _ in self.tasks}
        if len(widths) > 1:
            raise ValueError(f"a prompt's tasks have {sorted(widths)} features; all need the same ones")

    @property
    def tasks(self) -> tuple[Examples, ...]:
        """The sources, then the query."""
        return (*self.sources, self.query)

    @property
    def d(self) -> int:
        """Number of features."""
        return int(self.query[0].shape[1])


def _examples(name: str, X: ArrayLike, y: ArrayLike) -> Examples:
    try:
        X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} holds something that is not a number; code categories as 0 and 1") from None
    if X.ndim != 2 or y.ndim != 1 or len(X) != len(y) or X.size == 0:
        raise ValueError(f"{name} has X {list(X.shape)} and y {list(y.shape)}; give X [n, d] and y [n], n and d ≥ 1")
    if not (np.isfinite(X).all() and np.isfinite(y).all()):
        raise ValueError(f"{name} has a missing or infinite value; drop those examples or fill them in first")
    return X, y
