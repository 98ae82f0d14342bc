"""What the replaced functions share: the precision that they compute in, and packed sequences that are kept apart."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["restarted", "wide"]


def wide(x: Tensor) -> Tensor:
    """Half precision becomes float32; float64 stays, where transformers goes down to float32."""
    return x if x.dtype == torch.float64 else x.float()


def restarted(g: Float[Tensor, "B T H"], seq_idx: Int[Tensor, "B T"] | None) -> Float[Tensor, "B T H"]:
    """Log gates that forget all at the first token of each packed sequence.

    >>> restarted(torch.zeros(1, 3, 1), torch.tensor([[0, 0, 1]])).flatten().tolist()
    [0.0, 0.0, -inf]
    """
    if seq_idx is None:
        return g
    first = seq_idx.diff(dim=1, prepend=seq_idx[:, :1]) != 0
    return g.masked_fill(first[..., None], -torch.inf)
