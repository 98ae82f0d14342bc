"""`gladient certify`: every stationary point of one setting, and whether the optimum is the only one."""

from dataclasses import dataclass

from gladient._text import json_text
from gladient.cli.setting import SettingOptions

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
        from gladient.answers import verdict

        found = verdict(self.load())
        if self.json:
            print(json_text(found.to_json()))
            return
        print(f"{'γ':14}{'risk':14}{'slope':12}kind")
        for point in found.stationary.points:
            print(f"{point.gamma:<14.6g}{point.risk:<14.8g}{point.slope:<12.4g}{point.kind}")
        print(*found.lines, "risk: expected squared error at the query", sep="\n")
