"""The gated linear attention layer."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gladient.nn._gate import TokenGate, gate_channels
from gladient.nn._stack import check_groups, member_normal, project
from gladient.ops import Gates, gated_linear_attention

__all__ = ["GatedLinearAttention"]


class GatedLinearAttention(nn.Module):
    r"""One layer of gated linear attention with gates computed from its tokens; E members side by side.

    $$ S_t = G_t \odot S_{t-1} + k_t v_t^\top, \quad o_t = s\, S_t^\top q_t, \quad
       q_t = W_q^\top z_t,\; k_t = W_k^\top z_t,\; v_t = W_v^\top z_t,\; g_t = \mathrm{sigmoid}(W_g^\top z_t + b_g) $$

    for each of H heads. What the members of the family change is an option; `presets` names their combinations.

    Args:
        width: numbers in a token, D.
        key_dim: numbers in a head's query or key, K; the width if not given.
        value_dim: numbers in a head's value, V; the width if not given.
        heads: H; every head has its own queries, keys, values and gates.
        gate: the family: none, fixed (the constants `decays`), scalar (one gate a token), key or value (one a
            channel), full (one for each state entry, $G_t = \exp(-A \odot 1 \Delta_t^\top)$ with
            $\Delta_t = -\log g_t$ for each value channel).
        gate_bias: whether gates have a bias.
        link: what turns a logit into a gate; see `TokenGate`.
        rate: factor of the log gates.
        learn_rate: whether scalar gates have a learned rate a head, which starts at 1 (full gates always learn A,
            which starts at 1, 2 … K over the key channels).
        decays: the gate of each head, in [0, 1], for fixed gates.
        write: plain; step (the write is $k_t (\Delta_t \odot v_t)^\top$: scalar and full gates); complement (keys are
            $1 - g_t$ and W_k is absent: key gates).
        bonus: whether outputs read $S_{t-1} + (u \odot k_t) v_t^\top$ with a learned u in place of $S_t$.
        open_columns: token columns that hold the gates open at the start; see `TokenGate`.
        delimiter_columns: token columns whose start spreads over the gate's channels; see `TokenGate`.
        scale: s, multiplied into every output; 1/n keeps outputs of order one for prompts of n examples.
        backend: where the operator runs; see `gladient.ops.gated_linear_attention`.
        seeds: one seed for each member; a member's start depends on its own seed alone.

    Raises:
        ValueError: if an option is unknown or does not go with the gate, or a size is below 1.

    Convention: the write at t is not gated at t; states are [K, V]; scale multiplies outputs, not keys.
    Source: arXiv 2504.04308, equations of gated linear attention in section 2.

    >>> layer = GatedLinearAttention(5, key_dim=3, value_dim=2, gate="scalar")
    >>> tuple(layer(torch.zeros(1, 4, 7, 5)).shape)  # 1 group, 4 prompts of 7 tokens -> 1 member
    (1, 4, 7, 2)
    """

    decays: Tensor

    def __init__(
        self,
        width: int,
        *,
        key_dim: int | None = None,
        value_dim: int | None = None,
        heads: int = 1,
        gate: str = "scalar",
        gate_bias: bool = False,
        link: str = "sigmoid",
        rate: float = 1.0,
        learn_rate: bool = False,
        decays: Sequence[float] = (),
        write: str = "plain",
        bonus: bool = False,
        open_columns: Sequence[int] = (),
        delimiter_columns: Sequence[int] = (),
        scale: float = 1.0,
        backend: str = "auto",
        seeds: Sequence[int] = (0,),
    ) -> None:
        super().__init__()
        K = width if key_dim is None else key_dim
        V = width if value_dim is None else value_dim
        if min(width, K, V, heads, len(seeds)) < 1:
            sizes = f"width {width}, key_dim {K}, value_dim {V}, {heads} heads, {len(seeds)} seeds"
            raise ValueError(f"{sizes}; each must be at least 1")
        gates = heads * gate_channels(gate, key_dim=K, value_dim=V)
        _check_options(gate, heads, decays, write, learn_rate)
        self.family, self.heads, self.write, self.rate = gate, heads, write, rate
        self.scale, self.backend = scale, backend
        keys = member_normal(seeds, (width, heads * K), stream="keys") / K**0.5
        self.W_q = nn.Parameter(keys)
        self.W_k = None if write == "complement" else nn.Parameter(keys.clone())
        self.W_v = nn.Parameter(member_normal(seeds, (width, heads * V), stream="values") / width**0.5)
        columns: dict[str, Any] = {"open_columns": open_columns, "delimiter_columns": delimiter_columns}
        self.gate = (
            TokenGate(width, channels=gates, bias=gate_bias, link=link, seeds=seeds, **columns) if gates else None
        )
        self.u = nn.Parameter(torch.zeros(len(seeds), heads, K)) if bonus else None
        self.log_A = nn.Parameter(torch.zeros(len(seeds), heads)) if learn_rate else None
        if gate == "full":
            rates = torch.arange(1.0, K + 1).log()[:, None].expand(K, V)
            self.log_A = nn.Parameter(rates.repeat(len(seeds), heads, 1, 1))
        self.register_buffer("decays", torch.tensor(decays), persistent=False)

    @property
    def members(self) -> int:
        """Number of models in the stack, E."""
        return len(self.W_q)

    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "E B T HV"]:
        """Outputs of every token for every member, its heads one after the other."""
        return self.scan(tokens)[0]

    def scan(
        self, tokens: Float[Tensor, "G B T D"], state: Tensor | None = None
    ) -> tuple[Float[Tensor, "E B T HV"], Tensor]:
        """Outputs of further tokens from the state before them, None for zeros, and the state after them: decoding.

        States are the operator's, [G·B, P·H, K, V].
        """
        check_groups(tokens, self.members)
        log_gates = self._log_gates(tokens)
        q, v = self._project(tokens, self.W_q), self._project(tokens, self.W_v)
        k = self._keys(tokens, log_gates)
        options: dict[str, Any] = {"initial_state": state, "output_final_state": True}
        options["read"] = "after" if self.u is None else "before"
        v = -log_gates * v if self.write == "step" else v
        o, last = self._operate(q, k, v, tokens, log_gates, **options)
        if self.u is not None:
            o = o + self._bonus(self.u, q, k, v, tokens)
        return self._by_member(o.unflatten(2, (-1, self.heads)).flatten(3), groups=len(tokens)), last

    def gates(self, tokens: Float[Tensor, "G B T D"]) -> Gates:
        """The log gates that the operator is given, heads of all members in a row: [G·B, T, P·H, …]."""
        return Gates(**self._families(tokens, self._log_gates(tokens)))

    def read_last(self, tokens: Float[Tensor, "G B T D"], readout: Float[Tensor, "E HV"]) -> Float[Tensor, "E B"]:
        r"""The read-out $h^\top o_T$ of the last token alone.

        With one head, only its query is formed. Where gates leave keys alone, $k_t^\top q = z_t^\top (W_k q)$ and keys
        are never formed; where they leave values alone, $h^\top v_t = z_t^\top (W_v h)$ and a value is one number.
        """
        forms_keys = self.family in ("key", "full")
        if self.heads > 1 or (self.u is not None and not forms_keys):
            return torch.einsum("ebv,ev->eb", self(tokens)[:, :, -1], readout)
        check_groups(tokens, self.members)
        grouped, log_gates = (len(tokens), -1), self._log_gates(tokens)
        q = torch.einsum("gbd,gpdk->gbpk", tokens[:, :, -1], self.W_q.unflatten(0, grouped))
        if forms_keys:
            k = self._keys(tokens, log_gates)
        else:
            W_k = cast(Tensor, self.W_k).unflatten(0, grouped)
            q, k = torch.einsum("gbpk,gpdk->gbpd", q, W_k), tokens[:, :, :, None].flatten(0, 1)
        values = self.W_v * readout[:, None]
        v = self._project(tokens, values if self.family in ("value", "full") else values.sum(2, keepdim=True))
        v = -log_gates * v if self.write == "step" else v
        q = q.flatten(0, 1)[:, None]
        read = "after" if self.u is None else "before"
        o, _ = self._operate(q, k, v, tokens, log_gates, form="last_query", read=read)
        if self.u is not None:
            o = o + self._bonus(self.u, q, k[:, -1:], v[:, -1:], tokens)
        return self._by_member(o.sum(3), groups=len(tokens))[..., 0]

    def _keys(self, tokens: Tensor, log_gates: Tensor) -> Tensor:
        return -torch.expm1(self.rate * log_gates) if self.W_k is None else self._project(tokens, self.W_k)

    def _bonus(self, u: Tensor, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor) -> Tensor:
        return self.scale * (q * self._by_head(u, tokens) * k).sum(3, keepdim=True) * v

    def _operate(
        self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor, log_gates: Tensor, **options: Any
    ) -> tuple[Tensor, Any]:
        gates = self._families(tokens, log_gates)
        return gated_linear_attention(q, k, v, **gates, scale=self.scale, backend=self.backend, **options)

    def _log_gates(self, tokens: Tensor) -> Tensor:
        """[G·B, T, P·H, C], before their rates; no channels without gates from tokens."""
        if self.gate is None:
            return tokens.new_zeros(tokens.shape[0] * tokens.shape[1], tokens.shape[2], 1, 0)
        return self._split_heads(self.gate(tokens))

    def _families(self, tokens: Tensor, log_gates: Tensor) -> dict[str, Any]:
        """The operator's arguments."""
        if self.family == "none":
            return {}
        if self.family == "fixed":
            g = self.decays.log().repeat(self.members // len(tokens))
            return {"g": g.expand(tokens.shape[0] * tokens.shape[1], tokens.shape[2], -1)}
        if self.log_A is not None:
            A = self.rate * self._by_head(self.log_A, tokens).exp()
            return {"G": A * log_gates[..., None, :]} if self.family == "full" else {"g": A * log_gates[..., 0]}
        log_gates = log_gates if self.rate == 1 else self.rate * log_gates
        if self.family == "scalar":
            return {"g": log_gates[..., 0]}
        return {{"key": "gk", "value": "gv"}[self.family]: log_gates}

    def _project(self, tokens: Tensor, weight: Tensor) -> Float[Tensor, "GB T PH C"]:
        return self._split_heads(project(tokens, weight))

    def _split_heads(self, x: Tensor) -> Tensor:
        """[G, B, T, P, H·C] to [G·B, T, P·H, C]."""
        return x.flatten(0, 1).unflatten(3, (self.heads, -1)).flatten(2, 3)

    def _by_head(self, parameter: Tensor, tokens: Tensor) -> Tensor:
        """[E, H, …] to [G·B, 1, P·H, …]."""
        G, B = tokens.shape[:2]
        return parameter.unflatten(0, (G, -1)).flatten(1, 2).repeat_interleave(B, 0)[:, None]

    def _by_member(self, o: Tensor, *, groups: int) -> Tensor:
        """[G·B, T, P, …] to [E, B, T, …]."""
        return o.unflatten(0, (groups, -1)).movedim(3, 1).flatten(0, 1)


def _check_options(gate: str, heads: int, decays: Sequence[float], write: str, learn_rate: bool) -> None:
    goes_with = {"plain": (gate,), "step": ("scalar", "full"), "complement": ("key",)}
    if write not in goes_with:
        raise ValueError(f"write is {write!r}; choose one of {', '.join(goes_with)}")
    if gate not in goes_with[write]:
        raise ValueError(f"write={write!r} came with gate={gate!r}; it goes with {' or '.join(goes_with[write])}")
    if learn_rate and gate != "scalar":
        raise ValueError(f"learn_rate came with gate={gate!r}; it goes with scalar (full gates learn theirs always)")
    if len(decays) != (heads if gate == "fixed" else 0) or any(not 0 <= decay <= 1 for decay in decays):
        raise ValueError(
            f"decays is {list(decays)}; fixed gates need one in [0, 1] for each of {heads} heads, others none"
        )
