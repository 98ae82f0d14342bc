"""The paper's figure: trained models on multitask prompts against the exact risk of their gate family.

    gladient reproduce --figure multitask

Two uncorrelated tasks of n/2 examples each, d = 10, no noise, Σ = I; a panel for each (r1, r2); test risk / d over n.
Every trained point of linear attention, scalar gates and value gates is compared with its exact value: linear
attention's, the best scalar gate's, and the optimum of weighted preconditioned gradient descent (WPGD). GLA without
contextual features has no exact value; it is drawn beside the plateau of gates that stay at 1/2.

Source: arXiv 2504.04308, section 6; the exact values are those of `gladient.landscape`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gladient.experiments.engine.results import RiskRow, largest_misses
from gladient.experiments.figures.over_n import REACHES, Curve, Dots, OverN, TwoTasksConfig
from gladient.experiments.models.kinds import MODELS
from gladient.experiments.models.rungs import RUNGS
from gladient.prompts import MultitaskSetting
from gladient.training import TrainingConfig

__all__ = ["Multitask", "MultitaskConfig"]


@dataclass(frozen=True, kw_only=True)
class MultitaskConfig(TwoTasksConfig):
    """What decides the figure's numbers."""

    models: tuple[str, ...] = ("linear_attention", "scalar_gate", "value_gate", "without_context")
    n: tuple[int, ...] = (10, 20, 40, 60, 80, 100)
    training: TrainingConfig = TrainingConfig(steps=600)


class Multitask(OverN[MultitaskConfig, RiskRow]):
    """Trained models of each gate family beside their exact risk, over the prompt's length."""

    name = "multitask"
    title = "Gating is weighting: trained models against the exact theory"
    abstract = (
        "One-layer models trained on multitask in-context regression: two uncorrelated tasks of n/2 examples each, "
        "correlated with the query's task by (r₁, r₂). Lines are exact risks, points are trained models with two "
        "standard errors."
    )
    note = f"{REACHES}. Models in grey have no exact value of their own: theirs is drawn for comparison."
    row = RiskRow
    full, quick = MultitaskConfig(), MultitaskConfig(n=(10, 40))
    bands = (
        (
            "test risk / d",
            (
                Curve("without_context", "gates at 1/2, exact", line=":", width=1.5),
                Curve("linear_attention", "linear attention, exact", width=3.8),
                Curve("scalar_gate", "best scalar gate, exact", width=2.5),
                Curve("value_gate", "WPGD optimum, exact", width=1.0),
                Dots("without_context", "GLA without contextual features, trained", 6.0),
                Dots("linear_attention", "linear attention, trained", 10.0),
                Dots("scalar_gate", "GLA, scalar gates, trained", 7.0),
                Dots("value_gate", "GLA, value gates, trained", 3.5),
            ),
        ),
    )

    def curves(self, config: MultitaskConfig) -> dict[str, Callable[[MultitaskSetting], float]]:
        """What each kind of model is compared with."""
        return {model: RUNGS[MODELS[model].rung] for model in config.models}

    def drawn(self, config: MultitaskConfig) -> Sequence[int]:
        """Every even length."""
        return range(min(config.n), max(config.n) + 1, 2)

    def summary(self, judged: Sequence[RiskRow]) -> list[str]:
        """The largest misses."""
        return [largest_misses(judged)]
