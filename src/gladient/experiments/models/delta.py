"""One-layer delta rules for multitask prompts: what they are, and how they start."""

from collections.abc import Sequence

import torch

from gladient.experiments.models.presets import assign_roles, start_steps
from gladient.nn import Gate, InContextRegressor, LayerConfig
from gladient.prompts import PromptLayout

__all__ = ["build_delta"]


def build_delta(
    gate: Gate, layout: PromptLayout, seeds: Sequence[int], key_channels: int, *, unit: bool = False
) -> InContextRegressor:
    """A layer with one head, a key of d channels, the label as its value, steps from tokens, and scalar gates or none.

    Args:
        gate: none or scalar.
        layout: where the prompts' tokens stand.
        seeds: one for each member of the stack.
        key_channels: not used: more channels of the keys than features change no rule.
        unit: whether keys have length 1.

    >>> model = build_delta("scalar", PromptLayout(n=(3, 2), d=4), [0], 1)
    >>> tuple(model.layer.W_k.shape), tuple(model.readout.shape)
    ((1, 8, 4), (1, 1))
    """
    config = LayerConfig(
        gate=gate,
        write="delta",
        normalise="keys" if unit else "none",
        key_dim=layout.d,
        value_dim=1,
        open_columns=layout.data_columns,
    )
    model = InContextRegressor(layout.width, config, seeds=seeds)
    assign_roles(model.layer, layout)
    with torch.no_grad():
        start_steps(model.layer, layout)
    return model
