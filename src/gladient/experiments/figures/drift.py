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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient import landscape
from gladient.experiments.engine.experiment import OF_ZERO, Column, Config, Reproducible, risk_columns
from gladient.experiments.engine.results import GAP_BOUND, Z_BOUND, Judgement, RiskRow, largest_misses, summarise
from gladient.experiments.models.rungs import ConstantRule, constant_rule
from gladient.experiments.models.stack import NamedSetting, StackWork, one_layer, prompt_streams
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.nn import InContextRegressor
from gladient.pictures import draw_points, family, frame, legend_below, panel_grid
from gladient.prompts import MultitaskSetting, PromptSampler
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
        read_prompts: fresh prompts that decays are read off.
    """

    models: tuple[str, ...] = ("stream_gate", "stream_delta_rule", "stream_gated_delta_rule")
    gamma: tuple[float, ...] = (0.8, 0.9, 0.95, 1.0)
    T: tuple[int, ...] = (10, 40)
    drawn: tuple[float, ...] = (0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.985, 1.0)
    d: int = 10
    training: TrainingConfig = TrainingConfig(steps=600, learning_rate=0.02, gate_rest=0.05)
    read_prompts: int = 2000
    test_prompts: int = 2**18  # where the task is nearly learned, errors have long tails


@dataclass(frozen=True)
class DriftRow(RiskRow):
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


@dataclass(frozen=True)
class Streaming(StackWork):
    """Trains a stack on prompts without delimiters and reads the rule off its members.

    Args:
        stack: the models.
        prompts: how many fresh prompts they are read on, per seed.
    """

    prompts: int

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The stack's measurements, with the mean decay and step of the examples."""
        model, sampler = self.stack.build()
        self.stack.fit(model, sampler, scratch, on_step)
        tested, weights = self.stack.test(model, sampler), self.stack.pack(model)
        decays, steps = read_rule(one_layer(model), sampler, self)
        rules = [{"decay": decay, "step": step} for decay, step in zip(decays, steps, strict=True)]
        return Outcome([{**run, **rule} for run, rule in zip(tested, rules, strict=True)], weights)


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
        f"{GAP_BOUND:.0%} of it. gap = risk / exact − 1; z = (risk − exact) / standard error; "
        "step: β of keys that are the features."
    )
    unit = OF_ZERO
    columns = (
        *risk_columns("γ", "T"),
        Column("decay", form=".4f"),
        Column("best_decay", "best decay", ".4f"),
        Column("step", form=".4f"),
        Column("best_step", "best step", ".4f"),
    )
    row, point = DriftRow, DriftPoint
    full, quick = DriftConfig(), DriftConfig(gamma=(0.95,), T=(40,))

    def work(self, config: DriftConfig) -> list[Streaming]:
        """A stack for each γ, length and kind of model."""
        return [
            Streaming(
                config.stack(f"{model}-T{T}-gamma{gamma:g}", model, [_panel(config, T, gamma)]), config.read_prompts
            )
            for T in config.T
            for gamma in config.gamma
            for model in config.models
        ]

    def rows(self, config: DriftConfig, measured: Mapping[Streaming, Sequence[Measurement]]) -> list[DriftRow]:
        """A row for each γ, length and kind of model."""
        rows = []
        for work, runs in measured.items():
            stack, (panel,) = work.stack, work.stack.panels
            if runs:
                best = _best(stack.model, panel.setting)
                which = {"figure": self.name, "panel": panel.name, "model": stack.model}
                row = summarise(runs, n=stack.n, exact=best.risk / config.d, **which)
                decay, step = (float(np.mean([run[name] for run in runs])) for name in ("decay", "step"))
                rows.append(DriftRow(**asdict(row), decay=decay, best_decay=best.decay, step=step, best_step=best.step))
        return rows

    def points(self, config: DriftConfig, measured: Mapping[Streaming, Sequence[Measurement]]) -> list[DriftPoint]:
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

    def draw(self, rows: Sequence[DriftRow], points: Sequence[DriftPoint]) -> Figure:
        """A column for each T: risk above, decay below; exact values as lines, trained models as points."""
        lengths = sorted({row.n for row in rows})
        figure, grid = panel_grid(2, len(lengths), panel=(4.2, 2.6), margin=0.8, sharex=True)
        for T, risk, decay in zip(lengths, grid[0], grid[1], strict=True):
            here, curves = [row for row in rows if row.n == T], [point for point in points if point.n == T]
            for name in _CURVES:
                models, curve = [r for r in here if r.model == name], [p for p in curves if p.curve == name]
                _draw_risk(risk, name, models, curve)
                if name in _DECAYING:
                    _draw_decay(decay, name, models, curve)
            risk.set_title(f"{T} examples", fontsize=11)
            risk.set_ylim(0, 1.03)
            decay.set_xlabel("what is left of the task after an example, γ")
        grid[0][0].set_ylabel("test risk / d")
        grid[1][0].set_ylabel("decay per example")
        for axis in (*grid[0], *grid[1]):
            frame(axis)
        legend_below(figure, grid[0][0], columns=3)
        return figure

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


def _panel(config: DriftConfig, T: int, gamma: float) -> NamedSetting:
    return replace(NamedSetting.of(_setting(config, T, gamma)), name=f"{gamma:g}")


def _best(model: str, setting: MultitaskSetting) -> ConstantRule:
    """The best constants of a kind of model."""
    if model == "stream_delta_rule":
        rung = landscape.delta_rule(setting)
        return ConstantRule(rung.risk, 1.0, float(rung.steps[0]))
    return constant_rule(setting, erase=model == "stream_gated_delta_rule")


_CURVES: dict[str, tuple[object, float]] = {  # line and width; what coincides with a dashed line stays visible
    "linear_attention": ("-", 2.0),
    "stream_gate": ("-", 1.6),
    "stream_delta_rule": ("-", 1.6),
    "stream_gated_delta_rule": ("-", 1.6),
    "schedule": ((0, (4, 4)), 1.4),
}
_DECAYING = ("stream_gate", "stream_gated_delta_rule", "schedule")


def _draw_risk(axis: Axes, name: str, rows: Sequence[DriftRow], curve: Sequence[DriftPoint]) -> None:
    style = family(name)
    _line(axis, name, curve, [point.risk for point in curve], label=f"{style.title}, exact")
    if rows:
        draw_points(
            axis,
            [float(row.panel) for row in rows],
            rows,
            color=style.colour,
            marker=style.marker,
            markerfacecolor="none",
            label=f"{style.title}, trained",
        )


def _draw_decay(axis: Axes, name: str, rows: Sequence[DriftRow], curve: Sequence[DriftPoint]) -> None:
    style = family(name)
    _line(axis, name, curve, [point.decay for point in curve])
    for row in rows:
        axis.plot(float(row.panel), row.decay, color=style.colour, marker=style.marker, markerfacecolor="none")


def _line(
    axis: Axes, name: str, curve: Sequence[DriftPoint], values: Sequence[float], label: str | None = None
) -> None:
    x = [point.gamma for point in curve]
    line, width = _CURVES[name]
    axis.plot(x, values, color=family(name).colour, linestyle=line, linewidth=width, label=label)


@torch.no_grad()
def read_rule(model: InContextRegressor, sampler: PromptSampler, reading: Streaming) -> tuple[list[float], list[float]]:
    r"""Each member's mean decay of an example, and its mean step $\beta\,|W_k|^2/d$ for keys that are the features.

    A decay is 1 without gates, a step 0 without the delta rule.
    """
    layer, members = model.layer, model.layer.members
    tokens = sampler.draw(reading.prompts, prompt_streams("look", reading.stack.seeds, sampler)).tokens
    decays, steps = torch.ones(members), torch.zeros(members)
    if (g := layer.gates(tokens).g) is not None:
        decays = g[:, :-1].exp().unflatten(0, (len(tokens), -1)).mean((1, 2)).flatten()
    if layer.step is not None and layer.W_k is not None:
        features = layer.W_k[:, : sampler.layout.d].square().sum((1, 2)) / sampler.layout.d
        steps = layer.config.step_bound * layer.step(tokens)[:, :, :-1].mean((1, 2)).flatten() * features
    return decays.tolist(), steps.tolist()
