"""Gate families as tensor shapes, and the products of gates as sums of their logarithms."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

__all__ = [
    "Gates",
    "to_heads",
    "writes",
    "weighted_keys",
    "exclusive_suffix_sum",
    "exclusive_prefix_sum",
    "decayed",
    "earlier",
    "pairwise_sum",
    "running_weights",
]


@dataclass(frozen=True)
class Gates:
    r"""Log gates of one sequence; the log gate of state entry (k, v) at step t is their sum.

    $\log G_t[k, v] = g_t + gk_t[k] + gv_t[v] + G_t[k, v] + A[k, v]\, dt_t[v]$; an absent family is a gate of 1, -inf
    forgets exactly.

    Args:
        g: scalar log gates, [B, T, H].
        gk: one log gate per key channel, [B, T, H, K].
        gv: one log gate per value channel, [B, T, H, V].
        G: one log gate per entry of the state, [B, T, H, K, V].
        A: rates, [H, K, V] or [B, H, K, V].
        dt: steps, [B, T, H, V].
    """

    g: Tensor | None = None
    gk: Tensor | None = None
    gv: Tensor | None = None
    G: Tensor | None = None
    A: Tensor | None = None
    dt: Tensor | None = None

    @property
    def family(self) -> str:
        """The families present, joined by ×; "none" for linear attention.

        >>> Gates(g=torch.zeros(1, 2, 1), gv=torch.zeros(1, 2, 1, 3)).family
        'scalar×value'
        """
        names = {"g": "scalar", "gk": "key", "gv": "value", "G": "full", "A": "rates"}
        return "×".join(name for field, name in names.items() if getattr(self, field) is not None) or "none"

    def each(self, change: Any) -> "Gates":
        """The gates after `change` of every family that is present; rates, which have no tokens, stay."""
        g, gk, gv, G, dt = (None if x is None else change(x) for x in (self.g, self.gk, self.gv, self.G, self.dt))
        return Gates(g, gk, gv, G, self.A, dt)

    def materialised(self, heads: int) -> "Gates":
        """Rates and steps as full gates of `heads` heads, added to those that are there."""
        if self.A is None or self.dt is None:
            return self
        A = self.A if self.A.ndim == 4 else self.A[None]
        # Infinity times 0 is NaN. The largest number instead forgets as well, and a rate or step of 0 changes nothing.
        A, dt = A.clamp(min=torch.finfo(A.dtype).min), self.dt.clamp(max=torch.finfo(self.dt.dtype).max)
        G = to_heads(A[:, None], heads) * to_heads(dt, heads)[..., None, :]
        return Gates(self.g, self.gk, self.gv, G if self.G is None else G + to_heads(self.G, heads))

    def to_heads(self, heads: int) -> "Gates":
        """The same gates with every family repeated to `heads` heads."""
        return self.each(lambda gate: to_heads(gate, heads))

    def combined(self) -> Tensor | None:
        """All families added up, [B, T, H, K or 1, V or 1]; None if every gate is 1. Heads must agree."""
        if self.dt is not None:
            return self.materialised(self.dt.shape[2]).combined()
        parts = [
            None if self.g is None else self.g[..., None, None],
            None if self.gk is None else self.gk[..., None],
            None if self.gv is None else self.gv[..., None, :],
            self.G,
        ]
        present = [part for part in parts if part is not None]
        return reduce(torch.add, present) if present else None

    def decay(self) -> Tensor | float:
        """Product of all steps' gates, broadcastable to [B, H, K, V]; 1.0 if there are none."""
        total = self.each(lambda gate: gate.sum(1, keepdim=True)).combined()
        return 1.0 if total is None else total[:, 0].exp()

    @property
    def forget(self) -> bool:
        """Whether a gate may be 0: a log gate is -inf or NaN, or a step is infinite."""
        lows = [x.amin() for x in (self.g, self.gk, self.gv, self.G, self.A) if x is not None and x.numel()]
        lows += [-self.dt.amax()] if self.dt is not None and self.dt.numel() else []
        return not all(bool(low > -torch.inf) for low in lows)


def decayed(S: Float[Tensor, "*state"], log_gate: Tensor) -> Float[Tensor, "*state"]:
    """The state after a step's gates. Where a gate is 0 nothing is left, whatever was there; 0 · inf would be NaN.

    >>> decayed(torch.tensor([4.0, torch.inf]), torch.tensor([0.5, 0.0]).log()).tolist()
    [2.0, 0.0]
    """
    gate = log_gate.exp()
    return gate * S.masked_fill(gate == 0, 0)  # filled before the product, whose derivatives would be 0 · inf too


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


def writes(k: Float[Tensor, "B T H K"], v: Float[Tensor, "B T H V"], gates: Gates) -> Float[Tensor, "B H K V"]:
    r"""$\sum_t \Gamma_{t \to T} \odot k_t v_t^\top$: what the tokens leave in the last state."""
    after = gates.each(lambda gate: exclusive_suffix_sum(gate).exp())
    k = weighted_keys(k, after)
    v = v if after.gv is None else v * after.gv
    if after.G is None:
        return torch.einsum("bthk,bthv->bhkv", k, v)
    return torch.einsum("bthk,bthv,bthkv->bhkv", k, v, after.G)


def weighted_keys(k: Float[Tensor, "B T H K"], weights: Gates) -> Float[Tensor, "B T H K"]:
    """Keys or queries times the weights that stand in g and gk."""
    k = k if weights.g is None else k * weights.g[..., None]
    return k if weights.gk is None else k * weights.gk


def exclusive_suffix_sum(x: Float[Tensor, "B T *rest"]) -> Float[Tensor, "B T *rest"]:
    """y_t = Σ_{i > t} x_i, without a difference, so that -inf stays -inf and never becomes NaN.

    >>> exclusive_suffix_sum(torch.tensor([[1.0, -torch.inf, 2.0]])).tolist()
    [[-inf, 2.0, 0.0]]
    """
    return earlier(x).flip(1).cumsum(1).flip(1)


def earlier(x: Float[Tensor, "B T *rest"]) -> Float[Tensor, "B T *rest"]:
    """y_t = x_{t+1}, and 0 at the end. No tensor in between has T - 1 tokens, which exported programs would ask about.

    >>> earlier(torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[2.0, 3.0, 0.0]]
    """
    return pad(x, (*[0] * (2 * x.ndim - 4), 0, 1))[:, 1:]


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


def pairwise_sum(x: Float[Tensor, "B T *rest"]) -> Float[Tensor, "B T T *rest"]:
    r"""$L_{ti} = \sum_{i < j \le t} x_j$, and -inf where i > t: the log weights of token i at output t.

    Every entry is a sum of its own, never a difference of two cumulative sums: -inf - (-inf) cannot occur, and a
    gate of e^-10000 costs its neighbours no digits.

    >>> pairwise_sum(torch.tensor([[-1.0, -2.0, -torch.inf]]))[0].tolist()
    [[0.0, -inf, -inf], [-2.0, 0.0, -inf], [-inf, -inf, 0.0]]
    """
    T = x.shape[1]
    ones = torch.ones(T, T, dtype=torch.bool, device=x.device)
    later, causal = (ones.tril(diagonal).view(1, T, T, *[1] * (x.ndim - 2)) for diagonal in (-1, 0))
    sums = torch.where(later, x[:, :, None], 0.0).cumsum(1)  # row t, column i: x_j for i < j ≤ t, zeros before
    return torch.where(causal, sums, -torch.inf)


def running_weights(x: Float[Tensor, "B T *rest"]) -> Iterator[Float[Tensor, "B t *rest"]]:
    """For every output t, the weights exp Σ_{i < j ≤ t} x_j of tokens i = 0 … t: `pairwise_sum`, a row at a time.

    >>> [row.flatten().tolist() for row in running_weights(torch.tensor([[-1.0, -torch.inf, 0.0]]))]
    [[1.0], [0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    sums = x[:, :0]
    for t in range(x.shape[1]):
        sums = torch.cat([sums + x[:, t : t + 1], torch.zeros_like(x[:, :1])], 1)
        yield sums.exp()
