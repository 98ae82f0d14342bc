"""The kinds of one-layer models that are trained, and the exact risk that each is held against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gladient import landscape
from gladient.experiments._presets import assign_roles, build_preset
from gladient.nn import Gate, InContextRegressor, LayerConfig
from gladient.nn.presets import retnet
from gladient.prompts import MultitaskSetting, PromptLayout

__all__ = ["MODELS", "RUNGS", "Kind", "own_decay"]


@dataclass(frozen=True)
class Kind:
    """A gate family, or a preset of `gladient.nn.presets`, as a one-layer model.

    Attributes:
        rung: the name in `RUNGS` of what it is held against.
        build: makes the untrained models of a layout, one for each seed, with `key_channels` channels of the keys per
            feature where the kind has a choice.
        contextual: whether its tokens carry contextual features; without them the rung is drawn for comparison only.
        gate_rate: step size of its gates; that of the training if not given.
        cost: time per token, beside that of linear attention.
    """

    rung: str
    build: Callable[..., InContextRegressor]
    contextual: bool = True
    gate_rate: float | None = None
    cost: float = 1.0


def own_decay(setting: MultitaskSetting) -> float:
    """Exact risk of RetNet's one-head decay with the best preconditioner; the state decays at every token.

    Weights fall from example to example, so each example is treated as a separate task.

    >>> print(f"{own_decay(MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=4)):.6f}")
    2.427220
    """
    layout = PromptLayout.of(setting)
    places = np.concatenate([np.arange(block.start, block.stop) for block in layout.blocks])
    task = np.repeat(np.arange(setting.K), setting.n)
    each = MultitaskSetting(
        np.ones(len(task)), setting.R[np.ix_(task, task)], setting.r[task], setting.Sigma, setting.sigma2
    )
    (decay,) = retnet(layout.width).decays
    return landscape.profile_risk(decay ** (layout.length - 1.0 - places), each)


RUNGS: Mapping[str, Callable[[MultitaskSetting], float]] = {
    "linear_attention": lambda setting: landscape.linear_attention(setting).risk,
    "own_decay": own_decay,
    "scalar_gate": lambda setting: landscape.scalar_gate(setting).risk,
    "value_gate": lambda setting: landscape.optimum(setting).risk,
    "half_gate": lambda setting: landscape.half_gate(setting).risk,
}


def _family(gate: Gate, layout: PromptLayout, seeds: Sequence[int], key_channels: int) -> InContextRegressor:
    """A layer that has only this gate; a key has as many channels as a token."""
    config = LayerConfig(
        gate=gate,
        value_dim=len(layout.n),  # one row of state for each task is enough for any weights
        open_columns=layout.data_columns,
        delimiter_columns=layout.delimiter_columns,
        scale=1 / sum(layout.n),
    )
    model = InContextRegressor(layout.width, config, seeds=seeds)
    assign_roles(model.layer, layout)
    return model


# Several value channels, or several key channels per feature, make any weights; so do keys 1 - g,
# in the limit of small keys: see tests/experiments/test_family.py. Gates that also scale the writes, are
# the keys, or are exponentials of exponentials take smaller steps: features move them too fast at 0.1.
MODELS: Mapping[str, Kind] = {
    "linear_attention": Kind("linear_attention", partial(_family, "none")),
    "scalar_gate": Kind("scalar_gate", partial(_family, "scalar"), cost=1.4),
    "value_gate": Kind("value_gate", partial(_family, "value"), cost=1.6),
    "without_context": Kind("half_gate", partial(_family, "scalar"), contextual=False, cost=1.4),
    "retnet": Kind("own_decay", partial(build_preset, "retnet")),
    "mamba2": Kind("scalar_gate", partial(build_preset, "mamba2"), gate_rate=0.03),
    "gla": Kind("value_gate", partial(build_preset, "gla"), cost=1.5),
    "rwkv6": Kind("value_gate", partial(build_preset, "rwkv6"), gate_rate=0.03, cost=1.5),
    "mamba": Kind("value_gate", partial(build_preset, "mamba"), gate_rate=0.03, cost=5.0),
    "hgrn2": Kind("value_gate", partial(build_preset, "hgrn2"), gate_rate=0.01, cost=3.0),
}
