"""A task that drifts: trained gates and delta rules against the best constants, and the decay that they learn.

    gladient reproduce --figure drift

The task moves with every example, θ_t = γ θ_{t-1} + √(1 - γ²) ξ_t; the query comes one step after the last of T
examples. d = 10, no noise, Σ = I; test risk / d over γ, a panel for each T. Tokens have no delimiters and tell examples
from the query alone, so a layer has one decay and one step for all examples: linear attention with a scalar gate, the
delta rule, and the gated delta rule. Each is compared with the best constants of its kind.

A gate forgets, but what it keeps is still a sum: its best decay lies below γ. The gated delta rule with the decay γ and
the steps of `delta_schedule` is the best of all rules with one number per token for keep, erase and write;
without noise its steps are constant, and training finds them.

Source: derived; no paper shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from matplotlib.figure import Figure as Picture

from gladient import landscape
from gladient.experiments._figure import Column, Config, Reproducible
from gladient.experiments._results import GAP_BOUND, Z_BOUND, Judgement, Row, largest_misses, summarise
from gladient.experiments._rungs import ConstantRule, constant_rule
from gladient.experiments._stack import Panel, Stack
from gladient.experiments._work import Record
from gladient.experiments.drift.picture import draw_drift
from gladient.experiments.drift.work import Streaming
from gladient.prompts import MultitaskSetting
from gladient.training import TrainingConfig

__all__ = ["Drift", "DriftConfig", "DriftPoint", "DriftRow"]


@dataclass(frozen=True, kw_only=True)
class DriftConfig(Config):
    """What decides the figure's numbers.

    Args:
        models: stream_gate, stream_delta_rule, stream_gated_delta_rule.
        gamma: what is left of the task after an example.
        T: examples in a prompt.
        drawn: the γ at which exact curves are drawn.
        d: number of features.
        training: steps, step sizes, schedule.
        read_prompts: fresh prompts that decays are read off.
    """

    models: tuple[str, ...] = ("stream_gate", "stream_delta_rule", "stream_gated_delta_rule")
    gamma: tuple[float, ...] = (0.8, 0.9, 0.95, 1.0)
    T: tuple[int, ...] = (10, 40)
    drawn: tuple[float, ...] = (0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.985, 1.0)
    d: int = 10
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=600, learning_rate=0.02, gate_rest=0.05)
    )
    read_prompts: int = 2000
    test_prompts: int = 2**18  # where the task is nearly learned, errors have long tails


@dataclass(frozen=True)
class DriftRow(Row):
    """A model at one γ and T; risks are divided by d, n is T, and the panel is named by γ.

    Attributes:
        decay, step: means over the seeds.
        best_decay, best_step: the exact best constants.
    """

    decay: float
    best_decay: float
    step: float
    best_step: float


@dataclass(frozen=True)
class DriftPoint:
    """A point of an exact curve; the risk is divided by d.

    Attributes:
        gamma, n: the setting; n counts the examples.
        curve: which.
        risk: exact.
        decay: the best one; 1 for curves without one, and γ for the schedule.
    """

    gamma: float
    n: int
    curve: str
    risk: float
    decay: float


class Drift(Reproducible[DriftConfig, Streaming, DriftRow, DriftPoint]):
    """Trained gates and delta rules on a drifting task, over how much of it is left after each example."""

    name = "drift"
    title = "A task that drifts: what gates and delta rules learn"
    abstract = (
        "One-layer models trained on prompts whose task moves with every example: θ_t = γ θ_{t−1} + √(1 − γ²) ξ_t. "
        "Lines are exact, points are trained models: above the risk with two standard errors, below the decay that the "
        "model gives each example. The gated delta rule learns the decay of the task and the best filter with it."
    )
    claim = "trained models reach the best constants"
    note = (
        f"A model reaches the exact risk of the best constants if its risk ± {Z_BOUND:g} standard errors lies within "
        f"{GAP_BOUND:.0%} of it. Risks are divided by d. gap = risk / exact − 1; z = (risk − exact) / standard error; "
        "step: β of keys that are the features."
    )
    columns = (
        Column("panel", "γ"),
        Column("n", "T", "d"),
        Column("model"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("seeds", form="d"),
        Column("exact", form=".4f"),
        Column("gap", form="+.2%"),
        Column("z", form="+.1f"),
        Column("decay", form=".4f"),
        Column("best_decay", "best decay", ".4f"),
        Column("step", form=".4f"),
        Column("best_step", "best step", ".4f"),
    )
    row, point = DriftRow, DriftPoint

    def config(self, *, quick: bool, seeds: int | None, device: str) -> DriftConfig:
        """Four γ and two lengths, or one of each if quick; one seed."""
        config = DriftConfig(seeds=1 if seeds is None else seeds, device=device)
        return replace(config, gamma=(0.95,), T=(40,)) if quick else config

    def work(self, config: DriftConfig) -> list[Streaming]:
        """A stack for each γ, length and kind of model."""
        return [
            Streaming(
                Stack(
                    name=f"{model}-T{T}-gamma{gamma:g}",
                    model=model,
                    panels=(replace(Panel.of(_setting(config, T, gamma)), name=f"{gamma:g}"),),
                    seeds=tuple(range(config.seeds)),
                    training=config.training,
                    test_prompts=config.test_prompts,
                    device=config.device,
                ),
                config.read_prompts,
            )
            for T in config.T
            for gamma in config.gamma
            for model in config.models
        ]

    def rows(self, config: DriftConfig, records: Mapping[Streaming, Sequence[Record]]) -> list[DriftRow]:
        """A row for each γ, length and kind of model."""
        rows = []
        for work, runs in records.items():
            stack, (panel,) = work.stack, work.stack.panels
            if runs:
                best = _best(stack.model, panel.setting)
                which = {"figure": self.name, "panel": panel.name, "model": stack.model}
                row = summarise(runs, n=stack.n, exact=best.risk / config.d, **which)
                decay, step = (float(np.mean([run[name] for run in runs])) for name in ("decay", "step"))
                rows.append(DriftRow(**asdict(row), decay=decay, best_decay=best.decay, step=step, best_step=best.step))
        return rows

    def points(self, config: DriftConfig, records: Mapping[Streaming, Sequence[Record]]) -> list[DriftPoint]:
        """Exact risks of linear attention, of the best constants of each kind, and of the schedule."""
        points = []
        for T in config.T:
            for gamma in config.drawn:
                setting = _setting(config, T, gamma)
                rules = {model: _best(model, setting) for model in config.models}
                rules["linear_attention"] = ConstantRule(landscape.linear_attention(setting).risk, 1.0)
                rules["schedule"] = ConstantRule(landscape.delta.delta_schedule(setting).risk, gamma)
                points += [DriftPoint(gamma, T, name, rule.risk / config.d, rule.decay) for name, rule in rules.items()]
        return points

    def draw(self, rows: Sequence[DriftRow], points: Sequence[DriftPoint]) -> Picture:
        """Risk over γ, and below it the decays, a column for each T."""
        return draw_drift(rows, points)

    def judge(self, row: DriftRow) -> Judgement:
        """Whether the row reaches its exact value."""
        return row.outcome

    def summary(self, judged: Sequence[DriftRow]) -> list[str]:
        """The largest misses, of risks and of decays."""
        away = max((abs(row.decay - row.best_decay) for row in judged), default=0.0)
        return [
            largest_misses(judged),
            f"largest distance of a decay from the best {away:.3f}",
        ]


def _setting(config: DriftConfig, T: int, gamma: float) -> MultitaskSetting:
    return MultitaskSetting.drifting(T, gamma, d=config.d)


def _best(model: str, setting: MultitaskSetting) -> ConstantRule:
    """The best constants of a kind of model."""
    if model == "stream_delta_rule":
        rung = landscape.delta_rule(setting)
        return ConstantRule(rung.risk, 1.0, float(rung.steps[0]))
    return constant_rule(setting, erase=model == "stream_gated_delta_rule")
