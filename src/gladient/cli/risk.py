"""`gladient risk`: the exact best risk of each gate family on one setting."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gladient._text import json_text
from gladient.answers import require_memory
from gladient.cli.numbers import Whole, Wholes
from gladient.cli.setting import SettingOptions

if TYPE_CHECKING:
    from gladient.answers import Answer, StackAnswer
    from gladient.prompts import MultitaskSetting

__all__ = ["Risk"]

_DEEPEST = 6  # layers whose best stacks for two tasks take about a minute
_SLOW = ("delta_rule", "gated_delta_rule", "filter_floor", "any_key_floor")
_MOST = 1000  # tasks times features, at which both delta rules take a second; at 2000 they take four


@dataclass(frozen=True, kw_only=True)
class Risk(SettingOptions):
    """Exact best risk of each gate family, in milliseconds at any context length.

    Example: gladient risk --n 25 25 --r 0.2 0.8 --d 10

    Each row of the table is explained below it. With --layers 1 2 3, for Σ = I: the best stacks of so many layers with
    each kind of gate, beside the bound of all of them, the floor of any depth, and one layer of the delta rule.
    """

    layers: Wholes = ()
    """Numbers of layers; left out: one, with every family of gates."""
    bayes: Whole = 0
    """Prompts for a Monte Carlo estimate of the Bayes risk; 0: none."""
    seed: Whole = 0
    """Seed of that estimate."""
    json: bool = False
    """Print one JSON object instead of a table."""

    def run(self) -> int:
        """Print the risks; 1 if one could not be computed."""
        from numpy.linalg import LinAlgError

        from gladient.answers import gates, rung
        from gladient.landscape import ladder

        if self.layers:
            return self._stacks()
        if self.bayes < 0:
            raise ValueError(f"--bayes is {self.bayes}; give the number of prompts to sample, or 0 for none")
        if self.seed < 0:
            raise ValueError(f"--seed is {self.seed}; it must be a whole number ≥ 0")
        setting = self.load()
        if self.bayes:
            # Four matrices over the examples shown, of which no more than d of a task count: kernel and solution.
            shown = float(setting.n.clip(max=setting.d).sum())
            require_memory(4.0 * shown * shown + 4.0 * self.bayes, f"a sample of {self.bayes:g} prompts")
        found = ladder(setting, bayes_prompts=self.bayes, seed=self.seed)
        half, *rows = gates(found)
        code = 0
        large = setting.K * setting.d > _MOST
        if large:
            print(f"{', '.join(_SLOW)} left out: they take long here; landscape has them", file=sys.stderr)
        for name in ("fixed_rotation", "rotating_gate", *(() if large else _SLOW)):
            try:
                rows.append(rung(found, name))
            except (ArithmeticError, RuntimeError, LinAlgError) as error:  # the others stand without it
                print(f"gladient: {name} left out, it could not be computed here: {error}", file=sys.stderr)
                code = 1
        rows.append(half)
        if self.json:
            print(json_text({row.name: row.found.numbers() for row in rows}))
        else:
            print(_table(rows, setting.M))
        return code

    def _stacks(self) -> int:
        from gladient.answers import stacks

        if self.bayes:
            raise ValueError("--bayes and --layers are given; the Bayes risk stands in the table without --layers")
        if max(self.layers) > _DEEPEST:
            raise ValueError(
                f"--layers lists {max(self.layers)}; the table takes {_DEEPEST} at most, deeper ones take minutes: use "
                "landscape.depth"
            )
        setting = self.load()
        if setting.K * setting.d > _MOST:
            raise ValueError(
                f"{setting.K} tasks in {setting.d} features take long with --layers; landscape.depth has them"
            )
        rows = stacks(setting, self.layers)
        print(json_text(_stack_numbers(rows)) if self.json else _stack_table(rows, setting))
        return 0


def _stack_numbers(rows: "list[StackAnswer]") -> "dict[str, Any]":
    """One entry for each number of layers, by kind, and those of any depth beside them."""
    found: dict[str, Any] = {}
    for row in rows:
        inside = found if row.layers is None else found.setdefault(str(row.layers), {})
        inside[row.name] = row.found.numbers()
    return found


def _stack_table(rows: "list[StackAnswer]", setting: "MultitaskSetting") -> str:
    from gladient.answers import STACK_MEANINGS

    lines = [f"{'layers':8}{'gate':18}{'risk':>12}{'risk/M':>10}{'gain':>9}  what reaches it"]
    lines += [
        f"{row.layers or '':<8}{row.name:18}{row.risk:12.6g}{row.risk / setting.M:10.4f}{row.gain:9.2%}  {row.text}"
        for row in rows
    ]
    lines.append(f"{_units(setting.M)}; gain: over one layer of linear attention")
    shown = {row.name for row in rows}
    return "\n".join([*lines, *(f"{name:18}{text}" for name, text in STACK_MEANINGS.items() if name in shown)])


def _units(M: float) -> str:
    return f"risk: expected squared error at the query; M, that of predicting 0: {M:.6g}"


def _table(rows: "list[Answer]", M: float) -> str:
    from gladient.answers import MEANINGS

    lines = [f"{'gate':18}{'risk':>12}{'risk/M':>10}{'gain':>9}  weight of one example of each task"]
    lines += [f"{row.name:18}{row.risk:12.6g}{row.risk / M:10.4f}{row.gain:9.2%}  {row.text}" for row in rows]
    lines.append(f"{_units(M)}; gain: over linear attention")
    return "\n".join([*lines, *(f"{row.name:18}{MEANINGS[row.name]}" for row in rows)])
