"""Packed sequences and reads before the write, the same for every form."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops._sequences import from_states, joined, tokens
from gladient.ops.gates import Gates

__all__ = ["each_sequence", "read_before"]


def each_sequence(
    form: Callable[..., tuple[Tensor, Tensor]],
    inputs: Sequence[Tensor],
    gates: Gates,
    *,
    initial_state: Float[Tensor, "B n H K V"],
    offsets: Sequence[int],
    **options: Any,
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B n H K V"]]:
    """Runs `form` on tokens offsets[i] to offsets[i + 1] of every input [B, T, …], one sequence after the other."""
    outputs, states = [], []
    for i, (start, stop) in enumerate(pairwise(offsets)):
        part = partial(tokens, start=start, stop=stop)
        o, S = form(*map(part, inputs), gates.each(part), initial_state=initial_state[:, i], **options)
        outputs.append(o)
        states.append(S)
    return joined(outputs), torch.stack(states, 1)


def read_before(
    run: Callable[[Tensor], tuple[Tensor, Tensor]],
    q: Float[Tensor, "B T H K"],
    *,
    scale: float,
    initial_state: Float[Tensor, "B n H K V"],
    offsets: Sequence[int],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B n H K V"]]:
    """A read of S_{t-1} by query t is a read after the write by query t, sent in one token earlier."""
    o, S = run(torch.cat([q[:, 1:], torch.zeros_like(q[:, :1])], 1))
    firsts = [(i, start) for i, (start, stop) in enumerate(pairwise(offsets)) if start < stop]
    if not firsts:
        return o, S
    sequences, starts = (torch.tensor(x, device=q.device) for x in zip(*firsts, strict=True))
    first = scale * from_states(q[:, starts], initial_state[:, sequences])
    return torch.cat([o[:, :1], o[:, :-1]], 1).index_copy(1, starts, first), S
