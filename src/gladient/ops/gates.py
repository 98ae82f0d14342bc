"""Gate families as tensor shapes, and the products of gates as sums of their logarithms."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Gates", "to_heads", "exclusive_suffix_sum", "exclusive_prefix_sum"]


@dataclass(frozen=True)
class Gates:
    r"""Log gates of one sequence; the log gate of state entry (k, v) at step t is their sum.

    $\log G_t[k, v] = g_t + gk_t[k] + gv_t[v]$; an absent family is a gate of 1. A log gate of -inf forgets exactly.

    Args:
        g: scalar log gates, [B, T, H].
        gk: one log gate per key channel, [B, T, H, K].
        gv: one log gate per value channel, [B, T, H, V].
    """

    g: Tensor | None = None
    gk: Tensor | None = None
    gv: Tensor | None = None

    @property
    def family(self) -> str:
        """The families present, joined by ×; "none" for linear attention.

        >>> Gates(g=torch.zeros(1, 2, 1), gv=torch.zeros(1, 2, 1, 3)).family
        'scalar×value'
        """
        names = {"g": "scalar", "gk": "key", "gv": "value"}
        return "×".join(name for field, name in names.items() if getattr(self, field) is not None) or "none"

    def log_gate(self, t: int) -> Tensor | None:
        """Log gate of the whole state at step t, broadcastable to [B, H, K, V]; None if every gate is 1."""
        parts = [
            self.g[:, t, :, None, None] if self.g is not None else None,
            self.gk[:, t, :, :, None] if self.gk is not None else None,
            self.gv[:, t, :, None, :] if self.gv is not None else None,
        ]
        present = [part for part in parts if part is not None]
        return sum(present[1:], present[0]) if present else None

    def to_heads(self, heads: int) -> "Gates":
        """The same gates with every family repeated to `heads` heads."""
        return Gates(*(None if gate is None else to_heads(gate, heads) for gate in (self.g, self.gk, self.gv)))


def to_heads(x: Tensor, heads: int) -> Tensor:
    """Repeats each head of x [B, T, h, …] `heads / h` times in a row (flash-linear-attention's grouping).

    >>> to_heads(torch.arange(2).view(1, 1, 2), 4).flatten().tolist()
    [0, 0, 1, 1]
    """
    if x.shape[2] == heads:
        return x
    if x.shape[2] == 1:
        return x.expand(*x.shape[:2], heads, *x.shape[3:])
    return x.repeat_interleave(heads // x.shape[2], dim=2)


def exclusive_suffix_sum(x: Float[Tensor, "B T *rest"]) -> Float[Tensor, "B T *rest"]:
    """y_t = Σ_{i > t} x_i, without a difference, so that -inf stays -inf and never becomes NaN.

    >>> exclusive_suffix_sum(torch.tensor([[1.0, -torch.inf, 2.0]])).tolist()
    [[-inf, 2.0, 0.0]]
    """
    y = x.new_zeros(x.shape)
    y[:, :-1] = x[:, 1:].flip(1).cumsum(1).flip(1)
    return y


def exclusive_prefix_sum(
    x: Float[Tensor, "B T *rest"], out: Float[Tensor, "B T *rest"] | None = None
) -> Float[Tensor, "B T *rest"]:
    """y_t = Σ_{i < t} x_i.

    >>> exclusive_prefix_sum(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[0.0, 1.0, 3.0]]
    """
    y = torch.empty_like(x) if out is None else out
    y[:, :1] = 0
    torch.cumsum(x[:, :-1], 1, out=y[:, 1:])
    return y
