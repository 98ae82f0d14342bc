"""One-layer models whose state turns, for multitask prompts: what they are, and how they start."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from gladient.experiments.models.presets import assign_roles, start_steps
from gladient.nn import GatedLinearAttention, InContextRegressor, LayerConfig
from gladient.prompts import PromptLayout

__all__ = ["build_rotating"]

# For the delta rule: a first turn of nearly a quarter keeps the tasks' keys apart, so that the sign of a turn is not
# lost while the other weights settle; queries leave keys a little, since what the query's own step erases is along its
# key.
_TURN, _APART = 0.8, 0.3


def build_rotating(
    config: LayerConfig, layout: PromptLayout, seeds: Sequence[int], key_channels: int
) -> InContextRegressor:
    r"""A layer with one head, a pair of key channels per feature that turn by one angle, and the label as its value.

    Keys and queries start at random and alike: at keys (x_j, 0) and angles of 0 the gradient of the angles is 0. Angles
    from tokens start at 0 but for the delimiters', so that examples do not turn with their features. A fixed angle
    starts at a half turn over the whole prompt, its decay at 1/e, and queries a quarter turn from keys: weights that
    rise along the prompt lie there, and those that fall with the other sign of the angle.

    Args:
        config: the layer; its sizes, columns and scale are those of the prompts.
        layout: where the prompts' tokens stand.
        seeds: one for each member of the stack.
        key_channels: not used: more than two channels per feature make no other weights.

    >>> model = build_rotating(LayerConfig(rotation="token", shared_angle=True), PromptLayout(n=(3, 2), d=4), [0], 1)
    >>> tuple(model.layer.W_k.shape), tuple(model.layer.angle.weight.shape)
    ((1, 8, 8), (1, 8, 1))
    """
    config = replace(
        config,
        key_dim=2 * layout.d,
        value_dim=1,
        open_columns=layout.data_columns,
        delimiter_columns=layout.delimiter_columns,
        scale=1.0 if config.write == "delta" else 1 / sum(layout.n),
    )
    model = InContextRegressor(layout.width, config, seeds=seeds)
    assign_roles(model.layer, layout)
    with torch.no_grad():
        start_steps(model.layer, layout)
        _start(model.layer, layout)
        model.readout.fill_(1.0)
    return model


def _start(layer: GatedLinearAttention, layout: PromptLayout) -> None:
    W_k, delta = cast(Tensor, layer.W_k), layer.config.write == "delta"
    layer.W_v[:, layout.d] = 1.0
    layer.W_q.mul_(_APART if delta else 0.0).add_(W_k)
    if layer.angles is not None and layer.gate is not None and layer.gate.bias is not None:
        layer.angles.fill_(math.pi / layout.length)
        layer.gate.bias.fill_(math.log(layout.length - 1))
        layer.W_q.copy_(torch.stack((W_k[..., 1::2], -W_k[..., 0::2]), -1).flatten(-2))
    if layer.angle is not None:
        delimiters = list(layout.delimiter_columns)
        apart = layer.angle.weight[:, delimiters]
        # half of the layer's own spread beside the first turn, which gives it one sign
        turns = math.atanh(_TURN / math.pi) + apart / 2 if delta else apart
        layer.angle.weight.zero_()[:, delimiters] = turns
