"""What stacks of each kind can reach, exactly: the lines of the depth figure."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from gladient import landscape
from gladient._types import Array, Float
from gladient.experiments.models.stack import NamedSetting
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.landscape.depth import (
    Stack,
    best_readout,
    best_stack,
    depth_bound,
    depth_floor,
    marked_layers,
    stack_risk,
)
from gladient.prompts import MultitaskSetting

__all__ = ["CLASSES", "ExactStacks", "delta_layers"]

CLASSES = {
    "linear_attention": ("linear_attention", "marks"),
    "scalar_gate": ("linear_attention", "marks", "scalar_gate"),
    "gated_delta_rule": ("linear_attention", "marks", "scalar_gate", "gated_delta_rule"),
}
"""The curves that models of each kind can reach: gates that stay open are none, small keys erase nothing."""

_STARTS = 2  # random ones of the search for two delta layers, beside two by hand


def delta_layers(setting: MultitaskSetting, *, seed: int = 0) -> float:
    """Risk of the best two layers of the gated delta rule that the search finds: one step for all tokens of a layer.

    Searched are both steps, all gates and the second layer's reading of the first; the read-out is solved for.

    >>> setting = MultitaskSetting.isotropic(n=[5, 5], r=[0.2, 0.8], d=5)
    >>> print(f"{delta_layers(setting) / 5:.4f} {landscape.delta.shared_step(setting, gated=True).risk / 5:.4f}")
    0.6090 0.6789
    """
    K, d, rng = setting.K, setting.d, np.random.default_rng(seed)

    def stack(point: Float[Array, " P"]) -> Stack:
        steps, gates, skip = point[:2], point[2:-1].reshape(2, K), point[-1]
        write = np.repeat(steps[:, None], K + 1, axis=1)
        return Stack([1.0, 1.0], [[0.0, 0.0], [skip, 0.0]], gates=gates, write=write, erase=1.0)

    def value_and_slope(point: Float[Array, " P"]) -> tuple[float, Float[Array, " P"]]:
        found = stack_risk(setting, best_readout(setting, stack(point)))
        slope = found.gradient
        return found.risk, np.concatenate([slope["write"].sum(1), slope["gates"].ravel(), slope["skips"][1, :1]])

    # By hand: the first layer shut at every delimiter, or read by a second one that is open; steps below 2 / (d + 2),
    # where the rule is stable.
    unit = 1.0 / (d + 2)
    shut = np.concatenate([[0.3 * unit, 0.2 * unit], np.zeros(K), np.full(K - 1, 0.25), [1.0, -1.0]])
    read = np.concatenate([[0.2 * unit, 0.02 * unit], np.zeros(K - 1), [0.4], np.full(K, 0.9), [-1.3]])
    bounds = [(1e-4, 2.0 * unit)] * 2 + [(0.0, 1.0)] * (2 * K) + [(None, None)]
    random = [
        np.concatenate([rng.uniform(0.0, unit, 2), rng.uniform(0.0, 1.0, 2 * K), rng.uniform(-1.5, 0.5, 1)])
        for _ in range(_STARTS)
    ]
    return float(
        min(minimize(value_and_slope, x, jac=True, method="L-BFGS-B", bounds=bounds).fun for x in (shut, read, *random))
    )


_ONE_LAYER: dict[str, Callable[[MultitaskSetting], float]] = {
    "linear_attention": lambda setting: landscape.linear_attention(setting).risk,
    "scalar_gate": lambda setting: landscape.scalar_gate(setting).risk,
    "gated_delta_rule": lambda setting: landscape.delta.shared_step(setting, gated=True).risk,
    "bound": lambda setting: landscape.optimum(setting).risk,
}
_LAYERS: dict[str, Callable[[MultitaskSetting, int], float]] = {
    "linear_attention": lambda setting, layers: best_stack(setting, layers, "none").risk,
    "scalar_gate": lambda setting, layers: best_stack(setting, layers, "scalar").risk,
    "gated_delta_rule": lambda setting, layers: delta_layers(setting),
    "marks": lambda setting, layers: marked_layers(setting).risk,
    "bound": lambda setting, layers: depth_bound(setting, layers).risk,
}
_ANY: dict[str, Callable[[MultitaskSetting], float]] = {
    "floor": lambda setting: depth_floor(setting).risk,
    "bayes": lambda setting: landscape.bayes(setting, prompts=2000).risk,
}


@dataclass(frozen=True)
class ExactStacks:
    """The exact risks of one setting.

    Args:
        panel: the setting.
        layers: L; two layers of the delta rule and the marks stand for more.
    """

    panel: NamedSetting
    layers: int

    @property
    def name(self) -> str:
        """What files are called."""
        return f"exact-{self.panel.name.replace(' ', '-')}-n{sum(self.panel.n)}"

    @property
    def steps(self) -> int:
        """One for each number of layers, and one for what holds for any."""
        return self.layers + 1

    @property
    def cost(self) -> float:
        """In the unit of `GrownModels`, roughly."""
        return 1000.0 * 30 * self.layers

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each curve and number of layers, 0 for any; in units of the risk of predicting 0."""
        setting = self.panel.setting
        found: list[Measurement] = [_measured(curve, 0, risk(setting), setting) for curve, risk in _ANY.items()]
        on_step(1)
        for L in range(1, self.layers + 1):
            risks = {curve: risk(setting) for curve, risk in _ONE_LAYER.items()}
            if L > 1:
                risks = {curve: deep(setting, L) for curve, deep in _LAYERS.items()}
            found += [_measured(curve, L, risk, setting) for curve, risk in risks.items()]
            on_step(1 + L)
        return Outcome(found)


def _measured(curve: str, layers: int, risk: float, setting: MultitaskSetting) -> Measurement:
    return {"curve": curve, "layers": layers, "risk": risk / setting.M}
