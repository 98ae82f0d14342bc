"""The delta rule beside gates: trained layers against the best risk that their rule can reach.

    gladient reproduce --figure delta

Two uncorrelated tasks of n/2 examples each, d = 10, no noise, Σ = I; a panel for each (r1, r2); test risk / d over n.
Five one-layer models are trained. Those with the paper's tokens have one step for all examples, which the query takes
too: DeltaNet's rule, Gated DeltaNet's, and the latter with keys of length 1. Those whose examples carry their task's
feature have a step for each task, with plain keys and with keys of length 1. Each point is compared with the exact
optimum of its rule. Where that optimum is the limit of small steps, which no layer attains, the exact value is a bound
from below.

The claim: where recent examples matter and prompts are long, the delta rule does what no gate can, since it corrects
old estimates and does not only forget them; on short prompts a gate forgets faster than a step unlearns; where old
examples matter, one step for all is no better than linear attention and value gates win, until steps differ from task
to task.

Source: `gladient.landscape`, whose delta-rule risks are derived; the panels are those of arXiv 2504.04308, section 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient import landscape
from gladient.experiments.engine.experiment import Column, Config, Reproducible
from gladient.experiments.engine.results import (
    GAP_BOUND,
    Z_BOUND,
    ExactPoint,
    Judgement,
    RiskRow,
    largest_misses,
    summarise,
)
from gladient.experiments.models.kinds import MODELS
from gladient.experiments.models.rungs import RUNGS
from gladient.experiments.models.stack import NamedSetting, TrainedStack
from gladient.experiments.work import Measurement
from gladient.pictures import correlations, draw_points, family, frame, legend_below, panel_grid
from gladient.training import TrainingConfig

__all__ = ["Delta", "DeltaConfig", "DeltaRow"]

_CURVES = ("linear_attention", "scalar_gate", "value_gate", "delta_rule", "gated_delta_rule")  # of no trained model


@dataclass(frozen=True, kw_only=True)
class DeltaConfig(Config):
    """What decides the figure's numbers.

    Args:
        models: names in `experiments.MODELS`.
        n: examples in a prompt, even numbers; half of them belong to each task.
        drawn: lengths at which exact curves are drawn.
        r: (r1, r2) of each panel.
        d: number of features.
        training: steps, step sizes, schedule.
    """

    models: tuple[str, ...] = (
        "delta_rule",
        "gated_delta_rule",
        "gated_delta_rule_unit",
        "delta_rule_per_task",
        "delta_rule_per_task_unit",
    )
    n: tuple[int, ...] = (10, 20, 40, 80)
    drawn: tuple[int, ...] = (10, 14, 20, 28, 40, 56, 80)
    r: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))
    d: int = 10
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=1000, gate_rest=0.05))
    test_prompts: int = 2**19  # where tasks are nearly learned, errors have long tails


@dataclass(frozen=True)
class DeltaRow(RiskRow):
    """A point; risks are divided by d.

    Attributes:
        best_gate: the exact risk of the best value gate, the best that gates can do.
    """

    best_gate: float

    @property
    def beats_gates(self) -> bool:
        """Whether the model lies below every gate by more than 3 standard errors."""
        return self.risk < self.best_gate - Z_BOUND * self.standard_error


class Delta(Reproducible[DeltaConfig, TrainedStack, DeltaRow, ExactPoint]):
    """Trained delta rules beside their exact risk and that of gates, over the prompt's length."""

    name = "delta"
    title = "The delta rule beside gates: trained layers against the exact theory"
    abstract = (
        "One-layer delta rules trained on multitask in-context regression: two uncorrelated tasks of n/2 examples, "
        "correlated with the query's task by (r₁, r₂). Lines are exact risks, points are trained models with two "
        "standard errors. Where recent examples matter and prompts are long, the delta rule does what no gate can: it "
        "corrects old estimates and does not only forget them. On short prompts a gate forgets faster than a step "
        "unlearns. Where old examples matter, one step for all is no better than linear attention and value gates win, "
        "until steps differ from task to task."
    )
    claim = "trained delta rules reach the best that their rule can do"
    note = (
        f"A point reaches its exact value if the risk ± {Z_BOUND:g} standard errors lies within {GAP_BOUND:.0%} of it. "
        "Risks are divided by d. gap = risk / exact − 1; z = (risk − exact) / standard error; best gate: the exact "
        "risk of the best value gate. At (r₁, r₂) = (0.8, 0.2) the best constant step is the limit of small ones, "
        "which no model attains."
    )
    columns = (
        Column("panel", "(r₁ r₂)"),
        Column("n", form="d"),
        Column("model"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("seeds", form="d"),
        Column("exact", form=".4f"),
        Column("gap", form="+.2%"),
        Column("z", form="+.1f"),
        Column("best_gate", "best gate", ".4f"),
    )
    row, point = DeltaRow, ExactPoint

    def config(self, *, quick: bool, seeds: int | None, device: str) -> DeltaConfig:
        """Four lengths and five models, or one length and two models if quick; one seed."""
        config = DeltaConfig(seeds=1 if seeds is None else seeds, device=device)
        quick_models = ("gated_delta_rule", "delta_rule_per_task")
        if not quick:
            return config
        return replace(config, n=(20,), drawn=(10, 20, 40), models=quick_models, test_prompts=2**17)

    def work(self, config: DeltaConfig) -> list[TrainedStack]:
        """A stack for each length and kind of model."""
        return [
            TrainedStack(
                name=f"{model}-n{n}",
                model=model,
                panels=_panels(config, n),
                seeds=tuple(range(config.seeds)),
                training=config.training,
                test_prompts=config.test_prompts,
                device=config.device,
            )
            for n in config.n
            for model in config.models
        ]

    def rows(self, config: DeltaConfig, records: Mapping[TrainedStack, Sequence[Measurement]]) -> list[DeltaRow]:
        """A row for each panel, length and kind of model."""
        rows = []
        for place in range(len(config.r)):
            for stack, found in records.items():
                panel, d = stack.panels[place], config.d
                if runs := [run for run in found if run["panel"] == panel.name]:
                    which = {"figure": self.name, "panel": panel.name, "model": stack.model}
                    exact = RUNGS[MODELS[stack.model].rung](panel.setting) / d
                    row = summarise(runs, n=stack.n, exact=exact, **which)
                    best_gate = RUNGS["value_gate"](panel.setting) / d
                    rows.append(DeltaRow(**asdict(row), best_gate=best_gate))
        return rows

    def points(self, config: DeltaConfig, records: Mapping[TrainedStack, Sequence[Measurement]]) -> list[ExactPoint]:
        """Exact risks of gates, of the delta rules (also with the query masked), and the Bayes risk."""
        rungs = [*_CURVES, *(MODELS[model].rung for model in config.models)]
        points = []
        for n in config.drawn:
            for panel in _panels(config, n):
                bayes = landscape.bayes(panel.setting, prompts=500).risk
                risks = {**{rung: RUNGS[rung](panel.setting) for rung in rungs}, "bayes": bayes}
                points += [ExactPoint(panel.name, n, rung, risk / config.d) for rung, risk in risks.items()]
        return points

    def draw(self, rows: Sequence[DeltaRow], points: Sequence[ExactPoint]) -> Figure:
        """A column for each (r1, r2): rules with one step above, with a step per task below; gates behind both."""
        panels = list(dict.fromkeys(row.panel for row in rows))
        figure, grid = panel_grid(2, len(panels), panel=(3.1, 2.7), margin=1.1, sharex=True, sharey=True)
        for per_task, line in zip((False, True), grid, strict=True):
            for panel, axis in zip(panels, line, strict=True):
                curves = [point for point in points if point.panel == panel]
                _draw_panel(axis, [row for row in rows if row.panel == panel], curves, per_task=per_task)
            line[0].set_ylabel("test risk / d\n" + ("one step per task" if per_task else "one step for all"))
        for panel, top, bottom in zip(panels, grid[0], grid[1], strict=True):
            top.set_title(correlations(panel), fontsize=11)
            bottom.set_xlabel("examples in the prompt, n")
        legend_below(figure, grid[0][0], grid[1][0], columns=4)
        return figure

    def judge(self, row: DeltaRow) -> Judgement:
        """Whether the row reaches its exact value."""
        return row.outcome

    def summary(self, judged: Sequence[DeltaRow]) -> list[str]:
        """The largest misses, and how often each kind lies below every gate."""
        below = {
            model: [row.beats_gates for row in judged if row.model == model]
            for model in dict.fromkeys(row.model for row in judged)
        }
        counts = ", ".join(f"{model} {sum(found)} of {len(found)}" for model, found in below.items())
        return [largest_misses(judged), f"below the best gate: {counts}"]


def _panels(config: DeltaConfig, n: int) -> tuple[NamedSetting, ...]:
    return tuple(NamedSetting.isotropic((n // 2, n // 2), r, config.d) for r in config.r)


class _Style(NamedTuple):
    size: float
    per_task: bool


# Where curves coincide, the wider line and the larger marker below stay visible around the narrower above.
_GATES = {
    "linear_attention": ("linear attention", "-", 5.0),
    "scalar_gate": ("scalar gate", "-", 2.6),
    "value_gate": ("value gate (WPGD)", ":", 1.6),
    "bayes": ("Bayes", (0, (5, 3)), 1.2),
}
_MASKED = ("delta_rule", "gated_delta_rule")
_MODELS = {
    "delta_rule": _Style(8, False),
    "gated_delta_rule": _Style(6, False),
    "gated_delta_rule_unit": _Style(4, False),
    "delta_rule_per_task": _Style(7, True),
    "delta_rule_per_task_unit": _Style(4, True),
}


def _draw_panel(axis: Axes, rows: Sequence[DeltaRow], exact: Sequence[ExactPoint], *, per_task: bool) -> None:
    def curve(name: str) -> tuple[list[int], list[float]]:
        points = sorted((point for point in exact if point.curve == name), key=lambda point: point.n)
        return [point.n for point in points], [point.risk for point in points]

    for name, (label, line, width) in _GATES.items():
        colour, label = family(name).colour, f"{label}, exact"
        axis.plot(*curve(name), color=colour, linestyle=line, linewidth=width, label=label, zorder=1)
    for name in () if per_task else _MASKED:
        title, colour, _ = family(name)
        label = f"{title} whose query has no step, exact"
        axis.plot(*curve(name), color=colour, linestyle=(0, (4, 2)), linewidth=0.9, label=label, zorder=2)
    for model, style in _MODELS.items():
        trained = [row for row in rows if row.model == model]
        if style.per_task == per_task and trained:
            title, colour, marker = family(model)
            axis.plot(*curve(MODELS[model].rung), color=colour, linewidth=1.5, zorder=2)
            draw_points(
                axis,
                [row.n for row in trained],
                trained,
                color=colour,
                marker=marker,
                markersize=style.size,
                markerfacecolor="none",
                markeredgewidth=1.4,
                label=f"{title}, trained; line: exact",
                zorder=3,
            )
    axis.set_xscale("log", base=2)
    ticks = sorted({row.n for row in rows} | {min(point.n for point in exact), max(point.n for point in exact)})
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.minorticks_off()
    axis.set_ylim(0, 1.05)
    frame(axis)
