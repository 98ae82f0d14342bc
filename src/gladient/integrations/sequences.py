"""What the replaced functions share: the precision that they compute in, and packed sequences that are kept apart."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from gladient.ops.dispatch import operate

__all__ = ["borders", "scan", "wide"]


def wide(x: Tensor) -> Tensor:
    """Half precision becomes float32; float64 stays, where transformers goes down to float32."""
    return x if x.dtype == torch.float64 else x.float()


def borders(seq_idx: Int[Tensor, "B T"]) -> Int[Tensor, " borders"]:
    """Where sequences begin in all tokens of all rows, which begin some too, and the end of the last.

    >>> borders(torch.tensor([[0, 0, 1], [1, 1, 1]])).tolist()
    [0, 2, 3, 6]
    """
    starts = functional.pad(seq_idx.diff(dim=1) != 0, (1, 0), value=True).flatten().nonzero()[:, 0]
    return functional.pad(starts, (0, 1), value=seq_idx.numel())


def scan(
    tensors: dict[str, Any],
    seq_idx: Int[Tensor, "B T"] | None,
    *,
    initial_state: Float[Tensor, "n H K V"] | None = None,
    output_final_state: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """The operator on tensors of all tokens, [B, T, …]; with `seq_idx` a new sequence begins wherever it changes.

    A row's initial state is its first sequence's, and its final state its last one's.
    """
    options["output_final_state"] = output_final_state
    if seq_idx is None:
        return operate(**tensors, initial_state=initial_state, **options)
    B, T = seq_idx.shape
    ends = borders(seq_idx)
    starts = ends[:-1]
    begins = starts % T == 0  # a row, and not only a sequence
    if initial_state is not None:
        empty = initial_state.new_zeros(len(starts), *initial_state.shape[1:])
        options["initial_state"] = empty.index_copy(0, begins.nonzero()[:, 0], initial_state)
    # One long row: sequences whose borders the operator knows share nothing, not even what is not finite.
    options["cu_seqlens"] = ends
    o, states = operate(**{name: x.flatten(0, 1)[None] for name, x in tensors.items()}, **options)
    return o.view(B, T, *o.shape[2:]), None if states is None else states[begins.roll(-1)]
