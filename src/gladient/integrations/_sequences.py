"""What the replaced functions share: the precision that they compute in, and packed sequences that are kept apart."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gladient.ops import LayoutWarning

__all__ = ["operate", "restarted", "wide"]


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


def operate(operator: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, *args: Any, **options: Any) -> Any:
    """Calls an operator on a layout that is known to be right: a prompt may have fewer tokens than heads."""
    if torch.compiler.is_compiling() or not 1 < q.shape[1] < v.shape[2]:
        return operator(q, k, v, *args, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayoutWarning)
        return operator(q, k, v, *args, **options)
