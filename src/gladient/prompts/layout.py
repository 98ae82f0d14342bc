"""Where each example, delimiter and query stands in a prompt's token matrix."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gladient._types import Array, Float
from gladient.prompts.setting import MultitaskSetting

__all__ = ["PromptLayout"]

_MARKS = ("shared", "query", "task")


@dataclass(frozen=True)
class PromptLayout:
    r"""The token matrix of a multitask prompt, before its numbers are filled in.

    Task k's examples $[x; y; c_0]$ stand in a row, then its delimiter $[0; 0; c_k]$; the query $[x; 0; c_0]$ is last.
    The contextual features $c_0 \dots c_K \in \mathbb{R}^{K+1}$ are the unit vectors, the simplest linearly
    independent choice. Without contextual features the tokens are $[x; y]$, $[0; 0]$ and $[x; 0]$: the delimiters
    stay, as steps that carry nothing.

    The examples can be marked apart from the query, as layers whose tokens set step sizes need it: all by one feature
    of their own ("query"), or each task by its own ("task"). The query's feature comes first, then those of the
    examples, then those of the delimiters.

    Args:
        n: examples per task.
        d: number of features.
        contextual: whether tokens carry contextual features.
        marks: the examples' feature: the query's ("shared", as in the paper), one of their own, or one per task.
        delimiters: whether a delimiter follows each task. Without them tasks run into each other, as in a task that
            drifts.

    Raises:
        ValueError: if marks is none of these.

    Source: arXiv 2504.04308, section 4; the other marks are ours.

    >>> layout = PromptLayout(n=(2, 1), d=1)
    >>> layout.length, layout.width
    (6, 5)
    >>> layout.template[:, 2:].astype(int).tolist()
    [[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]
    >>> PromptLayout(n=(2, 1), d=1, marks="query", delimiters=False).template[:, 2:].astype(int).tolist()
    [[0, 1], [0, 1], [0, 1], [1, 0]]
    """

    n: tuple[int, ...]
    d: int
    contextual: bool = True
    marks: str = "shared"
    delimiters: bool = True

    def __post_init__(self) -> None:
        if self.marks not in _MARKS:
            raise ValueError(f"marks is {self.marks!r}; choose one of {', '.join(_MARKS)}")

    @classmethod
    def of(
        cls,
        setting: MultitaskSetting,
        *,
        contextual: bool = True,
        marks: str = "shared",
        delimiters: bool = True,
    ) -> "PromptLayout":
        """The layout of a setting's prompts."""
        return cls(tuple(setting.n.tolist()), setting.d, contextual, marks, delimiters)

    @property
    def length(self) -> int:
        """Tokens in the prompt, T = Σ n_k + K + 1; K fewer without delimiters."""
        return sum(self.n) + len(self.delimiter_places) + 1

    @property
    def width(self) -> int:
        """Numbers in a token: d + 1, and one more for each contextual feature."""
        return self.d + 1 + (1 + self._own + len(self.delimiter_places) if self.contextual else 0)

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """The positions of each task's examples."""
        starts = np.cumsum([0, *(count + int(self.delimiters) for count in self.n)])
        return tuple(slice(int(start), int(start) + count) for start, count in zip(starts, self.n, strict=False))

    @property
    def delimiter_places(self) -> tuple[int, ...]:
        """The position of each delimiter."""
        return tuple(block.stop for block in self.blocks) if self.delimiters else ()

    @property
    def data_columns(self) -> tuple[int, ...]:
        """The columns that are 1 on data and query tokens; none without contextual features."""
        return tuple(range(self.d + 1, self.d + 2 + self._own)) if self.contextual else ()

    @property
    def delimiter_columns(self) -> tuple[int, ...]:
        """The columns that are 1 on delimiters, one each; none without contextual features."""
        return tuple(range(self.d + 2 + self._own, self.width))

    @cached_property
    def template(self) -> Float[Array, "T D"]:
        """The token matrix with x = 0 and y = 0."""
        tokens = np.zeros((self.length, self.width))
        if not self.contextual:
            return tokens
        first = self.d + 1
        tokens[-1, first] = 1.0
        for k, block in enumerate(self.blocks):
            tokens[block, first + {"shared": 0, "query": 1, "task": k + 1}[self.marks]] = 1.0
        tokens[self.delimiter_places, self.delimiter_columns] = 1.0
        return tokens

    @property
    def _own(self) -> int:
        """Features that examples have and the query has not."""
        return {"shared": 0, "query": 1, "task": len(self.n)}[self.marks]
