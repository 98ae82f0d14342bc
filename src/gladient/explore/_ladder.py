"""The ladder of one setting as rows: what each gate family reaches, and the weights that reach it."""

from dataclasses import dataclass, field

from gladient._types import Array
from gladient.landscape import AnyRung, Ladder, half_gate, ladder
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
        text: what reaches the risk, in a line: the weights, or what decides them.
    """

    name: str
    risk: float
    gain: float
    weights: Array | None = field(repr=False)
    text: str = ""

    @property
    def title(self) -> str:
        """The name in words."""
        return "gates at 1/2" if self.name == "half_gate" else self.name.replace("_", " ")


def gate_rows(setting: MultitaskSetting, found: Ladder | None = None) -> list[Row]:
    """The gates, from the top of the ladder down.

    >>> for row in gate_rows(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)):
    ...     print(f"{row.name:16} {row.risk:.4f} {row.gain:7.2%} {row.text}")
    half_gate        9.9143 -51.88% 1.192e-09 0.08  (γ = 0.5; means)
    linear_attention 6.5278   0.00% 1 1
    fixed_decay      6.5278   0.00% 1 1  (γ = 1; means)
    scalar_gate      6.5278   0.00% 1 1
    value_gate       5.2778  19.15% 1 0.25
    key_gate         5.2778  19.15% one for each direction
    """
    found = ladder(setting) if found is None else found
    base = found.linear_attention.risk
    return [_row("half_gate", half_gate(setting), base), *(_row(*each, base) for each in found.rungs.items())]


def delta_rows(found: Ladder) -> list[Row]:
    """The delta rules, which stand beside the ladder; with many features of many variances they take seconds."""
    base = found.linear_attention.risk
    return [
        _row("delta_rule", found.delta_rule, base),
        _row("gated_delta_rule", found.gated_delta_rule, base),
    ]


def _row(name: str, rung: AnyRung, base: float) -> Row:
    gain = round(1.0 - rung.risk / base, 12) + 0.0 if base > 0.0 else 0.0  # no -0
    return Row(name, rung.risk, gain, rung.weights, rung.text)
