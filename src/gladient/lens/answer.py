"""What a changed recurrence computes, for an adapter to hand on in place of what its layer made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gladient.lens.linear import Linear, arithmetic, linear_pass
from gladient.lens.merging import merged
from gladient.lens.recurrence import Recurrence

__all__ = ["Answer", "answer"]


@dataclass
class Answer:
    """The outputs of the heads that changed, and the state after them, beside what the layer was given.

    Attributes:
        given: the recurrence before the change, with all heads.
        made: the one after it, with all heads.
        heads: the numbers of those that changed; None for all.
        output: theirs, [B, Q, h, V].
        linear: the pass that made it: `state`, `total`, `log_scale`.
        taken: whether anything of it was put into a result.
    """

    given: Recurrence
    made: Recurrence
    heads: Sequence[int] | None
    output: Tensor
    linear: Linear
    taken: bool = False

    @property
    def state(self) -> Tensor:
        """[B, h, K, V]."""
        return self.linear.state

    @property
    def outputs(self) -> Tensor:
        """What the layer is to hand on, of all heads and in its dtype, [B, Q, H, V]."""
        self.taken = True
        return self.made.output

    def put(self, theirs: Tensor, ours: Tensor, dim: int) -> Tensor:
        """What the layer made, in its dtype, with ours for the heads that changed, which dimension `dim` counts.

        >>> one = torch.ones(1, 1, 2, 1)
        >>> x = Recurrence(one, one, one, one, torch.arange(1))
        >>> answer(x, x, [1]).put(torch.zeros(2), torch.ones(1, dtype=torch.float64), 0).tolist()
        [0.0, 1.0]
        """
        self.taken = True
        return _put(theirs, ours, self.heads, dim)

    def overwrite(self, theirs: Tensor, ours: Tensor, dim: int) -> Tensor:
        """`put` into the same memory, as functions do that write to an argument."""
        return theirs.copy_(self.put(theirs, ours, dim))


def answer(given: Recurrence, made: Recurrence, heads: Sequence[int] | None = None) -> Answer:
    """Computes some heads of a changed recurrence, in the layer's arithmetic and on the graph."""
    made = merged(given, made, heads)
    x = made.select(heads).cast(arithmetic(made))
    found = linear_pass(x)
    output = found.output(x)
    return Answer(given, replace(made, output=_put(given.output, output, heads, 2)), heads, output, found)


def _put(theirs: Tensor, ours: Tensor, heads: Sequence[int] | None, dim: int) -> Tensor:
    ours = ours.to(theirs.dtype)
    if heads is None:
        return ours.reshape(theirs.shape)
    return theirs.index_copy(dim, torch.tensor(list(heads), device=theirs.device), ours)
