"""The family's presets as one-layer models for multitask prompts: what is kept of them, and how they start."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gladient.nn import GatedLinearAttention, InContextRegressor, LayerConfig
from gladient.nn.presets import PRESETS
from gladient.prompts import PromptLayout

__all__ = ["assign_roles", "build_layer", "build_preset", "start_steps"]

_OPEN = 6.0  # logit of an open gate
_SHUT = 0.05  # where the delimiters' gates are spread to
_MIRROR = 0.1  # weight of the features in keys that are complements of gates


def build_preset(
    preset: str, layout: PromptLayout, seeds: Sequence[int], *, key_channels: int = 2
) -> InContextRegressor:
    r"""A preset's recurrence, gate, write and read with one head, a value channel a task and a read-out.

    Output norm and output gate are left out: a norm divides by the size of the estimate, and neither is a gate of the
    state. Queries keep their length, to which the answer is proportional; so do keys, but for those of delta rules,
    where it bounds the steps. So Mamba-3 is without its norms and their biases. Keys have `key_channels` channels per
    feature, and as many pairs of channels where they are complements of gates: only the difference of two such keys is
    odd in the features, as a plain key is.

    The start gives roles, as Theorem 1 of arXiv 2504.04308 does, and plants no weights: keys and queries begin blind to
    labels, values to all else. Data gates are open; delimiters' gates are spread over the key channels from open to
    nearly shut, scalar ones half open; queries equal keys up to signs that alternate from channel to channel. Writes
    that are scaled by $\Delta_t$, and keys $1 - g_t$, are small while gates are open; `scale` makes up for that.

    Args:
        preset: a name in `nn.presets.PRESETS`.
        layout: where the prompts' tokens stand.
        seeds: one for each member of the stack.
        key_channels: channels of the keys per feature.

    >>> model = build_preset("gla", PromptLayout(n=(3, 2), d=4), seeds=[0])
    >>> tuple(model.layer.W_k.shape), tuple(model.readout.shape)
    ((1, 8, 8), (1, 2))
    """
    return build_layer(PRESETS[preset](layout.width), layout, seeds, key_channels=key_channels)


def build_layer(
    config: LayerConfig, layout: PromptLayout, seeds: Sequence[int], *, key_channels: int = 2
) -> InContextRegressor:
    """The same of any config; its sizes, columns and scale are those of the prompts.

    >>> model = build_layer(LayerConfig(gate="scalar", norm=True), PromptLayout(n=(3, 2), d=4), seeds=[0, 1])
    >>> tuple(model.layer.W_k.shape), model.layer.config.norm
    ((2, 8, 8), False)
    """
    K = (2 if config.write == "complement" else 1) * key_channels * layout.d
    config = replace(
        config,
        key_dim=K,
        value_dim=len(layout.n),
        open_columns=layout.data_columns,
        delimiter_columns=layout.delimiter_columns,
        scale=_scale(config, sum(layout.n)),
        normalise="keys" if config.write == "delta" and config.normalise != "none" else "none",
        key_bias=False,
        turned_pairs=None if config.turned_pairs is None else K // 4,  # half of them, as in Mamba-3
        norm=False,
        output_gate=False,
    )
    model = InContextRegressor(layout.width, config, seeds=seeds)
    assign_roles(model.layer, layout)
    with torch.no_grad():
        _start(model.layer, layout)
    return model


def _scale(config: LayerConfig, n: int) -> float:
    """What brings writes of open gates to order one; the delta rule's state is of order one by itself."""
    shut = float(torch.tensor(-_OPEN).sigmoid())
    small = {"plain": 1.0, "step": shut, "trapezoid": shut, "complement": _MIRROR * shut, "delta": 1 / n}[config.write]
    return 1 / (n * small)


def assign_roles(layer: GatedLinearAttention, layout: PromptLayout) -> None:
    """Let keys and queries read features at first, values the label.

    Keys that read labels beside values that read features can take each other's part: some starts then end with an
    estimate of the strongest direction alone.
    """
    with torch.no_grad():
        for weight in (layer.W_q, layer.W_k, layer.W_e):
            if weight is not None:
                weight[:, layout.d :] = 0
        layer.W_v[:, : layout.d] = 0
        layer.W_v[:, layout.d + 1 :] = 0


def start_steps(layer: GatedLinearAttention, layout: PromptLayout) -> None:
    """Steps of half of 1/(d + 2), the best one for one task without noise; of 0.8 for keys of length 1.

    They are far below the bound of stability, so that errors do not grow before the steps have moved.
    """
    if layer.step is not None:
        unit = layer.config.normalise != "none"
        layer.step.bias.fill_(torch.tensor(0.8 if unit else 0.5 / (layout.d + 2)).logit())


def _start(layer: GatedLinearAttention, layout: PromptLayout) -> None:
    start_steps(layer, layout)
    if layer.gate is None:
        return
    if layer.gate.bias is not None:
        layer.gate.bias.zero_()  # the columns of the data tokens hold the gates open
    if layer.config.gate == "scalar":
        layer.gate.weight[:, list(layout.delimiter_columns)] = 0.0
    if layer.mix is not None:
        # A delimiter's long step, half open, would write the example before it a second time, 100 times as strongly.
        layer.mix.weight[:, list(layout.delimiter_columns)] = _OPEN
    if layer.config.gate == "key":
        channels = layer.W_q.shape[2]
        distinct = channels // 2 if layer.W_k is None else channels
        logits = _logits(torch.linspace(1 - 1e-3, _SHUT, distinct), layer).repeat(channels // distinct)
        layer.gate.weight[:, list(layout.delimiter_columns)] = logits
        signs = 1.0 - 2.0 * (torch.arange(distinct) % 2)
        if layer.W_k is None:
            _mirror(layer, layout, signs)
        else:
            layer.W_q.mul_(signs)


def _logits(gates: Tensor, layer: GatedLinearAttention) -> Tensor:
    """What the layer's link and rate turn into these gates."""
    steps = -gates.log() / layer.config.rate
    links = {"sigmoid": lambda: (-steps).exp().logit(), "exp": lambda: -steps.log()}
    links["bounded"] = lambda: -steps.clamp(max=float(torch.tensor(_OPEN).sigmoid())).logit()
    return links[layer.config.link]().clamp(max=_OPEN)


def _mirror(layer: GatedLinearAttention, layout: PromptLayout, signs: Tensor) -> None:
    """Keys 1 - g in pairs of both signs, whose difference is odd in the features; queries along them."""
    assert layer.gate is not None
    half = layer.W_q[:, : layout.d, : len(signs)].clone()
    half *= layer.W_q.shape[2] ** 0.5  # entries of variance 1
    layer.gate.weight[:, :, len(signs) :] = layer.gate.weight[:, :, : len(signs)]
    layer.gate.weight[:, : layout.d] = _MIRROR * torch.cat([half, -half], 2)
    layer.W_q.zero_()[:, : layout.d] = torch.cat([signs * half, -signs * half], 2) / layer.W_q.shape[2] ** 0.5
