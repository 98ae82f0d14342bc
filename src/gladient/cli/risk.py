"""`gladient risk`: the exact best risk of each gate family on one setting."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gladient._text import json_text
from gladient.cli._numbers import Whole
from gladient.cli._setting import SettingOptions, require_memory

if TYPE_CHECKING:
    from gladient.landscape import AnyRung

__all__ = ["Risk"]

_ROWS = {
    "linear_attention": "no gate: every example weighs 1",
    "fixed_decay": "the best single gate γ, the same on every token (RetNet)",
    "scalar_gate": "one gate per token (Mamba-2): weights that do not fall from task to task",
    "value_gate": "one gate per value channel, enough of them: any weight per task, the WPGD optimum",
    "key_gate": "one gate per key channel (GLA), repeated: any weight per task and direction of Σ",
    "delta_rule": "no gate, one step β of error correction (DeltaNet); β = 0: the limit of small steps",
    "gated_delta_rule": "one step β, and a decay after each task (Gated DeltaNet, gates between tasks alone)",
    "bayes": "the best of all estimators, by Monte Carlo",
    "half_gate": "1/2 on every token, where a sigmoid gate without bias starts; not a best risk",
}
_MOST = 1000  # tasks times features, above which the delta rules take seconds


@dataclass(frozen=True, kw_only=True)
class Risk(SettingOptions):
    """Exact best risk of each gate family, in milliseconds at any context length.

    Example: gladient risk --n 25 25 --r 0.2 0.8 --d 10

    * linear_attention  no gate: every example weighs 1
    * fixed_decay       the best single gate γ, the same on every token (RetNet)
    * scalar_gate       one gate per token (Mamba-2): weights that do not fall from task to task
    * value_gate        one gate per value channel, enough of them: any weight per task, the WPGD optimum
    * key_gate          one gate per key channel (GLA), repeated: any weight per task and direction of Σ
    * delta_rule        no gate, one step β of error correction (DeltaNet); β = 0: the limit of small steps
    * gated_delta_rule  one step β, and a decay after each task (Gated DeltaNet, gates between tasks alone)
    * bayes             the best of all estimators, by Monte Carlo
    * half_gate         1/2 on every token, where a sigmoid gate without bias starts; not a best risk
    """

    bayes: Whole = 0
    """Prompts for a Monte Carlo estimate of the Bayes risk, which no estimator beats; 0 leaves it out."""
    seed: Whole = 0
    """Seed of that estimate."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Print the risks; 1 if one could not be computed."""
        from numpy.linalg import LinAlgError

        from gladient.landscape import half_gate, ladder

        if self.bayes < 0:
            raise ValueError(f"--bayes is {self.bayes}; give the number of prompts to sample, or 0 for none")
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}; it must be a whole number ≥ 0")
        setting = self.load()
        if self.bayes:
            rows = float(setting.n.clip(max=setting.d).sum())
            require_memory(4.0 * rows * rows + 4.0 * self.bayes, f"a sample of {self.bayes:g} prompts")
        found = ladder(setting, bayes_prompts=self.bayes, seed=self.seed)
        rungs, code = found.rungs, 0
        if setting.K * setting.d > _MOST:
            print("delta_rule, gated_delta_rule left out: they take long here; landscape has both", file=sys.stderr)
        for name in ("delta_rule", "gated_delta_rule") if setting.K * setting.d <= _MOST else ():
            try:
                rungs[name] = getattr(found, name)
            except (ArithmeticError, RuntimeError, LinAlgError) as error:  # the others stand without it
                print(f"gladient: {name} left out, it could not be computed here: {error}", file=sys.stderr)
                code = 1
        rungs["half_gate"] = half_gate(setting)
        if self.json:
            print(json_text({name: rung.numbers() for name, rung in rungs.items()}))
        else:
            print(_table(rungs, setting.M, setting.d))
        return code


def _table(rungs: "dict[str, AnyRung]", M: float, d: int) -> str:
    base = rungs["linear_attention"].risk
    lines = [f"{'gate':18}{'risk':>12}{'risk/d':>10}{'gain':>9}  weight of one example of each task"]
    for name, rung in rungs.items():
        gain = round(1.0 - rung.risk / base, 12) + 0.0 if base > 0 else 0.0  # no -0
        lines.append(f"{name:18}{rung.risk:12.6g}{rung.risk / d:10.4f}{gain:9.2%}  {rung.text}")
    lines.append(f"risk of predicting 0: {M:.6g}; gain: over linear attention")
    lines += [f"{name:18}{_ROWS[name]}" for name in rungs]
    return "\n".join(lines)
