"""`gladient risk`: the exact best risk of each gate family on one setting."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gladient.cli._setting import SettingOptions

if TYPE_CHECKING:
    from gladient.prompts import MultitaskSetting

__all__ = ["Risk"]


@dataclass(frozen=True, kw_only=True)
class Risk(SettingOptions):
    """Exact best risk of each gate family, in milliseconds at any context length.

    Example: gladient risk --n 25 25 --r 0.2 0.8 --d 10
    """

    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> None:
        """Print the risks."""
        setting = self.setting()
        rungs = _rungs(setting)
        if self.json:
            print(json.dumps(rungs))
        else:
            print(_table(setting, rungs))


def _rungs(setting: "MultitaskSetting") -> dict[str, Any]:
    from gladient import landscape

    families: dict[str, Callable[[MultitaskSetting], Any]] = {
        "linear_attention": landscape.linear_attention,
        "half_gate": landscape.half_gate,
        "scalar_gate": landscape.scalar_gate,
        "value_gate": landscape.optimum,
    }
    results = {name: family(setting) for name, family in families.items()}
    return {name: {"risk": result.risk, "omega": result.omega.tolist()} for name, result in results.items()}


def _table(setting: "MultitaskSetting", rungs: dict[str, Any]) -> str:
    base = rungs["linear_attention"]["risk"]
    lines = [f"{'gate':18}{'risk':>12}{'risk/d':>10}{'gain':>9}  weight of one example of each task"]
    for name, rung in rungs.items():
        gain = 1.0 - rung["risk"] / base if base > 0 else 0.0
        shown = " ".join(f"{weight:.4g}" for weight in rung["omega"][:8]) + (" …" if setting.K > 8 else "")
        lines.append(f"{name:18}{rung['risk']:12.6g}{rung['risk'] / setting.d:10.4f}{gain:9.2%}  {shown}")
    lines.append(f"risk of predicting 0: {setting.M:.6g}; gain: over linear attention")
    return "\n".join(lines)
