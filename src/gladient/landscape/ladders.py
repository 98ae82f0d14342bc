"""The ladder: the best risk of every gate family on one setting, from no gate to Bayes."""

from dataclasses import dataclass, field
from functools import cached_property

from gladient.landscape.delta.floors import Floor, any_key_floor, filter_floor
from gladient.landscape.delta.rungs import DeltaRung, delta_rule, gated_delta_rule
from gladient.landscape.gates.decay import fixed_decay
from gladient.landscape.gates.fixed_rotation import FixedRotation, fixed_rotation
from gladient.landscape.gates.key import key_gate
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import AnyRung, KeyGate, Rung
from gladient.landscape.gates.rotating_gate import RotatingGate, rotating_gate
from gladient.landscape.gates.rungs import linear_attention, optimum, scalar_gate
from gladient.landscape.posterior import Estimate, bayes
from gladient.prompts import MultitaskSetting

__all__ = ["Ladder", "ladder"]


@dataclass(frozen=True, eq=False)
class Ladder:
    """Best risk of every gate family; each is at most the one before.

    Rotations, delta rules and the floors stand beside them, and are computed when they are asked for.

    Attributes:
        linear_attention: every example weighs 1.
        fixed_decay: one γ on every token.
        scalar_gate: weights that do not fall from task to task.
        value_gate: any weight per task; the WPGD optimum.
        key_gate: any weight per task and direction.
        bayes: the posterior mean, if it was asked for.
        reduced: the setting.
    """

    linear_attention: Rung
    fixed_decay: Rung
    scalar_gate: Rung
    value_gate: Rung
    key_gate: KeyGate
    bayes: Estimate | None
    reduced: Reduced = field(repr=False)

    @cached_property
    def fixed_rotation(self) -> FixedRotation:
        """One γ and one angle on every token; at most the fixed decay."""
        return fixed_rotation(self.reduced)

    @cached_property
    def rotating_gate(self) -> RotatingGate:
        """A gate and an angle per token; as low as the value gate."""
        return rotating_gate(self.reduced)

    @cached_property
    def delta_rule(self) -> DeltaRung:
        """One step, no gate; at most linear attention."""
        return delta_rule(self.reduced)

    @cached_property
    def gated_delta_rule(self) -> DeltaRung:
        """One step and delimiter decays; at most the scalar gate and the delta rule."""
        return gated_delta_rule(self.reduced)

    @cached_property
    def filter_floor(self) -> Floor:
        """No layer that erases, decays or rotates with linear keys goes below."""
        return filter_floor(self.reduced)

    @cached_property
    def any_key_floor(self) -> Floor:
        """Nor one whose keys depend on the present x in any way."""
        return any_key_floor(self.reduced)

    @property
    def rungs(self) -> dict[str, AnyRung]:
        """The rung of each gate family by name, from the top down."""
        rungs: dict[str, AnyRung] = {
            "linear_attention": self.linear_attention,
            "fixed_decay": self.fixed_decay,
            "scalar_gate": self.scalar_gate,
            "value_gate": self.value_gate,
            "key_gate": self.key_gate,
        }
        return rungs if self.bayes is None else {**rungs, "bayes": self.bayes}

    @property
    def risks(self) -> dict[str, float]:
        """Risk of each gate family by name, from the top down."""
        return {name: rung.risk for name, rung in self.rungs.items()}

    @property
    def gaps(self) -> dict[str, float]:
        """For each rung but the last, how much lower the next one is."""
        risks = self.risks
        return {
            name: risk - below for (name, risk), below in zip(risks.items(), list(risks.values())[1:], strict=False)
        }


def ladder(setting: MultitaskSetting | Reduced, *, bayes_prompts: int = 0, seed: int = 0) -> Ladder:
    """Best risk of every gate family, with its weights and its certificate.

    Args:
        setting: the data, as they are or from `reduce`.
        bayes_prompts: samples for the Bayes rung; 0 leaves it out.
        seed: seed of those samples.

    Raises:
        ValueError: if `bayes_prompts` came with a setting that is reduced, which has no prompts to sample.

    Source: arXiv 2504.04308, sections 4 and 5, for linear attention, scalar and value gates; the rest derived.

    >>> found = ladder(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10), bayes_prompts=100)
    >>> for name, risk in found.risks.items():
    ...     print(f"{name:16} {risk:.6f}")
    linear_attention 6.527778
    fixed_decay      6.527778
    scalar_gate      6.527778
    value_gate       5.277778
    key_gate         5.277778
    bayes            3.200000
    >>> print(f"{found.delta_rule.risk:.6f} {found.gated_delta_rule.risk:.6f}")
    6.527778 6.527778
    >>> print(f"{found.fixed_rotation.risk:.6f} {found.rotating_gate.risk:.6f} {found.filter_floor.risk:.6f}")
    5.383275 5.277778 3.972316
    """
    reduced = reduce(setting)
    return Ladder(
        linear_attention=linear_attention(reduced),
        fixed_decay=fixed_decay(reduced),
        scalar_gate=scalar_gate(reduced),
        value_gate=optimum(reduced),
        key_gate=key_gate(reduced),
        bayes=bayes(_unreduced(setting), bayes_prompts, seed) if bayes_prompts else None,
        reduced=reduced,
    )


def _unreduced(setting: MultitaskSetting | Reduced) -> MultitaskSetting:
    if isinstance(setting, Reduced):
        raise ValueError("bayes_prompts came with a setting that is reduced; give the MultitaskSetting")
    return setting
