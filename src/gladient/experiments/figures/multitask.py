"""The paper's figure: trained models on multitask prompts against the exact risk of their gate family.

    gladient reproduce --figure multitask

Two uncorrelated tasks of n/2 examples each, d = 10, no noise, Σ = I; a panel for each (r1, r2); test risk / d over n.
Every trained point of linear attention, scalar gates and value gates is compared with its exact value: linear
attention's, the best scalar gate's, and the optimum of weighted preconditioned gradient descent (WPGD). GLA without
contextual features has no exact value; it is drawn beside the plateau of gates that stay at 1/2.

Source: arXiv 2504.04308, section 6; the exact values are those of `gladient.landscape`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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

__all__ = ["Multitask", "MultitaskConfig"]


@dataclass(frozen=True, kw_only=True)
class MultitaskConfig(Config):
    """What decides the figure's numbers.

    Args:
        models: names in `experiments.MODELS`.
        n: examples in a prompt, even numbers; half of them belong to each task.
        r: (r1, r2) of each panel.
        d: number of features.
        training: steps, step sizes, schedule.
    """

    models: tuple[str, ...] = ("linear_attention", "scalar_gate", "value_gate", "without_context")
    n: tuple[int, ...] = (10, 20, 40, 60, 80, 100)
    r: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))
    d: int = 10
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=600))


class Multitask(Reproducible[MultitaskConfig, TrainedStack, RiskRow, ExactPoint]):
    """Trained models of each gate family beside their exact risk, over the prompt's length."""

    name = "multitask"
    title = "Gating is weighting: trained models against the exact theory"
    abstract = (
        "One-layer models trained on multitask in-context regression: two uncorrelated tasks of n/2 examples each, "
        "correlated with the query's task by (r₁, r₂). Lines are exact risks, points are trained models with two "
        "standard errors."
    )
    claim = "trained points reach their exact value"
    note = (
        f"A point reaches its exact value if the risk ± {Z_BOUND:g} standard errors lies within {GAP_BOUND:.0%} of it. "
        "Risks are divided by d. gap = risk / exact − 1; z = (risk − exact) / standard error. Models in grey "
        "have no exact value of their own: theirs is drawn for comparison."
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
    )
    row, point = RiskRow, ExactPoint

    def config(self, *, quick: bool, seeds: int | None, device: str) -> MultitaskConfig:
        """Six lengths, or two if quick; one seed."""
        config = MultitaskConfig(seeds=1 if seeds is None else seeds, device=device)
        return replace(config, n=(10, 40)) if quick else config

    def work(self, config: MultitaskConfig) -> list[TrainedStack]:
        """A stack for each length and kind of model."""
        return [
            TrainedStack(
                name=f"{model}-n{n}",
                model=model,
                panels=tuple(NamedSetting.isotropic((n // 2, n // 2), r, config.d) for r in config.r),
                seeds=tuple(range(config.seeds)),
                training=config.training,
                test_prompts=config.test_prompts,
                device=config.device,
            )
            for n in config.n
            for model in config.models
        ]

    def rows(self, config: MultitaskConfig, records: Mapping[TrainedStack, Sequence[Measurement]]) -> list[RiskRow]:
        """A row for each panel, length and kind of model."""
        rows = []
        for place in range(len(config.r)):
            for stack, found in records.items():
                panel, d = stack.panels[place], config.d
                exact = RUNGS[MODELS[stack.model].rung](panel.setting) / d
                if runs := [run for run in found if run["panel"] == panel.name]:
                    which = {"figure": self.name, "panel": panel.name, "model": stack.model}
                    rows.append(summarise(runs, n=stack.n, exact=exact, **which))
        return rows

    def points(
        self, config: MultitaskConfig, records: Mapping[TrainedStack, Sequence[Measurement]]
    ) -> list[ExactPoint]:
        """Exact risks at every even length."""
        return [
            ExactPoint(panel.name, n, model, RUNGS[MODELS[model].rung](panel.setting) / config.d)
            for r in config.r
            for model in config.models
            for n in range(min(config.n), max(config.n) + 1, 2)
            for panel in [NamedSetting.isotropic((n // 2, n // 2), r, config.d)]
        ]

    def draw(self, rows: Sequence[RiskRow], points: Sequence[ExactPoint]) -> Figure:
        """One panel for each (r1, r2): exact curves as lines, trained models as points with two standard errors."""
        panels = list(dict.fromkeys(row.panel for row in rows))
        figure, grid = panel_grid(1, len(panels), panel=(3.2, 3.5), margin=0.6, sharey=True)
        for panel, axis in zip(panels, grid[0], strict=True):
            _draw_panel(
                axis, [row for row in rows if row.panel == panel], [point for point in points if point.panel == panel]
            )
            axis.set_title(correlations(panel), fontsize=11)
            axis.set_xlabel("examples in the prompt, n")
        grid[0][0].set_ylabel("test risk / d")
        legend_below(figure, grid[0][0], columns=4)
        return figure

    def judge(self, row: RiskRow) -> Judgement | None:
        """Whether the row reaches its exact value; a model without context has none."""
        return row.outcome if MODELS[row.model].judged else None

    def summary(self, judged: Sequence[RiskRow]) -> list[str]:
        """The largest misses."""
        return [largest_misses(judged)]


class _Style(NamedTuple):
    line: str
    width: float
    size: float
    trained: str
    exact: str


# Where curves coincide, the wider line and the larger marker below stay visible around the narrower above.
_STYLES = {
    "without_context": _Style(":", 1.5, 6, "GLA without contextual features", "gates at 1/2"),
    "linear_attention": _Style("-", 3.8, 10, "linear attention", "linear attention"),
    "scalar_gate": _Style("-", 2.5, 7, "GLA, scalar gates", "best scalar gate"),
    "value_gate": _Style("-", 1.0, 3.5, "GLA, value gates", "WPGD optimum"),
}


def _draw_panel(axis: Axes, rows: Sequence[RiskRow], exact: Sequence[ExactPoint]) -> None:
    for name, style in _STYLES.items():
        points = [point for point in exact if point.curve == name]
        axis.plot(
            [point.n for point in points],
            [point.risk for point in points],
            color=family(name).colour,
            linestyle=style.line,
            linewidth=style.width,
            label=f"{style.exact}, exact",
            zorder=2,
        )
    for name, style in _STYLES.items():
        trained = [row for row in rows if row.model == name]
        draw_points(
            axis,
            [row.n for row in trained],
            trained,
            color=family(name).colour,
            marker=family(name).marker,
            markersize=style.size,
            markeredgewidth=1.4,
            markerfacecolor="none" if style.size > 4 else None,
            label=f"{style.trained}, trained",
            zorder=3,
        )
    axis.set_ylim(0, 1.05)
    frame(axis)
