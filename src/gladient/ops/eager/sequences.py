"""Packed sequences and reads before the write, the same for every form."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops.gates import Gates, earlier
from gladient.ops.sequences import from_states, joined, tokens

__all__ = ["each_sequence"]


def each_sequence(
    form: Callable[..., tuple[Tensor, Tensor]],
    inputs: Sequence[Tensor],
    gates: Gates,
    *,
    read: str,
    scale: float,
    initial_state: Float[Tensor, "B n H K V"],
    offsets: Sequence[int],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B n H K V"]]:
    """Runs `form` on tokens offsets[i] to offsets[i + 1] of every input [B, T, …], one sequence after the other.

    The first input is q. A read of S_{t-1} by query t is a read after the write by query t, sent in one token earlier.
    """
    outputs, states = [], []
    for i, (start, stop) in enumerate(pairwise(offsets)):
        part = partial(tokens, start=start, stop=stop)
        q, *rest = map(part, inputs)
        S = initial_state[:, i]
        sooner = read == "before" and start < stop
        o, final = form(earlier(q) if sooner else q, *rest, gates.each(part), scale=scale, initial_state=S)
        if sooner:
            o = torch.cat([scale * from_states(q[:, :1], S[:, None]), o], 1)[:, :-1]
        outputs.append(o)
        states.append(final)
    return joined(outputs), torch.stack(states, 1)
