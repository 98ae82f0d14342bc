"""One model on one setting: its risk falling to the exact line.

    gladient train --model scalar_gate --n 25 25 --r 0.2 0.8 --d 10

The losses are those of training batches, fresh prompts each, so their mean is the risk at that step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure as Picture

from gladient.experiments._figure import Column, Config, Figure
from gladient.experiments._models import MODELS, check_model
from gladient.experiments._results import GAP_BOUND, Z_BOUND, Judgement, Row, judge_gap, summarise
from gladient.experiments._rungs import RUNGS
from gladient.experiments._stack import Panel, Stack
from gladient.experiments._work import Record
from gladient.experiments.single.picture import draw_training
from gladient.experiments.single.work import Run
from gladient.training import TrainingConfig

__all__ = ["Single", "SingleConfig", "StepPoint"]

_POINTS = 200  # of the curve; each is the mean of the steps between


@dataclass(frozen=True, kw_only=True)
class SingleConfig(Config):
    """What decides the numbers.

    Args:
        model: a name in `experiments.MODELS`.
        panel: the setting.
        seed: decides the initial weights and the prompts.
        training: steps, step sizes, schedule.
        test_prompts: fresh prompts that the trained model is tested on.

    Raises:
        ValueError: if there is no such model, or none with an exact risk for the panel's variances.
    """

    model: str
    panel: Panel
    seed: int = 0
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model(self.model, self.panel.spectrum)
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be a whole number ≥ 0")


@dataclass(frozen=True)
class StepPoint:
    """The mean risk over the batches of the steps up to this one, since the point before.

    Attributes:
        step: the training step, counted from 1.
        risk: as `gladient risk` prints it.
    """

    step: int
    risk: float


class Single(Figure[SingleConfig, Run, Row, StepPoint]):
    """One model on one setting."""

    name = "train"
    title = "One model beside its exact risk"
    abstract = (
        "The risk of one model while it is trained, on fresh prompts at every step, and the exact risk that its gate "
        "family allows. The point at the end is the trained model on prompts that are kept for testing."
    )
    claim = "trained model reaches its exact risk or lies below it"
    note = (
        f"The model reaches its exact risk if its own ± {Z_BOUND:g} standard errors lies within {GAP_BOUND:.0%} of it, "
        "or below. gap = risk / exact − 1; z = (risk − exact) / standard error. Risks are not divided by anything."
    )
    columns = (
        Column("panel", "setting"),
        Column("n", form="d"),
        Column("model"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("exact", form=".4f"),
        Column("gap", form="+.2%"),
        Column("z", form="+.1f"),
    )
    row, point = Row, StepPoint

    def work(self, config: SingleConfig) -> list[Run]:
        """The one run."""
        stack = Stack(
            name=config.model,
            model=config.model,
            panels=(config.panel,),
            seeds=(config.seed,),
            training=config.training,
            test_prompts=config.test_prompts,
            device=config.device,
        )
        return [Run(stack)]

    def rows(self, config: SingleConfig, records: Mapping[Run, Sequence[Record]]) -> list[Row]:
        """The trained model."""
        setting = config.panel.setting
        which = {"figure": self.name, "panel": config.panel.name, "model": config.model}
        exact = RUNGS[MODELS[config.model].rung](setting)
        return [
            summarise(
                [{"risk": setting.M * run["risk"], "standard_error": setting.M * run["standard_error"]}],
                n=sum(config.panel.n),
                exact=exact,
                **which,
            )
            for (run,) in records.values()
        ]

    def points(self, config: SingleConfig, records: Mapping[Run, Sequence[Record]]) -> list[StepPoint]:
        """The losses, in at most 200 points."""
        M = config.panel.setting.M
        return [
            StepPoint(int(block[-1]) + 1, M * float(np.mean(np.array(run["losses"], float)[block])))
            for (run,) in records.values()
            for block in np.array_split(np.arange(len(run["losses"])), min(_POINTS, len(run["losses"])))
        ]

    def draw(self, rows: Sequence[Row], points: Sequence[StepPoint]) -> Picture:
        """The risk at each step."""
        return draw_training(rows, points)

    def judge(self, row: Row) -> Judgement | None:
        """Whether the model reaches its rung or lies below it; a model without context, or without a rung, has none."""
        judged = MODELS[row.model].judged
        return judge_gap(row.risk, row.standard_error, row.exact, or_below=True) if judged else None

    def summary(self, judged: Sequence[Row]) -> list[str]:
        """The risk beside the exact one."""
        return [
            f"risk {row.risk:.4f} ± {row.standard_error:.4f}, exact {row.exact:.4f}, gap {row.gap:+.2%}"
            for row in judged
        ]
