"""The exact risks that trained models are compared with."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brute

from gladient import landscape
from gladient._types import Array
from gladient.nn.presets import retnet
from gladient.prompts import MultitaskSetting, PromptLayout

__all__ = ["RUNGS", "ConstantRule", "by_example", "constant_rule", "own_decay"]


@dataclass(frozen=True)
class ConstantRule:
    """The best rule with the same numbers at every example.

    Attributes:
        risk: expected squared error of the query's prediction.
        decay: what each example leaves of the state.
        step: the delta rule's step; 0 for plain writes.
    """

    risk: float
    decay: float
    step: float = 0.0


def by_example(setting: MultitaskSetting) -> MultitaskSetting:
    """The same prompts with a separate task for each example, for rules that decay at every token.

    >>> by_example(MultitaskSetting.isotropic(n=[2, 1], r=[0.2, 0.8], d=4)).r.tolist()
    [0.2, 0.2, 0.8]
    """
    task = np.repeat(np.arange(setting.K), setting.n)
    R = setting.R[np.ix_(task, task)]
    return MultitaskSetting(np.ones(len(task)), R, setting.r[task], setting.Sigma, setting.sigma2)


def own_decay(setting: MultitaskSetting) -> float:
    """Exact risk of RetNet's one-head decay with the best preconditioner; the state decays at every token.

    >>> print(f"{own_decay(MultitaskSetting.isotropic(n=[10, 10], r=[0.2, 0.8], d=4)):.6f}")
    2.427220
    """
    layout = PromptLayout.of(setting)
    places = np.concatenate([np.arange(block.start, block.stop) for block in layout.blocks])
    (decay,) = retnet(layout.width).decays
    return landscape.profile_risk(decay ** (layout.length - 1.0 - places), by_example(setting))


def constant_rule(setting: MultitaskSetting, *, erase: bool) -> ConstantRule:
    """The best decay after every example, with the delta rule's best step beside it (`erase`) or with plain writes.

    It is searched: from the best point of a grid, 40 decays or 8 x 8 decays and steps, by Nelder and Mead's simplex.

    >>> drift = MultitaskSetting.drifting(40, 0.95, d=10)
    >>> gate, both = constant_rule(drift, erase=False), constant_rule(drift, erase=True)
    >>> print(f"{gate.risk / 10:.4f} {gate.decay:.3f}; {both.risk / 10:.4f} {both.decay:.3f} {both.step:.4f}")
    0.6572 0.897; 0.5648 0.950 0.0833
    """
    each, bound = by_example(setting), 2.0 / ((setting.d + 2.0) * float(setting.Sigma[0, 0]))
    last = each.K - 1.0 - np.arange(each.K)

    def risk(rule: Array) -> float:
        decay, *step = rule.tolist()
        if not (0.0 <= decay <= 1.0 and all(0.0 <= one <= bound for one in step)):
            return setting.M
        if step:
            return landscape.delta_risk(each, step[0], decays=np.full(each.K, decay))
        return landscape.profile_risk(decay**last, each)

    ranges, points = (((0.0, 1.0), (0.0, bound)), 8) if erase else (((0.0, 1.0),), 40)
    best, least, *_ = brute(risk, ranges, Ns=points, full_output=True)
    return ConstantRule(float(least), *np.atleast_1d(best).tolist())


RUNGS: dict[str, Callable[[MultitaskSetting], float]] = {
    "linear_attention": lambda setting: landscape.linear_attention(setting).risk,
    "own_decay": own_decay,
    "scalar_gate": lambda setting: landscape.scalar_gate(setting).risk,
    "value_gate": lambda setting: landscape.optimum(setting).risk,
    "half_gate": lambda setting: landscape.half_gate(setting).risk,
    "delta_rule": lambda setting: landscape.delta_rule(setting).risk,
    "gated_delta_rule": lambda setting: landscape.gated_delta_rule(setting).risk,
    "shared_step": lambda setting: landscape.delta.shared_step(setting).risk,
    "gated_shared_step": lambda setting: landscape.delta.shared_step(setting, gated=True).risk,
    "gated_delta_rule_unit": lambda setting: landscape.gated_delta_rule(setting, keys="unit").risk,
    "delta_rule_per_task": lambda setting: landscape.gated_delta_rule(setting, per_task=True).risk,
    "delta_rule_per_task_unit": lambda setting: landscape.gated_delta_rule(setting, per_task=True, keys="unit").risk,
    "fixed_rotation": lambda setting: landscape.fixed_rotation(setting).risk,
    "rotating_gate": lambda setting: landscape.rotating_gate(setting).risk,
    "rotating_delta_rule": lambda setting: landscape.delta.rotating_delta_rule(setting).risk,
    "filter_floor": lambda setting: landscape.filter_floor(setting).risk,
    "any_key_floor": lambda setting: landscape.any_key_floor(setting).risk,
    "constant_gate": lambda setting: constant_rule(setting, erase=False).risk,
    "constant_step": lambda setting: landscape.delta_rule(by_example(setting)).risk,
    "constant_gate_and_step": lambda setting: constant_rule(setting, erase=True).risk,
}
"""The exact risk of each rung that a model is held against, as a function of the setting."""
