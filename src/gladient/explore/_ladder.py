"""The ladder of one setting as rows: what each gate family reaches, and the weights that reach it."""

from dataclasses import dataclass, field
from typing import Any

from gladient._types import Array
from gladient.landscape import Ladder, half_gate, ladder
from gladient.prompts import MultitaskSetting

__all__ = ["COLOURS", "Row", "delta_rows", "gate_rows"]

# Okabe and Ito's colours, as in the figures
COLOURS = {
    "half_gate": "#777777",
    "linear_attention": "#D55E00",
    "fixed_decay": "#E69F00",
    "scalar_gate": "#0072B2",
    "value_gate": "#009E73",
    "key_gate": "#CC79A7",
    "delta_rule": "#56B4E9",
    "gated_delta_rule": "#56B4E9",
}


@dataclass(frozen=True)
class Row:
    """A gate family on one setting.

    Attributes:
        name: as `gladient risk` prints it.
        risk: its best risk; that of gates at 1/2 for half_gate.
        gain: 1 - risk / the risk of linear attention.
        weights: weight of one example of each task, [K]; None where there is no one number per task.
        note: what decides the weights beside that.
    """

    name: str
    risk: float
    gain: float
    weights: Array | None = field(repr=False)
    note: str = ""

    @property
    def title(self) -> str:
        """The name in words."""
        return "gates at 1/2" if self.name == "half_gate" else self.name.replace("_", " ")


def gate_rows(setting: MultitaskSetting, found: Ladder | None = None) -> list[Row]:
    """The gates, from the top of the ladder down.

    >>> for row in gate_rows(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)):
    ...     print(f"{row.name:16} {row.risk:.4f} {row.gain:7.2%} {row.note}".rstrip())
    half_gate        9.9143 -51.88% γ = 0.5; mean weights
    linear_attention 6.5278   0.00%
    fixed_decay      6.5278   0.00% γ = 1; mean weights
    scalar_gate      6.5278   0.00%
    value_gate       5.2778  19.15%
    key_gate         5.2778  19.15% one weight for each direction of Σ
    """
    found = ladder(setting) if found is None else found
    rungs: dict[str, Any] = {"half_gate": half_gate(setting)} | {name: getattr(found, name) for name in found.risks}
    base = found.linear_attention.risk
    return [_row(name, rung, base) for name, rung in rungs.items()]


def delta_rows(found: Ladder) -> list[Row]:
    """The delta rules, which stand beside the ladder; with many features of many variances they take seconds."""
    base = found.linear_attention.risk
    return [_row(name, getattr(found, name), base) for name in ("delta_rule", "gated_delta_rule")]


def _row(name: str, rung: Any, base: float) -> Row:
    gain = round(1.0 - rung.risk / base, 12) + 0.0 if base > 0.0 else 0.0  # no -0
    if hasattr(rung, "steps"):
        decays = " ".join(f"{decay:.4g}" for decay in rung.decays)
        return Row(name, rung.risk, gain, None, f"β = {rung.steps[0]:.4g}; decays {decays}")
    if rung.omega.ndim == 2:
        return Row(name, rung.risk, gain, None, "one weight for each direction of Σ")
    return Row(
        name, rung.risk, gain, rung.omega, f"γ = {rung.gamma:.4g}; mean weights" if hasattr(rung, "gamma") else ""
    )
