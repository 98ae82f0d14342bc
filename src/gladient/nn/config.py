"""One layer, described once: every option, what it means, and which go together."""

from dataclasses import dataclass
from typing import Literal, get_args

from gladient.ops import Backend

__all__ = ["Gate", "LayerConfig", "LayerForm", "Link", "Normalise", "Write"]

Gate = Literal["none", "fixed", "scalar", "key", "value", "full"]
"""The gate families of a layer."""
Link = Literal["sigmoid", "exp"]
Write = Literal["plain", "step", "complement", "delta"]
Normalise = Literal["none", "keys", "both"]
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
        write: plain; step (the write is $k_t (\Delta_t \odot v_t)^\top$: scalar and full gates); complement (keys are
            $1 - g_t$ and W_k is absent: key gates); delta (the state is corrected by its error with the step size
            $\beta_t = b\,\mathrm{sigmoid}(W_b^\top z_t + b_b)$ of each head, see `ops.gated_delta_rule`: no gates, or
            fixed, scalar or key ones).
        step_bound: b, the largest step of the delta rule; at most 2, beyond which keys of length 1 make errors grow.
        normalise: whether keys, or both keys and queries, are divided by their length.
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

    Raises:
        ValueError: if an option is unknown or does not go with the gate, or a size is below 1.

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

    def __post_init__(self) -> None:
        for name, size in (("key_dim", self.key_dim), ("value_dim", self.value_dim), ("heads", self.heads)):
            if size is not None and size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        options = {"gate": Gate, "link": Link, "write": Write, "normalise": Normalise, "backend": Backend}
        for name, choices in (options | {"form": LayerForm}).items():
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(get_args(choices))}")
        rules: dict[str, tuple[str, ...]] = {"step": ("scalar", "full"), "complement": ("key",)}
        rules["delta"] = ("none", "fixed", "scalar", "key")
        goes_with = rules.get(self.write, get_args(Gate))
        if self.gate not in goes_with:
            raise ValueError(
                f"write={self.write!r} came with gate={self.gate!r}; it goes with {' or '.join(goes_with)}"
            )
        if self.write == "delta" and self.bonus:
            raise ValueError("bonus came with write='delta'; it belongs to reads before a plain write: use bonus=False")
        if self.form == "parallel" and (self.gate == "full" or self.write == "delta"):
            raise ValueError(
                f"form='parallel' came with gate={self.gate!r} and write={self.write!r}; it holds neither full gates "
                "nor the delta rule: use form='recurrent'"
            )
        if self.backend == "native" and self.form in ("recurrent", "parallel"):
            raise ValueError(f"form={self.form!r} came with backend='native'; it is plain PyTorch: use backend='auto'")
        if not 0 < self.step_bound <= 2:
            raise ValueError(f"step_bound is {self.step_bound}; it must be above 0 and at most 2")
        if self.learn_rate and self.gate not in ("scalar", "key"):
            raise ValueError(
                f"learn_rate came with gate={self.gate!r}; it goes with scalar or key (full gates learn theirs always)"
            )
        wanted = self.heads if self.gate == "fixed" else 0
        if len(self.decays) != wanted or any(not 0 <= decay <= 1 for decay in self.decays):
            given = f"decays is {list(self.decays)}"
            raise ValueError(f"{given}; fixed gates need one in [0, 1] for each of {self.heads} heads, others none")
