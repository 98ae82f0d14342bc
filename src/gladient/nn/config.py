"""One layer, described once: every option, what it means, and which go together."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from gladient.ops import Backend

__all__ = ["EraseKey", "Gate", "LayerConfig", "LayerForm", "Link", "Normalise", "Rotation", "TokenRate", "Write"]

Gate = Literal["none", "fixed", "scalar", "key", "value", "full"]
"""The gate families of a layer."""
Link = Literal["sigmoid", "exp", "bounded"]
Write = Literal["plain", "step", "trapezoid", "complement", "delta"]
Normalise = Literal["none", "keys", "both", "rms"]
EraseKey = Literal["write", "scaled", "own", "rates"]
Rotation = Literal["none", "fixed", "token"]
TokenRate = Literal["none", "softplus", "heavy_tail"]
LayerForm = Literal["auto", "recurrent", "parallel", "chunked"]
"""The operator's forms for whole sequences."""


@dataclass(frozen=True)
class LayerConfig:
    r"""One layer of gated linear attention or of the delta rule; `presets` holds those of the family's members.

    Args:
        key_dim: numbers in a head's query or key, K; the width if not given.
        value_dim: numbers in a head's value, V; the width if not given.
        heads: H; every head has its own queries, keys, values and gates.
        gate: the family: none, fixed (the constants `decays`), scalar (one gate per token), key or value (one per
            channel), full (one for each state entry, $G_t = \exp(-A \odot 1 \Delta_t^\top)$ with
            $\Delta_t = -\log g_t$ for each value channel).
        gate_bias: whether gates have a bias.
        link: what turns a logit into a gate; see `TokenGate`.
        rate: factor of the log gates.
        learn_rate: whether scalar or key gates have a learned rate per head, which starts at 1 (full gates always learn
            A, which starts at 1, 2 … K over the key channels).
        decays: the gate of each head, in [0, 1], for fixed gates.
        write: plain; step (the write is $k_t (\Delta_t \odot v_t)^\top$: scalar and full gates); trapezoid (Mamba-3's:
            every token is written twice, see `ops.mamba3`, with $\lambda_t$ a sigmoid of the token: scalar gates);
            complement (keys are $1 - g_t$ and W_k is absent: key gates); delta (the state is corrected by its error
            with the step size $\beta_t = b\,\mathrm{sigmoid}(W_b^\top z_t + b_b)$ of each head, see
            `ops.gated_delta_rule`: no gates, or fixed, scalar or key ones).
        step_bound: b, the largest step of the delta rule; at most 2, beyond which keys of length 1 make errors grow.
        normalise: whether keys, or both keys and queries, are divided by their length; rms divides both by their root
            mean square.
        bonus: whether outputs read $S_{t-1} + (u \odot k_t) v_t^\top$ with a learned u in place of $S_t$.
        open_columns: token columns that hold every gate open at the start.
        delimiter_columns: token columns that hold the first channel's gate open at the start, the last one's at one
            half, and those between in between.
        scale: s, multiplied into every output; 1/n keeps outputs of order one for prompts of n examples.
        backend: where the operator runs; see `gladient.ops.gated_linear_attention`.
        norm: whether each head's output is divided by its root mean square; `ResidualLayer` alone does it.
        output_gate: whether outputs are multiplied by silu(W_rᵀ z); `ResidualLayer` alone does it.
        form: how it runs: auto takes the fastest; recurrent, chunked or parallel (no full gates, no delta rule)
            compute the same, and all have derivatives of any order.
        erase_key: the key with which the delta rule reads what it takes away: write (the key that it writes with);
            scaled (that key times a learned number in (0, 1) for each head, Comba's); own (a key with weights W_e of
            its own); rates (RWKV-7's, see `ops.generalized_delta_rule`: with the key's direction
            $\kappa = s_\kappa \odot k$, divided by its length, and a step for each channel $a_t \in (0, b)^K$ in place
            of $\beta_t$, the state is read along κ before its decay, erased along $a_t \odot \kappa$ and written along
            $k \odot (1 + (a_t - 1) \odot m_a)$, with learned $s_\kappa$ and $m_a$ that start at 1).
        read_correction: whether queries are $q_t - d\, e_t$ with the key e that erases and a learned d for each head,
            which starts at 0.02 (the delta rule, but for rates).
        key_bias: whether keys and queries have a learned bias for each head, added after they are normalised.
        rotation: whether queries and keys turn in pairs of channels by angles that add up from token to token, see
            `ops.rotate`: none; fixed (the same learned angles at every token, shared by all heads); token
            ($\theta_t = \pi \tanh(W_\theta^\top z_t)$, shared by all heads; times a head's $\Delta_t$ with a trapezoid
            write). It goes with gates that all channels of a key share: none, fixed, scalar or value ones.
        turned_pairs: how many pairs of channels turn, the first ones; all if not given.
        shared_angle: whether all of them turn by one angle.
        angles: where fixed angles start, in radians; RoPE's $10000^{-p/P}$ for pair p of P if not given.
        token_rate: what makes rates A of scalar gates from tokens, $\log g_t = -A_t \Delta_t$, each 1e-4 or more and
            near 1 at the start: none; softplus (Mamba-3 until June 2026, and in flash-linear-attention 0.6); heavy_tail
            (since: 1 + u above 0, 1/(1 - u) below).

    Raises:
        ValueError: if an option is unknown or does not go with the others, or a size is below 1.

    >>> LayerConfig(gate="key", write="step")
    Traceback (most recent call last):
    ValueError: write='step' came with gate='key'; it goes with scalar or full
    """

    key_dim: int | None = None
    value_dim: int | None = None
    heads: int = 1
    gate: Gate = "scalar"
    gate_bias: bool = False
    link: Link = "sigmoid"
    rate: float = 1.0
    learn_rate: bool = False
    decays: tuple[float, ...] = ()
    write: Write = "plain"
    step_bound: float = 1.0
    normalise: Normalise = "none"
    bonus: bool = False
    open_columns: tuple[int, ...] = ()
    delimiter_columns: tuple[int, ...] = ()
    scale: float = 1.0
    backend: Backend = "auto"
    norm: bool = False
    output_gate: bool = False
    form: LayerForm = "auto"
    erase_key: EraseKey = "write"
    read_correction: bool = False
    key_bias: bool = False
    rotation: Rotation = "none"
    turned_pairs: int | None = None
    shared_angle: bool = False
    angles: tuple[float, ...] = ()
    token_rate: TokenRate = "none"

    def __post_init__(self) -> None:
        for name, size in (("key_dim", self.key_dim), ("value_dim", self.value_dim), ("heads", self.heads)):
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(get_args(choices))}")
        self._check_write()
        self._check_rotation()
        if self.form == "parallel" and (self.gate == "full" or self.write == "delta"):
            raise ValueError(
                f"form='parallel' came with gate={self.gate!r} and write={self.write!r}; it holds neither full gates "
                "nor the delta rule: use form='recurrent'"
            )
        if self.backend == "native" and self.form in ("recurrent", "parallel"):
            raise ValueError(f"form={self.form!r} came with backend='native'; it is plain PyTorch: use backend='auto'")
        if self.learn_rate and self.gate not in ("scalar", "key"):
            raise ValueError(
                f"learn_rate came with gate={self.gate!r}; it goes with scalar or key (full gates learn theirs always)"
            )
        if self.token_rate != "none" and (self.gate != "scalar" or self.learn_rate):
            raise ValueError(
                f"token_rate={self.token_rate!r} came with gate={self.gate!r} and learn_rate={self.learn_rate}; rates "
                "from tokens are those of scalar gates, in place of learned ones: use learn_rate=False"
            )
        wanted = self.heads if self.gate == "fixed" else 0
        if len(self.decays) != wanted or any(not 0 <= decay <= 1 for decay in self.decays):
            given = f"decays is {list(self.decays)}"
            raise ValueError(f"{given}; fixed gates need one in [0, 1] for each of {self.heads} heads, others none")

    def _check_write(self) -> None:
        goes_with = _GATES_OF.get(self.write, get_args(Gate))
        if self.gate not in goes_with:
            raise ValueError(
                f"write={self.write!r} came with gate={self.gate!r}; it goes with {' or '.join(goes_with)}"
            )
        if self.bonus and (self.write in ("delta", "trapezoid") or self.rotation != "none"):
            raise ValueError(
                f"bonus came with write={self.write!r} and rotation={self.rotation!r}; it belongs to reads before a "
                "plain write that does not turn: use bonus=False"
            )
        if not 0 < self.step_bound <= 2:
            raise ValueError(f"step_bound is {self.step_bound}; it must be above 0 and at most 2")
        if self.erase_key != "write" and self.write != "delta":
            raise ValueError(f"erase_key={self.erase_key!r} came with write={self.write!r}; it goes with delta")
        if self.read_correction and (self.write != "delta" or self.erase_key == "rates"):
            raise ValueError(
                f"read_correction came with write={self.write!r} and erase_key={self.erase_key!r}; it goes with the "
                "delta rule whose erase_key is write, scaled or own"
            )

    def _check_rotation(self) -> None:
        if self.rotation == "none":
            if self.turned_pairs is not None or self.shared_angle or self.angles:
                raise ValueError(
                    f"turned_pairs is {self.turned_pairs}, shared_angle {self.shared_angle} and angles "
                    f"{list(self.angles)} with rotation='none'; choose rotation='fixed' or 'token', or leave them out"
                )
            return
        if self.gate in ("key", "full"):
            raise ValueError(
                f"rotation={self.rotation!r} came with gate={self.gate!r}; the two channels of a pair must share their "
                "gate, or the turn would not be one of the state: use none, fixed, scalar or value gates"
            )
        if self.turned_pairs is not None and self.turned_pairs < 1:
            raise ValueError(f"turned_pairs is {self.turned_pairs}; it must be at least 1, or use rotation='none'")
        if self.angles and self.rotation == "token":
            raise ValueError(f"angles is {list(self.angles)} with rotation='token'; they are where fixed ones start")


_CHOICES: dict[str, Any] = {
    "gate": Gate,
    "link": Link,
    "write": Write,
    "normalise": Normalise,
    "backend": Backend,
    "form": LayerForm,
    "erase_key": EraseKey,
    "rotation": Rotation,
    "token_rate": TokenRate,
}
_GATES_OF: dict[str, tuple[str, ...]] = {
    "step": ("scalar", "full"),
    "trapezoid": ("scalar",),
    "complement": ("key",),
    "delta": ("none", "fixed", "scalar", "key"),
}
