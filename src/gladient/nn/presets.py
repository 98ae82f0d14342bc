"""The family's members as configurations of one residual layer: what each keeps of the original, what it leaves out.

None has short convolutions, token shifts, feature maps, positional rotations, low-rank factors or normalised tokens:
what is compared is the recurrence, its gate and its output. Mamba-3's rotation is part of its gate, and there.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gladient.nn.config import LayerConfig, TokenRate

__all__ = [
    "PRESETS",
    "comba",
    "deltanet",
    "gated_deltanet",
    "gla",
    "hgrn2",
    "kda",
    "linear_attention",
    "mamba",
    "mamba2",
    "mamba3",
    "retnet",
    "rwkv6",
    "rwkv7",
]


def linear_attention(width: int, *, heads: int = 1) -> LayerConfig:
    """Linear attention (Katharopoulos et al. 2020): no gate. Leaves out the feature map and the normaliser.

    Raises:
        ValueError: if the heads do not divide the width; so do all presets with heads.

    >>> linear_attention(8, heads=2).key_dim
    4
    """
    return replace(_heads(width, heads), gate="none")


def retnet(width: int, *, heads: int = 1) -> LayerConfig:
    r"""RetNet (Sun et al. 2023): the fixed decay $1 - 2^{-5-h}$ of head h, output norm and gate. Leaves out rotations.

    >>> retnet(8, heads=2).decays
    (0.96875, 0.984375)
    """
    decays = tuple(1 - 2.0 ** (-5 - h) for h in range(heads))
    return replace(_heads(width, heads), gate="fixed", decays=decays, norm=True, output_gate=True)


def mamba2(width: int, *, heads: int = 1) -> LayerConfig:
    r"""Mamba-2 (Dao and Gu 2024): scalar gates $\exp(-A\Delta_t)$, writes scaled by $\Delta_t$, output norm and gate.

    Leaves out the convolution, the skip D, and the sharing of keys and queries between heads.

    >>> mamba2(8).write
    'step'
    """
    options = _heads(width, heads, gate_bias=True, norm=True, output_gate=True)
    return replace(options, gate="scalar", write="step", learn_rate=True)


def gla(width: int, *, heads: int = 1) -> LayerConfig:
    r"""GLA (Yang et al. 2024): key gates $\mathrm{sigmoid}(\cdot)^{1/16}$, output norm and gate. Gates have full rank.

    >>> gla(8).rate
    0.0625
    """
    return replace(_heads(width, heads, gate_bias=True, norm=True, output_gate=True), gate="key", rate=1 / 16)


def rwkv6(width: int, *, heads: int = 1) -> LayerConfig:
    r"""RWKV-6 (Peng et al. 2024): key gates $\exp(-\exp(\cdot))$, outputs before the write plus a bonus, norm and gate.

    Leaves out token shifts, the low-rank form of the gates, and the channel mixing between layers.

    >>> rwkv6(8).bonus
    True
    """
    options = _heads(width, heads, gate_bias=True, norm=True, output_gate=True)
    return replace(options, gate="key", link="exp", bonus=True)


def mamba(width: int, *, heads: int = 1, state: int = 16) -> LayerConfig:
    r"""Mamba (Gu and Dao 2023): full gates $\exp(-\Delta_t[v]\,A[k, v])$ of `state` keys, Δ in the write, output gate.

    Leaves out the convolution, the skip D, the expansion, and the bottleneck before Δ. The original has one head.

    >>> mamba(8).key_dim, mamba(8).value_dim
    (16, 8)
    """
    options = _heads(width, heads, gate_bias=True, output_gate=True)
    return replace(options, gate="full", write="step", key_dim=state)


def hgrn2(width: int, *, heads: int = 1) -> LayerConfig:
    """HGRN-2 (Qin et al. 2024): key gates g whose complement 1 - g is the key, output norm. Lower bounds are 0.

    >>> hgrn2(8).write
    'complement'
    """
    return replace(_heads(width, heads, gate_bias=True, norm=True), gate="key", write="complement")


def deltanet(width: int, *, heads: int = 1, step_bound: float = 1.0) -> LayerConfig:
    r"""DeltaNet (Yang et al. 2024): the delta rule, keys and queries of length 1, output norm.

    A `step_bound` of 2 allows negative eigenvalues (Grazzi et al. 2025). Leaves out the convolution and the SiLU on
    keys, queries and values.

    >>> deltanet(8).write, deltanet(8).normalise
    ('delta', 'both')
    """
    options = _heads(width, heads, write="delta", step_bound=step_bound, normalise="both", norm=True)
    return replace(options, gate="none")


def gated_deltanet(width: int, *, heads: int = 1, step_bound: float = 1.0) -> LayerConfig:
    r"""Gated DeltaNet (Yang et al. 2024): DeltaNet with scalar gates $\exp(-A\Delta_t)$, output norm and gate.

    Leaves out what `deltanet` does; all heads have keys and values of one size.

    >>> gated_deltanet(8).gate, gated_deltanet(8).learn_rate
    ('scalar', True)
    """
    options = replace(deltanet(width, heads=heads, step_bound=step_bound), gate="scalar", gate_bias=True)
    return replace(options, learn_rate=True, output_gate=True)


def kda(width: int, *, heads: int = 1, step_bound: float = 1.0) -> LayerConfig:
    r"""Kimi Delta Attention (Kimi Team 2025): DeltaNet with key gates $\exp(-A\Delta_t)$, output norm and gate.

    Leaves out what `deltanet` does and the low-rank form of the gates; its output gate is SiLU, not a sigmoid.

    >>> kda(8).gate
    'key'
    """
    return replace(gated_deltanet(width, heads=heads, step_bound=step_bound), gate="key")


def comba(width: int, *, heads: int = 1) -> LayerConfig:
    r"""Comba (Hu et al. 2025): Gated DeltaNet erasing with $e_t = \mathrm{sigmoid}(c)\,k_t$, queries $q_t - d\,e_t$.

    Leaves out what `deltanet` does; its output gate is SiLU, not a sigmoid. Keys have length 1 before they are scaled,
    as in the paper: flash-linear-attention's layer divides the erasing key by its length once more, and c is gone.

    >>> comba(8).erase_key
    'scaled'
    """
    return replace(gated_deltanet(width, heads=heads), erase_key="scaled", read_correction=True)


def rwkv7(width: int, *, heads: int = 1) -> LayerConfig:
    r"""RWKV-7 (Peng et al. 2025): key gates from $e^{-e^{-1/2}}$ to 1, and three keys: read, erased and written along.

    Keeps the learned $s_\kappa$ and $m_a$ of its keys, output norm (a root mean square) and gate. Leaves out token
    shifts, the low-rank form of gates and rates, the first layer's values that later ones mix in, the bonus
    $(r_t \cdot k_t) v_t$ after the norm, and the channel mixing between layers.

    >>> rwkv7(8).erase_key, round(rwkv7(8).rate, 4)
    ('rates', 0.6065)
    """
    options = _heads(width, heads, gate_bias=True, norm=True, output_gate=True)
    return replace(options, gate="key", link="bounded", rate=math.exp(-0.5), write="delta", erase_key="rates")


def mamba3(width: int, *, heads: int = 1, token_rate: TokenRate = "heavy_tail") -> LayerConfig:
    r"""Mamba-3 (arXiv 2603.15569): Mamba-2 whose rates are the token's, whose state turns, and with two writes a token.

    Keeps gates $\exp(-A_t \Delta_t)$, queries and keys divided by their root mean square with biases that start at 1,
    angles $\pi \tanh(\cdot) \Delta_t$ for half of the pairs (at least one), the mix of both writes, the output gate.
    Leaves out the sharing of keys and queries between heads, the norms' scales, the skip D, several ranks (`ops.mamba3`
    has them) and the norm before the output, which is off in the original.

    Args:
        width: numbers in a token.
        heads: heads, which the layer takes if their channels are even in number.
        token_rate: what makes rates $A_t$: softplus until June 2026, heavy_tail since; no checkpoint says which.

    >>> mamba3(8).write, mamba3(8).turned_pairs
    ('trapezoid', 2)
    """
    options = _heads(width, heads, gate_bias=True, output_gate=True, token_rate=token_rate, key_bias=True)
    turning = replace(options, rotation="token", turned_pairs=max(1, width // heads // 4), normalise="rms")
    return replace(turning, gate="scalar", write="trapezoid")


PRESETS: dict[str, Callable[..., LayerConfig]] = {
    "linear_attention": linear_attention,
    "retnet": retnet,
    "mamba2": mamba2,
    "gla": gla,
    "rwkv6": rwkv6,
    "mamba": mamba,
    "hgrn2": hgrn2,
    "deltanet": deltanet,
    "gated_deltanet": gated_deltanet,
    "kda": kda,
    "comba": comba,
    "rwkv7": rwkv7,
    "mamba3": mamba3,
}
"""The presets by name."""


def _heads(width: int, heads: int, **switches: Any) -> LayerConfig:
    if heads < 1 or width % heads:
        raise ValueError(f"width {width} does not divide into {heads} heads; choose heads that divide it")
    size = width // heads
    return replace(LayerConfig(heads=heads, key_dim=size, value_dim=size), **switches)
