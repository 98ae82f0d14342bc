"""Where each example, delimiter and query stands in a prompt's token matrix."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gladient._types import Array, Float
from gladient.prompts._setting import MultitaskSetting

__all__ = ["PromptLayout"]


@dataclass(frozen=True)
class PromptLayout:
    r"""The token matrix of a multitask prompt, before its numbers are filled in.

    Task k's examples $[x; y; c_0]$ stand in a row, then its delimiter $[0; 0; c_k]$; the query $[x; 0; c_0]$ is last.
    The contextual features $c_0 \dots c_K \in \mathbb{R}^{K+1}$ are the unit vectors, the simplest linearly
    independent choice. Without contextual features the tokens are $[x; y]$, $[0; 0]$ and $[x; 0]$: the delimiters
    stay, as steps that carry nothing.

    Args:
        n: examples per task.
        d: number of features.
        contextual: whether tokens carry contextual features.

    Source: arXiv 2504.04308, section 4.

    >>> layout = PromptLayout(n=(2, 1), d=1)
    >>> layout.length, layout.width
    (6, 5)
    >>> layout.template[:, 2:].astype(int).tolist()
    [[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]
    """

    n: tuple[int, ...]
    d: int
    contextual: bool = True

    @classmethod
    def of(cls, setting: MultitaskSetting, *, contextual: bool = True) -> "PromptLayout":
        """The layout of a setting's prompts."""
        return cls(n=tuple(setting.n.tolist()), d=setting.d, contextual=contextual)

    @property
    def length(self) -> int:
        """Tokens in the prompt, T = Σ n_k + K + 1."""
        return sum(self.n) + len(self.n) + 1

    @property
    def width(self) -> int:
        """Numbers in a token, D = d + 1, and K + 1 more with contextual features."""
        return self.d + 1 + (len(self.n) + 1 if self.contextual else 0)

    @cached_property
    def blocks(self) -> tuple[slice, ...]:
        """The positions of each task's examples."""
        starts = np.cumsum([0, *(count + 1 for count in self.n)])
        return tuple(slice(int(start), int(start) + count) for start, count in zip(starts, self.n, strict=False))

    @property
    def data_columns(self) -> tuple[int, ...]:
        """The column that is 1 on data and query tokens, c_0; none without contextual features."""
        return (self.d + 1,) if self.contextual else ()

    @property
    def delimiter_columns(self) -> tuple[int, ...]:
        """The columns that are 1 on delimiters, c_1 … c_K; none without contextual features."""
        return tuple(range(self.d + 2, self.width))

    @cached_property
    def template(self) -> Float[Array, "T D"]:
        """The token matrix with x = 0 and y = 0."""
        tokens = np.zeros((self.length, self.width))
        if self.contextual:
            tokens[:, self.d + 1] = 1.0
            for k, block in enumerate(self.blocks, start=1):
                tokens[block.stop, self.d + 1 :] = np.eye(len(self.n) + 1)[k]
        return tokens
