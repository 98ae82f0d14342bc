"""`gladient certify`: every stationary point of one setting, and whether the optimum is the only one."""

from dataclasses import asdict, dataclass

from gladient._text import json_text
from gladient.cli._setting import SettingOptions

__all__ = ["Certify"]


@dataclass(frozen=True, kw_only=True)
class Certify(SettingOptions):
    """All stationary points of the risk, and the proof that the optimum is the only one or is not.

    Example: gladient certify --n 25 25 --r 0.2 0.8 --d 10
    """

    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> None:
        """Print the stationary points, the verdict, and what gating buys."""
        from gladient.landscape import advantage, stationary_points, uniqueness

        setting = self.load()
        found, verdict, gain = stationary_points(setting), uniqueness(setting), advantage(setting)
        if self.json:
            points = [
                {"gamma": p.gamma, "risk": p.risk, "kind": p.kind, "slope": p.slope, "omega": p.omega.tolist()}
                for p in found.points
            ]
            print(
                json_text(
                    {
                        "stationary_points": points,
                        "undecided": found.undecided,
                        "uniqueness": asdict(verdict),
                        "advantage": {**asdict(gain), "tasks": gain.tasks.tolist()},
                    }
                )
            )
            return
        print(f"{'γ':14}{'risk':14}{'slope':12}kind")
        for point in found.points:
            print(f"{point.gamma:<14.6g}{point.risk:<14.8g}{point.slope:<12.4g}{point.kind}")
        print(f"optimum: {verdict.verdict} (by: {verdict.reason}; paper's margin {verdict.paper_margin:.4g}, ", end="")
        print(f"slope at most {verdict.slope_bound:.4g})")
        print(f"gating: {'gains' if gain.strict else 'gains nothing:'} {gain.gain:.6g} over linear attention; ", end="")
        order = ", ".join(f"ω{k + 1} ≥ {f'ω{k}' if k else '0'}" for k in gain.binding)
        print("a scalar gate attains it" if gain.scalar_attains else f"a scalar gate does not: {order} binds")
