"""The rungs of one setting: what each gate family reaches, its gain, and the weights that reach it."""

from dataclasses import dataclass, field

from gladient._types import Array
from gladient.landscape import AnyRung, Ladder, half_gate, ladder
from gladient.pictures import family
from gladient.prompts import MultitaskSetting

__all__ = ["MEANINGS", "Answer", "delta_rules", "floors", "gates", "rotations", "rung"]

MEANINGS = {
    "linear_attention": "no gate: every example weighs 1",
    "fixed_decay": "the best single gate γ, the same on every token (RetNet)",
    "scalar_gate": "one gate per token (Mamba-2): weights that do not fall from task to task",
    "value_gate": "one gate per value channel, enough of them: any weight per task, the WPGD optimum",
    "key_gate": "one gate per key channel (GLA), repeated: any weight per task and direction of Σ",
    "fixed_rotation": "one decay γ and one angle θ, the same on every token (RetNet, RoPE)",
    "rotating_gate": "one gate and one angle per token (Mamba-3), twice the channels: any weight per task",
    "delta_rule": "no gate, one step β of error correction (DeltaNet); β = 0: the limit of small steps",
    "gated_delta_rule": "one step β, and a decay after each task (Gated DeltaNet, gates between tasks alone)",
    "filter_floor": "no layer that erases, decays or rotates (Gated DeltaNet, RWKV-7, Mamba-3) goes below",
    "any_key_floor": "nor one whose keys and steps depend on the present token in any way",
    "bayes": "the best of all estimators, by Monte Carlo",
    "half_gate": "1/2 on every token, where a sigmoid gate without bias starts; not a best risk",
}
"""What each family of gates is, in words."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A gate family on one setting.

    Attributes:
        name: as `landscape.Ladder` has it.
        gain: 1 - risk / the risk of linear attention.
        found: what the theory found.
    """

    name: str
    gain: float
    found: AnyRung = field(repr=False)

    @property
    def title(self) -> str:
        """The name in words."""
        return family(self.name).title

    @property
    def risk(self) -> float:
        """Its best risk; that of gates at 1/2 for half_gate."""
        return self.found.risk

    @property
    def weights(self) -> Array | None:
        """Weight of one example of each task, [K]; None where there is no one number per task."""
        return self.found.weights

    @property
    def text(self) -> str:
        """What reaches the risk, in a line: the weights, or what decides them."""
        return self.found.text


def gates(setting: MultitaskSetting | Ladder) -> list[Answer]:
    """The gates, from the top of the ladder down.

    >>> for one in gates(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)):
    ...     print(f"{one.name:16} {one.risk:.4f} {one.gain:7.2%}")
    half_gate        9.9143 -51.88%
    linear_attention 6.5278   0.00%
    fixed_decay      6.5278   0.00%
    scalar_gate      6.5278   0.00%
    value_gate       5.2778  19.15%
    key_gate         5.2778  19.15%
    """
    found = setting if isinstance(setting, Ladder) else ladder(setting)
    return [
        _answer("half_gate", half_gate(found.reduced), found),
        *(_answer(name, each, found) for name, each in found.rungs.items()),
    ]


def rotations(found: Ladder) -> list[Answer]:
    """The gates that turn the state, which stand beside the ladder."""
    return [rung(found, name) for name in ("fixed_rotation", "rotating_gate")]


def delta_rules(found: Ladder) -> list[Answer]:
    """The delta rules, which stand beside the ladder; with many features of many variances they take seconds."""
    return [rung(found, name) for name in ("delta_rule", "gated_delta_rule")]


def floors(found: Ladder) -> list[Answer]:
    """What no layer of one pass goes below; with many features of many variances they take seconds."""
    return [rung(found, name) for name in ("filter_floor", "any_key_floor")]


def rung(found: Ladder, name: str) -> Answer:
    """One rung of a ladder or beside it, or a floor, computed now.

    Raises:
        ArithmeticError, RuntimeError, LinAlgError: if it cannot be computed.
    """
    return _answer(name, getattr(found, name), found)


def _answer(name: str, found: AnyRung, among: Ladder) -> Answer:
    return Answer(name, gain_over(among.linear_attention.risk, found.risk), found)


def gain_over(base: float, risk: float) -> float:
    """The share of a base risk that another one takes away; 0 where there is none to take."""
    # 12 digits, so that a gain of 0 is 0 and no rounding of two risks; adding 0 makes -0 a 0
    return round(1.0 - risk / base, 12) + 0.0 if base > 0.0 else 0.0
