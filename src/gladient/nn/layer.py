"""The layer of gated linear attention, with a plain write or the delta rule."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gladient._autocast import outside_autocast
from gladient.nn.config import LayerConfig
from gladient.nn.gate import TokenAngle, TokenGate, TokenRate, TokenStep, is_formula
from gladient.nn.stack import check_last, contract, in_groups, member_normal, project, rounded
from gladient.ops import Gates, Mamba3State, cumulative_angles, mamba3, native, rotation
from gladient.ops.dispatch import heard_by_none, operate
from gladient.ops.formulas import unit
from gladient.ops.sequences import accumulation
from gladient.ops.watched import recorded, visible

__all__ = ["GatedLinearAttention", "State"]

State: TypeAlias = Tensor | Mamba3State
"""What a layer carries from token to token."""

# Where the part of the erasing key that queries leave out starts: fla's layer of Comba warns that its own 1 is too much
# for small models and names 0.02.
_CORRECTION = 0.02
_RMS_EPS = 1e-5  # Mamba-3's
_ROPE = 10000.0  # the base of arXiv 2104.09864


class GatedLinearAttention(nn.Module):
    r"""One layer of gated linear attention with gates computed from its tokens; E members side by side.

    $$ S_t = G_t \odot S_{t-1} + k_t v_t^\top, \quad o_t = s\, S_t^\top q_t, \quad
       q_t = W_q^\top z_t,\; k_t = W_k^\top z_t,\; v_t = W_v^\top z_t,\; g_t = \mathrm{sigmoid}(W_g^\top z_t + b_g) $$

    for each of H heads. What the members of the family change is an option of `LayerConfig`; a rotation turns the state
    by minus the token's angle before the write. Tokens come in G groups,
    [G, B, T, D], each read by E / G members; [B, T, D] is one group. Outputs always have the members' axis.

    Inside `torch.autocast` a layer computes what it computes outside, states included. With half precision parameters
    the products of tokens and weights are rounded, as a Linear's are; gates, steps, lengths, norms and states are
    float32. Fixed decays are the config's numbers whatever the parameters went through; fixed angles are learned, and
    as parameters of half precision they are rounded, which adds up from token to token.

    Args:
        width: numbers in a token, D.
        config: the layer; its norm and output gate belong to `ResidualLayer`.
        seeds: one seed for each member; a member's start depends on its own seed alone.

    Raises:
        ValueError: if the config has a norm or an output gate, the width is below 1, or there is no seed.

    Convention: the write at t is not gated at t; states are [K, V]; scale multiplies outputs, not keys.
    Source: arXiv 2504.04308, equations of gated linear attention in section 2.

    >>> layer = GatedLinearAttention(5, LayerConfig(key_dim=3, value_dim=2))
    >>> tuple(layer(torch.zeros(4, 7, 5)).shape)  # 4 prompts of 7 tokens, 1 member
    (1, 4, 7, 2)
    """

    def __init__(self, width: int, config: LayerConfig = LayerConfig(), *, seeds: Sequence[int] = (0,)) -> None:
        super().__init__()
        if min(width, len(seeds)) < 1:
            raise ValueError(f"width {width}, {len(seeds)} seeds; each must be at least 1")
        if config.norm or config.output_gate:
            raise ValueError(
                f"norm is {config.norm} and output_gate {config.output_gate}; a layer by itself has neither: use a "
                "ResidualLayer, or dataclasses.replace(config, norm=False, output_gate=False)"
            )
        self.config = config
        H, K, V = config.heads, config.key_dim or width, config.value_dim or width
        # Queries and keys start alike: W_k W_qᵀ, the preconditioner, is then positive semidefinite with mean I, and the
        # step on the examples is one of descent from the start.
        keys = member_normal(seeds, (width, H * K), stream="keys") / K**0.5
        self.W_q = nn.Parameter(keys)
        self.W_k = None if config.write == "complement" else nn.Parameter(keys.clone())
        self.W_v = nn.Parameter(member_normal(seeds, (width, H * V), stream="values") / width**0.5)
        gates = {"scalar": H, "key": H * K, "value": H * V, "full": H * V}.get(config.gate, 0)
        self.gate = TokenGate(width, config, channels=gates, seeds=seeds) if gates else None
        steps = {"write": H, "scaled": H, "own": H, "rates": H * K}[config.erase_key]
        self.step = TokenStep(width, steps, seeds=seeds) if config.write == "delta" else None
        self.mix = TokenStep(width, H, seeds=seeds, stream="mix") if config.write == "trapezoid" else None
        self.rate = TokenRate(width, H, config.token_rate, seeds=seeds) if config.token_rate != "none" else None
        self._add_keys(width, (len(seeds), H, K), seeds)
        self._add_angles(width, K, seeds)
        self.u = nn.Parameter(torch.zeros(len(seeds), H, K)) if config.bonus else None
        self.log_A = nn.Parameter(torch.zeros(len(seeds), H)) if config.learn_rate else None
        if config.gate == "full":
            # Mamba's start, A[k, v] = k: key channels that forget at different speeds.
            rates = torch.arange(1.0, K + 1).log()[:, None].expand(K, V)
            self.log_A = nn.Parameter(rates.repeat(len(seeds), H, 1, 1))

    def _add_keys(self, width: int, shape: tuple[int, int, int], seeds: Sequence[int]) -> None:
        """What keys have beside their weights."""
        config, (E, H, K) = self.config, shape
        own = config.erase_key == "own"
        self.W_e = nn.Parameter(member_normal(seeds, (width, H * K), stream="erase") / K**0.5) if own else None
        self.erase_logit = nn.Parameter(torch.ones(E, H, 1)) if config.erase_key == "scaled" else None
        rates = config.erase_key == "rates"
        self.erase_scale, self.write_mix = (nn.Parameter(torch.ones(shape)) if rates else None for _ in range(2))
        self.correction = nn.Parameter(torch.full((E, H, 1), _CORRECTION)) if config.read_correction else None
        self.q_bias, self.k_bias = (nn.Parameter(torch.ones(shape)) if config.key_bias else None for _ in range(2))

    def _add_angles(self, width: int, K: int, seeds: Sequence[int]) -> None:
        config = self.config
        self.pairs = 0 if config.rotation == "none" else K // 2 if config.turned_pairs is None else config.turned_pairs
        if config.rotation != "none" and (K % 2 or self.pairs > K // 2):
            raise ValueError(
                f"{self.pairs} pairs of {K} key channels are to turn; give an even key_dim of at least twice them"
            )
        angles = min(self.pairs, 1) if config.shared_angle else self.pairs
        token = config.rotation == "token"
        self.angle = TokenAngle(width, config, angles=angles, seeds=seeds) if token else None
        start = config.angles or tuple(_ROPE ** (-p / angles) for p in range(angles))
        if len(start) != angles and config.rotation == "fixed":
            raise ValueError(f"angles is {list(start)}; {angles} are learned: give as many, or none for RoPE's")
        fixed = torch.tensor(start).repeat(len(seeds), 1) if config.rotation == "fixed" else None
        self.angles = None if fixed is None else nn.Parameter(fixed)

    @property
    def members(self) -> int:
        """Number of models in the stack, E."""
        return len(self.W_q)

    @property
    def decays(self) -> Float[Tensor, " H"]:
        """The fixed gates as the config has them, in no less than float32 whatever the parameters are."""
        return _constant(self.config.decays, self.W_q)

    def forward(self, tokens: Float[Tensor, "*G B T D"]) -> Float[Tensor, "E B T HV"]:
        """Outputs of every token for every member, its heads one after the other."""
        return rounded(self.scan(tokens)[0], tokens, self.W_v)

    @outside_autocast
    def scan(
        self, tokens: Float[Tensor, "*G B T D"], state: State | None = None
    ) -> tuple[Float[Tensor, "E B T HV"], State]:
        """Outputs of further tokens from the state before them, None for zeros, and the state after them: decoding.

        States are the operator's, [G·B, P·H, K, V], with a trapezoid write a `Mamba3State`. Outputs and states are
        float32 where tokens and parameters are half precision.
        """
        tokens = in_groups(tokens, self.members)
        log_gates = self._log_gates(tokens)
        q, v = self._project(tokens, self.W_q), self._project(tokens, self.W_v)
        k = self._keys(tokens, log_gates)
        o, last = self._operate(q, k, v, tokens, log_gates, initial_state=state, output_final_state=True)
        return self._by_member(o.unflatten(2, (-1, self.config.heads)).flatten(3), groups=len(tokens)), last

    @outside_autocast
    def gates(self, tokens: Float[Tensor, "*G B T D"]) -> Gates:
        """The log gates that the operator is given, heads of all members in a row: [G·B, T, P·H, …]."""
        tokens = in_groups(tokens, self.members)
        return Gates(**self._families(tokens, self._log_gates(tokens)))

    @outside_autocast
    def turns(self, tokens: Float[Tensor, "*G B T D"]) -> Float[Tensor, "GB T PH turned"] | None:
        """What each token turns each pair of channels by, heads of all members in a row; None if nothing turns.

        With a trapezoid write, before the angles are multiplied by a head's Δ.
        """
        return self._angles(in_groups(tokens, self.members))

    def gate_parameters(self) -> list[nn.Parameter]:
        """The parameters of gates and steps, which training may move faster than the rest."""
        modules = (self.gate, self.rate, self.step, self.mix, self.angle)
        gates = [x for module in modules if module is not None for x in module.parameters()]
        return [*gates, *(x for x in (self.log_A, self.angles) if x is not None)]

    @outside_autocast
    def written(self, tokens: Float[Tensor, "*G B T D"], W_o: Float[Tensor, "E HV D"]) -> Float[Tensor, "E B T D"]:
        r"""Every token's outputs times W_o, what a residual layer adds to it: `forward` with fewer products.

        With one head whose gates leave channels alone, $k_j^\top q_t = z_j^\top (W_k W_q^\top z_t)$ and
        $W_o^\top v_j = (W_v W_o)^\top z_j$: tokens are the keys.
        """
        width = self.W_q.shape[1]
        narrow = self.W_q.shape[2] < width or self.W_v.shape[2] < width  # then the products would cost more
        if narrow or self.config.heads > 1 or self._forms_keys or self.config.gate == "value" or self.u is not None:
            return project(self(tokens), W_o)[:, :, :, 0]
        tokens = in_groups(tokens, self.members)
        q = self._project(tokens, self.W_q @ cast(Tensor, self.W_k).mT)
        v = self._project(tokens, self.W_v @ W_o)
        o, _ = self._operate(q, tokens[:, :, :, None].flatten(0, 1), v, tokens, self._log_gates(tokens))
        return rounded(self._by_member(o, groups=len(tokens)), tokens, self.W_v)

    @outside_autocast
    def read_last(self, tokens: Float[Tensor, "*G B T D"], readout: Float[Tensor, "E HV"]) -> Float[Tensor, "E B"]:
        r"""The read-out $h^\top o_T$ of the last token alone.

        With one head, only its query is formed. Where gates leave keys alone, $k_t^\top q = z_t^\top (W_k q)$ and keys
        are never formed; where they leave values alone, $h^\top v_t = z_t^\top (W_v h)$ and a value is one number.
        """
        check_last(tokens)
        named = self.config.form != "auto"  # for whole sequences: "last_query" below would take its place
        if self.config.heads > 1 or named or (self.u is not None and not self._forms_keys):
            return contract("ebv,ev->eb", self(tokens)[:, :, -1], readout)
        tokens = in_groups(tokens, self.members)
        values = self.W_v * readout[:, None]  # gates of value channels still tell them apart: the sum waits until after
        values = values if self.config.gate in ("value", "full") else values.sum(2, keepdim=True)
        q = self._query(tokens)
        if not self._forms_keys and (o := self._read_tokens(tokens, q, values)) is not None:
            return o.sum(3).movedim(2, 1).flatten(0, 1)
        log_gates = self._log_gates(tokens)
        k = self._keys(tokens, log_gates) if self._forms_keys else tokens[:, :, :, None].flatten(0, 1)
        v = self._project(tokens, values)
        o, _ = self._operate(q.flatten(0, 1)[:, None], k, v, tokens, log_gates, form="last_query")
        return rounded(self._by_member(o.sum(3), groups=len(tokens))[..., 0], tokens, self.W_v)

    def _read_tokens(
        self, tokens: Float[Tensor, "G B T D"], q: Float[Tensor, "G B P D"], values: Float[Tensor, "E D V"]
    ) -> Float[Tensor, "G B P V"] | None:
        """The last outputs by the one kernel that forms neither keys nor values nor gates; None where it may not.

        It is for training: its outputs are the operator's up to rounding, and without gradients a model that the lens
        reads is to compute the same to the bit.
        """
        config, gate = self.config, None if self.gate is None else self.gate.weight
        plain = config.write == "plain" and config.rate == 1 and self.log_A is None and self.rate is None
        gated = config.gate in ("scalar", "value") and config.link == "sigmoid" and not config.gate_bias
        if (
            not (plain and (config.gate == "none" or (gated and is_formula(self.gate))))
            or values.shape[2] > native.MOST_VALUES
            or torch.compiler.is_exporting()  # its programs hold for any number of tokens
            or tokens.shape[2] < native.FEWEST_TOKENS
            or config.backend == "eager"
            or tokens.requires_grad  # the kernel has no gradient of them
            or not recorded(q, values, gate)
            or not heard_by_none()  # those who listen want the operator's arguments
            or not native.serves(tokens, q, values, gate)
        ):
            return None
        grouped = (len(tokens), -1)
        w = None if gate is None else gate.unflatten(0, grouped).mT
        o = native.token_query(tokens, config.scale * q, values.unflatten(0, grouped).mT, w)
        # What is not finite may be an infinity that a gate of 0 drops; the operator looks into that.
        return o if gate is None or not visible(o) or math.isfinite(o.detach().sum().item()) else None

    def _query(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "G B P C"]:
        """The last token's query, C = K; W_k times it where tokens are the keys, C = D."""
        last, grouped = tokens[:, :, -1], (len(tokens), -1)
        if self._forms_keys:
            return contract("gbd,gpdk->gbpk", last, self.W_q.unflatten(0, grouped))
        W_q, W_k = self.W_q, cast(Tensor, self.W_k)
        if 2 * W_q.shape[2] > W_q.shape[1]:  # then one product of tokens and W_q W_kᵀ is less work than one with each
            return contract("gbd,gpde->gbpe", last, (W_q @ W_k.mT).unflatten(0, grouped))
        q = contract("gbd,gpdk->gbpk", last, W_q.unflatten(0, grouped))
        return contract("gbpk,gpdk->gbpd", q, W_k.unflatten(0, grouped))

    @property
    def _forms_keys(self) -> bool:
        """Whether keys count by more than their products with queries."""
        config = self.config
        read = config.write in ("delta", "trapezoid") or config.normalise != "none" or config.key_bias
        return read or config.gate in ("key", "full") or config.rotation != "none"

    def _keys(self, tokens: Tensor, log_gates: Tensor) -> Tensor:
        # 1 - g = -expm1(log g): a difference would leave a gate of 1 - 1e-8 no digit in float32.
        return -torch.expm1(self.config.rate * log_gates) if self.W_k is None else self._project(tokens, self.W_k)

    def _operate(
        self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor, log_gates: Tensor, **options: Any
    ) -> tuple[Tensor, Any]:
        q, k, v = map(accumulation, (q, k, v))  # products are rounded as a Linear's are, and no further
        q, k = self._normalised(q, queries=True), self._normalised(k)
        if self.q_bias is not None and self.k_bias is not None:
            q, k = (x + self._beside(bias, tokens) for x, bias in ((q, self.q_bias), (k, self.k_bias)))
        families = self._families(tokens, log_gates)
        options = {"scale": self.config.scale, "backend": self.config.backend, "form": self.config.form} | options
        if self.mix is not None:
            return self._written_twice(q, k, v, tokens, log_gates, families | options)
        if self.config.write == "step":
            v = -log_gates * v  # Δ = -log g, before the rate; a scalar gate's has one channel
        if self.u is not None:
            options |= {"read": "before", "bonus": self._by_head(self.u, tokens)}
        more: dict[str, Any] = self._corrections(k, tokens)
        if self.correction is not None:
            q = q - self._beside(self.correction, tokens) * more.get("erase_keys", k)[:, -q.shape[1] :]
        if self.config.erase_key == "rates":
            k = k * (1 + (more["rates"] - 1) * self._beside(cast(Tensor, self.write_mix), tokens))
            more["b"] = -more.pop("rates") * more["a"]
        phase = self._phase(tokens)
        if phase is None:
            return operate(q, k, v, **families, **more, **options)
        turning = [name for name in more if name != "beta"]
        k, *others = rotation.turned(phase, "adjacent", k, *(more[name] for name in turning))
        more |= dict(zip(turning, others, strict=True))
        (q,) = rotation.turned(phase[:, -q.shape[1] :], "adjacent", q)
        o, S = operate(q, k, v, **families, **more, **options)
        # Turned keys are those of a state that does not turn. The layer's does, and so carries no phase.
        return o, S if S is None or not k.shape[1] else rotation.turned(-phase[:, -1, :, None], "adjacent", S.mT)[0].mT

    def _normalised(self, x: Tensor, queries: bool = False) -> Tensor:
        kind = self.config.normalise
        if kind == "rms":
            return functional.rms_norm(x, x.shape[-1:], eps=_RMS_EPS)
        return x if kind == "none" or (kind == "keys" and queries) else unit(x)

    def _corrections(self, k: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """The delta rule's arguments: steps and, if it is another than k, the key that erases; a and rates."""
        if self.step is None:
            return {}
        steps = self.config.step_bound * self._split_heads(self.step(tokens))
        if self.erase_scale is not None:
            return {"a": -unit(k * self._beside(self.erase_scale, tokens)), "rates": steps}
        found = {"beta": steps[..., 0]}
        if self.W_e is not None:
            found["erase_keys"] = self._normalised(accumulation(self._project(tokens, self.W_e)))
        if self.erase_logit is not None:
            found["erase_keys"] = self._beside(self.erase_logit.sigmoid(), tokens) * k
        return found

    def _written_twice(
        self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor, log_gates: Tensor, options: dict[str, Any]
    ) -> tuple[Tensor, Mamba3State | None]:
        """Mamba-3's write, with Δ = -log g before its rate."""
        mix = self._split_heads(cast(TokenStep, self.mix)(tokens))[..., 0]
        state, step = options.pop("initial_state", None), -log_gates[..., 0]
        q = q.expand(-1, k.shape[1], -1, -1)  # one query is the last token's
        angles = self._angles(tokens)
        angles = None if angles is None else angles * step[..., None]
        return mamba3(q, k, v, options.pop("g"), step, mix, angles, state=state, **options)

    def _angles(self, tokens: Tensor) -> Float[Tensor, "GB T PH turned"] | None:
        """What each token turns each pair of each head by; None if nothing turns."""
        if not self.pairs:
            return None
        (G, B, T), H = tokens.shape[:3], self.config.heads
        if self.angle is not None:
            angles = self.angle(tokens).flatten(0, 1)
        else:
            own = accumulation(cast(Tensor, self.angles)).unflatten(0, (G, 1, 1, -1))
            angles = own.expand(G, B, T, -1, -1).flatten(0, 1)
        return angles.repeat_interleave(H, 2).expand(-1, -1, -1, self.pairs)

    def _phase(self, tokens: Tensor) -> Tensor | None:
        angles = self._angles(tokens)
        return None if angles is None else cumulative_angles(angles)

    def _log_gates(self, tokens: Tensor) -> Tensor:
        """[G·B, T, P·H, C], before their rates; no channels without gates from tokens."""
        if self.gate is None:
            return tokens.new_zeros(tokens.shape[0] * tokens.shape[1], tokens.shape[2], 1, 0)
        return self._split_heads(self.gate(tokens))

    def _families(self, tokens: Tensor, log_gates: Tensor) -> dict[str, Any]:
        """The operator's arguments."""
        gate, rate = self.config.gate, self.config.rate
        if gate == "none":
            return {}
        if gate == "fixed":
            logs = [math.log(decay) if decay else -math.inf for decay in self.config.decays]  # in double, then rounded
            g = _constant(logs, tokens).repeat(self.members // len(tokens))
            return {"g": g.expand(tokens.shape[0] * tokens.shape[1], tokens.shape[2], -1)}
        if self.rate is not None:
            return {"g": rate * (self._split_heads(self.rate(tokens)) * log_gates)[..., 0]}
        if self.log_A is not None:
            # exp keeps rates positive, and one at 0 starts at 1.
            A = rate * self._by_head(accumulation(self.log_A), tokens).exp()
            if gate == "full":
                return {"A": -A, "dt": -log_gates}
            log_gates = A[..., None, :, None] * log_gates
            return {"g": log_gates[..., 0]} if gate == "scalar" else {"gk": log_gates}
        log_gates = log_gates if rate == 1 else rate * log_gates
        if gate == "scalar":
            return {"g": log_gates[..., 0]}
        return {{"key": "gk", "value": "gv"}[gate]: log_gates}

    def _project(self, tokens: Tensor, weight: Tensor) -> Float[Tensor, "GB T PH C"]:
        return self._split_heads(project(tokens, weight))

    def _split_heads(self, x: Tensor) -> Tensor:
        """[G, B, T, P, H·C] to [G·B, T, P·H, C]."""
        return x.flatten(0, 1).unflatten(3, (self.config.heads, -1)).flatten(2, 3)

    def _by_head(self, parameter: Tensor, tokens: Tensor) -> Tensor:
        """[E, H, …] to [P·H, …] where one group is all rows, else [G·B, P·H, …]."""
        G, B = tokens.shape[:2]
        if G == 1:
            return parameter.flatten(0, 1)
        return parameter.unflatten(0, (G, -1)).flatten(1, 2).repeat_interleave(B, 0)

    def _beside(self, parameter: Tensor, tokens: Tensor) -> Tensor:
        """[E, H, …] as it stands beside tokens, [G·B, T, P·H, …]."""
        found = self._by_head(accumulation(parameter), tokens)
        return found if len(tokens) == 1 else found[:, None]

    def _by_member(self, o: Tensor, *, groups: int) -> Tensor:
        """[G·B, T, P, …] to [E, B, T, …]."""
        return o.unflatten(0, (groups, -1)).movedim(3, 1).flatten(0, 1)


def _constant(values: Sequence[float], like: Tensor) -> Tensor:
    """The numbers of a config as a tensor on the device of another. A cast of the module would round a buffer."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.tensor(values, dtype=dtype, device=like.device)
