"""The gated linear attention layer."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gladient.nn._gate import TokenGate, gate_channels
from gladient.nn._stack import check_groups, member_normal, project
from gladient.ops import gated_linear_attention

__all__ = ["GatedLinearAttention"]


class GatedLinearAttention(nn.Module):
    r"""One layer of gated linear attention with gates computed from its tokens; E members side by side.

    $$ S_t = G_t \odot S_{t-1} + k_t v_t^\top, \quad o_t = s\, S_t^\top q_t, \quad
       q_t = W_q^\top z_t,\; k_t = W_k^\top z_t,\; v_t = W_v^\top z_t,\; g_t = \mathrm{sigmoid}(W_g^\top z_t + b_g) $$

    Args:
        width: numbers in a token, D.
        key_dim: numbers in a query or key, K; the width if not given.
        value_dim: numbers in a value, V; the width if not given.
        gate: the family: none, scalar (one gate a token), key or value (one a channel).
        gate_bias: whether gates have a bias.
        open_columns: token columns that hold the gates open at the start; see `TokenGate`.
        delimiter_columns: token columns whose start spreads over the gate's channels; see `TokenGate`.
        scale: s, multiplied into every output; 1/n keeps outputs of order one for prompts of n examples.
        seeds: one seed for each member; a member's start depends on its own seed alone.

    Raises:
        ValueError: if the gate is unknown or a size is below 1.

    Convention: the write at t is not gated at t; states are [K, V]; scale multiplies outputs, not keys.
    Source: arXiv 2504.04308, equations of gated linear attention in section 2.

    >>> layer = GatedLinearAttention(5, key_dim=3, value_dim=2, gate="scalar")
    >>> tuple(layer(torch.zeros(1, 4, 7, 5)).shape)  # 1 group, 4 prompts of 7 tokens -> 1 member
    (1, 4, 7, 2)
    """

    def __init__(
        self,
        width: int,
        *,
        key_dim: int | None = None,
        value_dim: int | None = None,
        gate: str = "scalar",
        gate_bias: bool = False,
        open_columns: Sequence[int] = (),
        delimiter_columns: Sequence[int] = (),
        scale: float = 1.0,
        seeds: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        key_dim = width if key_dim is None else key_dim
        value_dim = width if value_dim is None else value_dim
        if min(width, key_dim, value_dim, len(seeds)) < 1:
            raise ValueError(
                f"width {width}, key_dim {key_dim}, value_dim {value_dim}, {len(seeds)} seeds; each must be at least 1"
            )
        self.family = gate
        self.scale = scale
        keys = member_normal(seeds, (width, key_dim), stream="keys") / key_dim**0.5
        self.W_q, self.W_k = nn.Parameter(keys), nn.Parameter(keys.clone())
        self.W_v = nn.Parameter(member_normal(seeds, (width, value_dim), stream="values") / width**0.5)
        gates = gate_channels(gate, key_dim=key_dim, value_dim=value_dim)
        self.gate = (
            TokenGate(
                width,
                channels=gates,
                bias=gate_bias,
                open_columns=open_columns,
                delimiter_columns=delimiter_columns,
                seeds=seeds,
            )
            if gates
            else None
        )

    @property
    def members(self) -> int:
        """Number of models in the stack, E."""
        return len(self.W_q)

    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "E B T V"]:
        """Outputs of every token for every member."""
        check_groups(tokens, self.members)
        q, k, v = (project(tokens, weight).flatten(0, 1) for weight in (self.W_q, self.W_k, self.W_v))
        o, _ = gated_linear_attention(q, k, v, **self._log_gates(tokens), scale=self.scale)
        return self._by_member(o, groups=len(tokens))

    def read_last(self, tokens: Float[Tensor, "G B T D"], readout: Float[Tensor, "E V"]) -> Float[Tensor, "E B"]:
        r"""The read-out $h^\top o_T$ of the last token alone.

        Only its query is formed. Where gates leave keys alone, $k_t^\top q = z_t^\top (W_k q)$ and keys are never
        formed; where they leave values alone, $h^\top v_t = z_t^\top (W_v h)$ and a value is one number.
        """
        check_groups(tokens, self.members)
        grouped = (len(tokens), -1)
        q = torch.einsum("gbd,gpdk->gbpk", tokens[:, :, -1], self.W_q.unflatten(0, grouped))
        if self.family == "key":
            k = project(tokens, self.W_k)
        else:
            q, k = torch.einsum("gbpk,gpdk->gbpd", q, self.W_k.unflatten(0, grouped)), tokens[:, :, :, None]
        read_values = self.W_v * readout[:, None]
        v = project(tokens, read_values if self.family == "value" else read_values.sum(2, keepdim=True))
        o, _ = gated_linear_attention(
            q.flatten(0, 1)[:, None],
            k.flatten(0, 1),
            v.flatten(0, 1),
            **self._log_gates(tokens),
            scale=self.scale,
            form="last_query",
        )
        return self._by_member(o.sum(3), groups=len(tokens))[..., 0]

    def _log_gates(self, tokens: Tensor) -> dict[str, Any]:
        if self.gate is None:
            return {}
        log_gates = self.gate(tokens).flatten(0, 1)
        if self.family == "scalar":
            return {"g": log_gates[..., 0]}
        return {{"key": "gk", "value": "gv"}[self.family]: log_gates}

    def _by_member(self, o: Tensor, *, groups: int) -> Tensor:
        """[G·B, T, P, …] to [E, B, T, …]."""
        return o.unflatten(0, (groups, -1)).movedim(3, 1).flatten(0, 1)
