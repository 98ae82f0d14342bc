"""What is proved of one setting: its stationary points, whether the optimum is the only one, and what gates gain."""

from dataclasses import asdict, dataclass
from typing import Any

from gladient.answers.rungs import gain_over
from gladient.landscape import (
    Advantage,
    Reduced,
    StationaryPoints,
    advantage,
    linear_attention,
    stationary_points,
    uniqueness,
)
from gladient.landscape.gates import Uniqueness
from gladient.prompts import MultitaskSetting

__all__ = ["Verdict", "verdict"]

_REASONS = {
    "paper": "the paper's condition holds, by a margin of {margin:.4g}",
    "slope": "the slope of the fixed-point map is at most {slope:.4g}, below 1",
    "roots": "every fixed point was isolated",
    "trivial": "r = 0, so no weights help",
}


@dataclass(frozen=True, eq=False)
class Verdict:
    """What is proved of one setting.

    Attributes:
        stationary: all points where the risk is flat.
        uniqueness: whether the optimum is the only one, and why.
        advantage: what gates gain over linear attention.
    """

    stationary: StationaryPoints
    uniqueness: Uniqueness
    advantage: Advantage

    @property
    def binding(self) -> str:
        """What keeps a scalar gate from the optimum: the weights that may not fall."""
        return ", ".join(f"ω{k + 1} ≥ {f'ω{k}' if k else '0'}" for k in self.advantage.binding)

    @property
    def lines(self) -> list[str]:
        """The optimum and the gain, a line each, with every number that decides."""
        unique, gain = self.uniqueness, self.advantage
        known = unique.paper_margin is not None  # of Gaussian features alone
        paper = f"paper's margin {unique.paper_margin:.4g}, " if known else ""
        margins = f"{paper}slope at most {unique.slope_bound:.4g}"
        gains = f"lowers linear attention's risk by {self._lower('.6g')}" if gain.strict else "gains nothing"
        scalar = "a scalar gate attains it" if gain.scalar_attains else f"a scalar gate does not: {self.binding} binds"
        return [f"optimum: {unique.verdict} (by: {unique.reason}; {margins})", f"gating: {gains}; {scalar}"]

    @property
    def sentences(self) -> str:
        """The same for readers of a page."""
        gain = self.advantage
        if not gain.strict:
            return f"{self._unique} Gates gain nothing over linear attention."
        does_not = f"a scalar gate does not reach it: {self.binding} binds"
        scalar = "a scalar gate reaches it" if gain.scalar_attains else does_not
        lower = f"The best gates lower linear attention's risk by {self._lower('.4g')}"
        return f"{self._unique} {lower}; {scalar}."

    def _lower(self, form: str) -> str:
        """The difference to linear attention's risk, and the gain: its share of that."""
        base = linear_attention(self.advantage.reduced).risk
        return f"{self.advantage.gain:{form}} (gain {gain_over(base, base - self.advantage.gain):.2%})"

    @property
    def _unique(self) -> str:
        unique = self.uniqueness
        if unique.verdict == "several":
            return f"There are {unique.count} stationary points; the optimum is the lowest."
        if unique.verdict == "undecided":
            return "It could not be decided whether the optimum is the only stationary point."
        reason = _REASONS[unique.reason].format(margin=unique.paper_margin, slope=unique.slope_bound)
        return f"The optimum is the only stationary point: {reason}."

    def to_json(self) -> dict[str, Any]:
        """Its numbers."""
        points = [
            {"gamma": p.gamma, "risk": p.risk, "kind": p.kind, "slope": p.slope, "omega": p.omega.tolist()}
            for p in self.stationary.points
        ]
        return {
            "stationary_points": points,
            "undecided": self.stationary.undecided,
            "uniqueness": asdict(self.uniqueness),
            "advantage": self.advantage.numbers(),
        }


def verdict(setting: MultitaskSetting | Reduced) -> Verdict:
    """What is proved.

    >>> print(verdict(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10)).sentences.split(". ")[-1])
    The best gates lower linear attention's risk by 1.25 (gain 19.15%); a scalar gate does not reach it: ω2 ≥ ω1 binds.
    """
    return Verdict(stationary_points(setting), uniqueness(setting), advantage(setting))
