"""The models that are trained, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gladient.experiments.models.delta import build_delta
from gladient.experiments.models.presets import assign_roles, build_preset
from gladient.experiments.models.rotation import build_rotating
from gladient.nn import Gate, InContextRegressor, LayerConfig
from gladient.prompts import PromptLayout

__all__ = ["MODELS", "TOKENS", "ModelKind", "check_model", "find_model"]

# What tokens tell a layer, as options of `PromptLayout`.
TOKENS: Mapping[str, Mapping[str, Any]] = {
    "paper": {},
    "without_context": {"contextual": False},
    "task": {"marks": "task"},
    "stream": {"marks": "query", "delimiters": False},
}


@dataclass(frozen=True)
class ModelKind:
    """A gate family or a preset of `gladient.nn.presets` as a one-layer model, or a model that a user registered.

    Attributes:
        rung: the name in `RUNGS` of what it is compared with.
        build: makes the untrained models of a layout, one for each seed, with `key_channels` channels of the keys per
            feature where the kind has a choice; one module that holds them side by side.
        tokens: a name in `TOKENS`.
        gate_rate: step size of its gates; that of the training if not given.
        isotropic: whether its rung is exact for features of one variance alone.
        cost: time per token, beside that of linear attention.
        known: whether the rung is what it should reach, and is not drawn for comparison only.
        origin: where a registered model comes from, as JSON values; None for those of this package.
    """

    rung: str
    build: Callable[..., Any]
    tokens: str = "paper"
    gate_rate: float | None = None
    isotropic: bool = False
    cost: float = 1.0
    known: bool = True
    origin: Mapping[str, Any] | None = None


def _family(gate: Gate, layout: PromptLayout, seeds: Sequence[int], key_channels: int) -> InContextRegressor:
    """A layer that has only this gate; a key has as many channels as a token."""
    config = LayerConfig(
        gate=gate,
        value_dim=len(layout.delimiter_places) or 1,  # a row of state for each task is enough for any weights
        open_columns=layout.data_columns,
        delimiter_columns=layout.delimiter_columns,
        scale=1 / sum(layout.n),
    )
    model = InContextRegressor(layout.width, config, seeds=seeds)
    assign_roles(model.layer, layout)
    return model


# Gates that cannot tell tokens apart are one decay for all of them, from their bias.
_FIXED = LayerConfig(gate_bias=True, rotation="fixed", shared_angle=True)
_TURNING = LayerConfig(rotation="token", shared_angle=True)

# Several value channels, or several key channels per feature, make any weights; so do keys 1 - g,
# in the limit of small keys: see tests/experiments/test_family.py. Gates that also scale the writes, are
# the keys, or are exponentials of exponentials take smaller steps: features move them too fast at 0.1.
MODELS: dict[str, ModelKind] = {
    "linear_attention": ModelKind("linear_attention", partial(_family, "none")),
    "scalar_gate": ModelKind("scalar_gate", partial(_family, "scalar"), cost=1.4),
    "value_gate": ModelKind("value_gate", partial(_family, "value"), cost=1.6),
    "without_context": ModelKind(
        "half_gate", partial(_family, "scalar"), tokens="without_context", cost=1.4, known=False
    ),
    "retnet": ModelKind("own_decay", partial(build_preset, "retnet")),
    "mamba2": ModelKind("scalar_gate", partial(build_preset, "mamba2"), gate_rate=0.03),
    "gla": ModelKind("value_gate", partial(build_preset, "gla"), cost=1.5),
    "rwkv6": ModelKind("value_gate", partial(build_preset, "rwkv6"), gate_rate=0.03, cost=1.5),
    "mamba": ModelKind("value_gate", partial(build_preset, "mamba"), gate_rate=0.03, cost=5.0),
    "hgrn2": ModelKind("value_gate", partial(build_preset, "hgrn2"), gate_rate=0.01, cost=3.0),
    "deltanet": ModelKind("linear_attention", partial(build_preset, "deltanet"), cost=3.0),
    "gated_deltanet": ModelKind("scalar_gate", partial(build_preset, "gated_deltanet"), gate_rate=0.03, cost=3.0),
    "kda": ModelKind("value_gate", partial(build_preset, "kda"), gate_rate=0.03, cost=4.0),
    "comba": ModelKind("scalar_gate", partial(build_preset, "comba"), gate_rate=0.03, cost=3.0),
    "rwkv7": ModelKind("value_gate", partial(build_preset, "rwkv7"), gate_rate=0.03, cost=6.0),
    "mamba3": ModelKind("value_gate", partial(build_preset, "mamba3"), gate_rate=0.03, cost=3.0),
    "delta_rule": ModelKind("shared_step", partial(build_delta, "none"), isotropic=True, cost=2.0),
    "gated_delta_rule": ModelKind("gated_shared_step", partial(build_delta, "scalar"), isotropic=True, cost=2.0),
    "gated_delta_rule_unit": ModelKind(
        "gated_delta_rule_unit", partial(build_delta, "scalar", unit=True), isotropic=True, cost=2.0
    ),
    "delta_rule_per_task": ModelKind("delta_rule_per_task", partial(build_delta, "scalar"), "task", cost=2.0),
    "delta_rule_per_task_unit": ModelKind(
        "delta_rule_per_task_unit", partial(build_delta, "scalar", unit=True), "task", isotropic=True, cost=2.0
    ),
    "fixed_rotation": ModelKind(
        "fixed_rotation", partial(build_rotating, _FIXED), "without_context", gate_rate=0.1, cost=2.0
    ),
    "rotating_gate": ModelKind("rotating_gate", partial(build_rotating, _TURNING), cost=2.0),
    "rotating_delta_rule": ModelKind(
        "rotating_delta_rule", partial(build_rotating, replace(_TURNING, write="delta")), isotropic=True, cost=4.0
    ),
    "stream_gate": ModelKind("constant_gate", partial(_family, "scalar"), "stream"),
    "stream_delta_rule": ModelKind("constant_step", partial(build_delta, "none"), "stream", cost=2.0),
    "stream_gated_delta_rule": ModelKind(
        "constant_gate_and_step", partial(build_delta, "scalar"), "stream", isotropic=True, cost=2.0
    ),
}
"""The models that figures, sweeps and `gladient train` name: how each is built, and the rung that it should reach.
`register` adds more."""


def find_model(name: str) -> ModelKind:
    """The model of this name.

    Raises:
        ValueError: if there is none.
    """
    if name not in MODELS:
        own = "; `experiments.register` adds your own, and `--register MODULE` imports the module that does"
        raise ValueError(f"there is no model {name!r}; choose among {', '.join(MODELS)}{own}")
    return MODELS[name]


def check_model(name: str, spectrum: Sequence[float]) -> None:
    """Raises ValueError if there is no such model, or none with an exact risk for these variances of the features.

    >>> check_model("delta_rule", [2.0, 1.0])
    Traceback (most recent call last):
    ValueError: delta_rule came with the variances 2, 1; its exact risk needs equal ones: take d in place of a spectrum
    """
    if find_model(name).isotropic and len(set(spectrum)) > 1:
        raise ValueError(
            f"{name} came with the variances {', '.join(f'{one:g}' for one in spectrum)}; its exact risk needs equal "
            "ones: take d in place of a spectrum"
        )
