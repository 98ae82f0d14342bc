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

from matplotlib.figure import Figure as Picture

from gladient.experiments._figure import Column, Config, Reproducible
from gladient.experiments._models import MODELS
from gladient.experiments._results import GAP_BOUND, Z_BOUND, ExactPoint, Judgement, Row, largest_misses, summarise
from gladient.experiments._rungs import RUNGS
from gladient.experiments._stack import Panel, Stack
from gladient.experiments._work import Record
from gladient.experiments.multitask.picture import draw_risk_panels
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


class Multitask(Reproducible[MultitaskConfig, Stack, Row, ExactPoint]):
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
    row, point = Row, ExactPoint

    def config(self, *, quick: bool, seeds: int | None, device: str) -> MultitaskConfig:
        """Six lengths, or two if quick; one seed."""
        config = MultitaskConfig(seeds=1 if seeds is None else seeds, device=device)
        return replace(config, n=(10, 40)) if quick else config

    def work(self, config: MultitaskConfig) -> list[Stack]:
        """A stack for each length and kind of model."""
        return [
            Stack(
                name=f"{model}-n{n}",
                model=model,
                panels=tuple(Panel.isotropic((n // 2, n // 2), r, config.d) for r in config.r),
                seeds=tuple(range(config.seeds)),
                training=config.training,
                test_prompts=config.test_prompts,
                device=config.device,
            )
            for n in config.n
            for model in config.models
        ]

    def rows(self, config: MultitaskConfig, records: Mapping[Stack, Sequence[Record]]) -> list[Row]:
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

    def points(self, config: MultitaskConfig, records: Mapping[Stack, Sequence[Record]]) -> list[ExactPoint]:
        """Exact risks at every even length."""
        return [
            ExactPoint(panel.name, n, model, RUNGS[MODELS[model].rung](panel.setting) / config.d)
            for r in config.r
            for model in config.models
            for n in range(min(config.n), max(config.n) + 1, 2)
            for panel in [Panel.isotropic((n // 2, n // 2), r, config.d)]
        ]

    def draw(self, rows: Sequence[Row], points: Sequence[ExactPoint]) -> Picture:
        """Risk over n, a panel for each (r1, r2)."""
        return draw_risk_panels(rows, points)

    def judge(self, row: Row) -> Judgement | None:
        """Whether the row reaches its exact value; a model without context has none."""
        return row.outcome if MODELS[row.model].judged else None

    def summary(self, judged: Sequence[Row]) -> list[str]:
        """The largest misses."""
        return [largest_misses(judged)]
