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

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gladient import landscape
from gladient.experiments.engine.experiment import Column, risk_columns
from gladient.experiments.engine.results import Z_BOUND, RiskRow, largest_misses
from gladient.experiments.figures.over_n import REACHES, Curve, Dots, OverN, TwoTasksConfig
from gladient.experiments.models.kinds import MODELS
from gladient.experiments.models.rungs import RUNGS
from gladient.pictures import family
from gladient.prompts import MultitaskSetting
from gladient.training import TrainingConfig

__all__ = ["Delta", "DeltaConfig", "DeltaRow"]


@dataclass(frozen=True, kw_only=True)
class DeltaConfig(TwoTasksConfig):
    """What decides the figure's numbers.

    Args:
        drawn: lengths at which exact curves are drawn.
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
    training: TrainingConfig = TrainingConfig(steps=1000, gate_rest=0.05)
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


_GATES = (
    Curve("linear_attention", "linear attention, exact", width=5.0, behind=True),
    Curve("scalar_gate", "scalar gate, exact", width=2.6, behind=True),
    Curve("value_gate", "value gate (WPGD), exact", line=":", width=1.6, behind=True),
    Curve("bayes", "Bayes, exact", line=(0, (5, 3)), width=1.2, behind=True),
)
_MASKED = tuple(
    Curve(name, f"{family(name).title} whose query has no step, exact", line=(0, (4, 2)), width=0.9)
    for name in ("delta_rule", "gated_delta_rule")
)


def _trained(model: str, size: float) -> tuple[Curve, Dots]:
    return (
        Curve(MODELS[model].rung, like=model),
        Dots(model, f"{family(model).title}, trained; line: exact", size),
    )


class Delta(OverN[DeltaConfig, DeltaRow]):
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
        f"{REACHES}; best gate: the exact risk of the best value gate. At (r₁, r₂) = (0.8, 0.2) the best constant step "
        "is the limit of small ones, which no model attains."
    )
    columns = (*risk_columns("(r₁ r₂)"), Column("best_gate", "best gate", ".4f"))
    row, also = DeltaRow, (("best_gate", "value_gate"),)
    full = DeltaConfig()
    quick = DeltaConfig(
        models=("gated_delta_rule", "delta_rule_per_task"), n=(20,), drawn=(10, 20, 40), test_prompts=2**17
    )
    bands = (
        (
            "test risk / d\none step for all",
            (
                *(*_GATES, *_MASKED),
                *_trained("delta_rule", 8.0),
                *_trained("gated_delta_rule", 6.0),
                *_trained("gated_delta_rule_unit", 4.0),
            ),
        ),
        (
            "test risk / d\none step per task",
            (*_GATES, *_trained("delta_rule_per_task", 7.0), *_trained("delta_rule_per_task_unit", 4.0)),
        ),
    )
    size, margin, log = (3.1, 2.7), 1.1, True

    def curves(self, config: DeltaConfig) -> dict[str, Callable[[MultitaskSetting], float]]:
        """Gates, the delta rules (also with the query masked), and the Bayes risk."""
        gates = ("linear_attention", "scalar_gate", "value_gate", "delta_rule", "gated_delta_rule")
        rungs = {name: RUNGS[name] for name in (*gates, *(MODELS[model].rung for model in config.models))}
        return {**rungs, "bayes": lambda setting: landscape.bayes(setting, prompts=500).risk}

    def drawn(self, config: DeltaConfig) -> Sequence[int]:
        """Those of the config."""
        return config.drawn

    def summary(self, judged: Sequence[DeltaRow]) -> list[str]:
        """The largest misses, and how often each kind lies below every gate."""
        below = {
            model: [row.beats_gates for row in judged if row.model == model]
            for model in dict.fromkeys(row.model for row in judged)
        }
        counts = ", ".join(f"{model} {sum(found)} of {len(found)}" for model, found in below.items())
        return [largest_misses(judged), f"below the best gate: {counts}"]
