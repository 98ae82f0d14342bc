"""Real prompts: one, and many of them with the examples of each role in one array."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np

from gladient._types import Array, ArrayLike, Float, Int

__all__ = ["Examples", "Prompt", "Prompts", "RoleExamples"]

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


@dataclass(frozen=True, eq=False)
class RoleExamples:
    """The examples of one role in all prompts, one prompt after another.

    Attributes:
        X: features, [N, d].
        y: labels, [N].
        n: examples of each prompt, at least 1, [G]; N is their sum.
    """

    X: Float[Array, "N d"]
    y: Float[Array, " N"]
    n: Int[np.ndarray, " G"]

    @cached_property
    def starts(self) -> Int[np.ndarray, " G"]:
        """Where each prompt begins."""
        return np.asarray(np.cumsum(self.n) - self.n)

    @cached_property
    def prompt(self) -> Int[np.ndarray, " N"]:
        """The prompt of each example."""
        return np.repeat(np.arange(len(self.n)), self.n)

    def totals(self, values: Array) -> Array:
        """Sums over the examples of each prompt, from N values to G."""
        return np.asarray(np.add.reduceat(values, self.starts, axis=0))

    def means(self, values: Array) -> Array:
        """Means over the examples of each prompt, from N values to G."""
        return np.asarray(self.totals(values) / self.n.reshape(-1, *[1] * (values.ndim - 1)))

    def first(self, n: int) -> tuple[Float[Array, "G n d"], Float[Array, "G n"]]:
        """The first n examples of each prompt, which all have as many."""
        rows = self.starts[:, None] + np.arange(n)
        return self.X[rows], self.y[rows]

    def rows(self, prompts: np.ndarray) -> Int[np.ndarray, " M"]:
        """The places of the examples of some prompts."""
        n = self.n[prompts]
        return np.asarray(np.repeat(self.starts[prompts] - (np.cumsum(n) - n), n) + np.arange(n.sum()))

    def take(self, prompts: np.ndarray) -> "RoleExamples":
        """The examples of some prompts."""
        rows = self.rows(prompts)
        return RoleExamples(self.X[rows], self.y[rows], self.n[prompts])


@dataclass(frozen=True, eq=False)
class Prompts(Sequence[Prompt]):
    """Many prompts with the same roles: a sequence of `Prompt`, kept as one array a role, which 10⁵ of them need.

    Attributes:
        roles: the sources' examples in order, then the query's.

    >>> first, second = (Prompt([([[x]], [x])], ([[x + 1]], [x + 1])) for x in (1.0, 3.0))
    >>> prompts = Prompts.of([first, second])
    >>> len(prompts), prompts[1].query, prompts.roles[0].X.ravel()
    (2, (array([[4.]]), array([4.])), array([1., 3.]))
    """

    roles: tuple[RoleExamples, ...]

    @classmethod
    def of(cls, prompts: Sequence[Prompt]) -> "Prompts":
        """From prompts one by one.

        Raises:
            ValueError: if there is none, or they have different roles or features.
        """
        if isinstance(prompts, Prompts):
            return prompts
        if len(prompts) == 0:
            raise ValueError("no prompt came; give at least one")
        for name, kinds in (
            ("sources", {len(prompt.sources) for prompt in prompts}),
            ("features", {prompt.d for prompt in prompts}),
        ):
            if len(kinds) > 1:
                raise ValueError(f"the prompts have {sorted(kinds)} {name}; all need the same, in the same order")
        return cls(tuple(_gathered(tasks) for tasks in zip(*(prompt.tasks for prompt in prompts), strict=True)))

    @property
    def sources(self) -> tuple[RoleExamples, ...]:
        """The roles without the query's."""
        return self.roles[:-1]

    @property
    def query(self) -> RoleExamples:
        """The examples asked about."""
        return self.roles[-1]

    @property
    def d(self) -> int:
        """Number of features."""
        return int(self.query.X.shape[1])

    def take(self, chosen: Sequence[int] | np.ndarray) -> "Prompts":
        """Some of the prompts, by their places."""
        places = np.asarray(chosen, dtype=np.intp)
        return Prompts(tuple(role.take(places) for role in self.roles))

    def __len__(self) -> int:
        return len(self.query.n)

    @overload
    def __getitem__(self, place: int) -> Prompt: ...
    @overload
    def __getitem__(self, place: slice) -> "Prompts": ...
    def __getitem__(self, place: int | slice) -> "Prompt | Prompts":
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        *sources, query = [self._examples(role, range(len(self))[place]) for role in self.roles]
        return Prompt(sources, query)

    def __iter__(self) -> Iterator[Prompt]:
        return (self[i] for i in range(len(self)))

    @staticmethod
    def _examples(role: RoleExamples, i: int) -> Examples:
        rows = slice(int(role.starts[i]), int(role.starts[i] + role.n[i]))
        return role.X[rows], role.y[rows]


def _gathered(tasks: Sequence[Examples]) -> RoleExamples:
    n = np.array([len(y) for _, y in tasks])
    return RoleExamples(np.concatenate([X for X, _ in tasks]), np.concatenate([y for _, y in tasks]), n)


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
