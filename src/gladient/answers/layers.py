"""Several layers on one setting: the best stack of each kind of gate, what no depth goes below, and the delta rule."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gladient.answers.rungs import gain_over
from gladient.landscape import AnyRung, delta_rule, gated_delta_rule, linear_attention, reduce
from gladient.landscape.delta.isotropic import is_isotropic
from gladient.landscape.depth import best_stack, depth_bound, depth_floor, marked_layers
from gladient.prompts import MultitaskSetting

__all__ = ["STACK_MEANINGS", "StackAnswer", "has_stacks", "stacks"]

STACK_MEANINGS = {
    "linear_attention": "no gates",
    "scalar_gate": "a gate for each delimiter and layer",
    "value_gate": "any weight of any task, in every layer; two layers of it reach the bound",
    "marks": "no gates, the first layer marks labels at the delimiters, which have features of their own",
    "bound": "any weights and any skips between layers: no such stack goes below, and one reaches it",
    "floor": "no depth goes below while layers write labels alone",
    "delta_rule": "one layer with one step of error correction (DeltaNet)",
    "gated_delta_rule": "one such layer with a decay after each task",
}
"""What each row of the table is, in words."""

_LARGEST = 6  # layers times tasks up to which three layers of value gates are searched in seconds


@dataclass(frozen=True, eq=False)
class StackAnswer:
    """A row: layers of one kind.

    Attributes:
        layers: how many; None for what holds at any depth.
        name: the kind.
        gain: 1 - risk / the risk of one layer of linear attention.
        found: what the theory found.
    """

    layers: int | None
    name: str
    gain: float
    found: AnyRung = field(repr=False)

    @property
    def risk(self) -> float:
        """Its risk."""
        return self.found.risk

    @property
    def text(self) -> str:
        """What reaches it, in a line."""
        return self.found.text


def has_stacks(setting: MultitaskSetting) -> bool:
    """Whether several layers have an exact risk here: Σ is a multiple of I."""
    return is_isotropic(reduce(setting))


def stacks(setting: MultitaskSetting, layers: Sequence[int]) -> list[StackAnswer]:
    """The best stacks of each number of layers, then the floor and one layer of the delta rule.

    Value gates with more than two layers are left out where tasks times layers are more than 6: they take long.

    Args:
        setting: the data, Σ ∝ I.
        layers: numbers of layers.

    Raises:
        ValueError: if a number of layers is below 1, Σ is not a multiple of I, or a stack would not fit in memory.

    >>> for row in stacks(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10), [1, 2]):
    ...     print(f"{row.layers or '':1} {row.name:16} {row.risk:.4f} {row.gain:7.2%}")
    1 linear_attention 7.6190   0.00%
    1 scalar_gate      7.6190   0.00%
    1 value_gate       6.7619  11.25%
    1 bound            6.7619  11.25%
    2 linear_attention 7.6153   0.05%
    2 scalar_gate      6.4244  15.68%
    2 value_gate       6.0115  21.10%
    2 marks            6.5407  14.15%
    2 bound            6.0115  21.10%
      floor            5.5710  26.88%
      delta_rule       7.6190   0.00%
      gated_delta_rule 7.6190   0.00%
    """
    found: list[tuple[int | None, str, AnyRung]] = []
    for L in layers:
        found += [(L, "linear_attention", best_stack(setting, L)), (L, "scalar_gate", best_stack(setting, L, "scalar"))]
        if L <= 2 or L * setting.K <= _LARGEST:
            found.append((L, "value_gate", best_stack(setting, L, "value")))
        if L == 2:
            found.append((L, "marks", marked_layers(setting)))
        found.append((L, "bound", depth_bound(setting, L)))
    found.append((None, "floor", depth_floor(setting)))
    found += [(None, "delta_rule", delta_rule(setting)), (None, "gated_delta_rule", gated_delta_rule(setting))]
    base = linear_attention(setting).risk
    return [StackAnswer(L, name, gain_over(base, one.risk), one) for L, name, one in found]
