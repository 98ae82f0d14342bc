"""One model on one setting: its risk falling to the exact line.

    gladient train --model scalar_gate --n 25 25 --r 0.2 0.8 --d 10

The losses are those of training batches, fresh prompts each, so their mean is the risk at that step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gladient.experiments.engine.experiment import SQUARED_ERROR, Column, Config, Experiment
from gladient.experiments.engine.results import GAP_BOUND, Z_BOUND, Judgement, RiskRow, judge_gap, summarise
from gladient.experiments.models.kinds import MODELS, check_model
from gladient.experiments.models.rungs import RUNGS
from gladient.experiments.models.stack import NamedSetting, StackWork
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.pictures import PALE, draw_points, family, frame, legend_below, panel_grid

__all__ = ["Single", "SingleConfig", "StepPoint"]

_POINTS = 200  # of the curve; each is the mean of the steps between


@dataclass(frozen=True, kw_only=True)
class SingleConfig(Config):
    """What decides the numbers.

    Args:
        model: a name in `experiments.MODELS`.
        panel: the setting.
        seed: decides the initial weights and the prompts.

    Raises:
        ValueError: if there is no such model, or none with an exact risk for the panel's variances.
    """

    model: str
    panel: NamedSetting
    seed: int = 0

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


@dataclass(frozen=True)
class Run(StackWork):
    """Trains a stack of one model and keeps its losses.

    Args:
        stack: the model.
    """

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The stack's measurement and the loss at each step, in units of the risk of predicting 0."""
        model, sampler = self.stack.build()
        history = self.stack.fit(model, sampler, scratch, on_step)
        (tested,) = self.stack.test(model, sampler)
        losses = [] if history is None else history.losses[:, 0].tolist()
        return Outcome([{**tested, "losses": losses}], self.stack.pack(model))


class Single(Experiment[SingleConfig, Run, RiskRow, StepPoint]):
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
        "or below. gap = risk / exact − 1; z = (risk − exact) / standard error."
    )
    unit = SQUARED_ERROR
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
    row, point = RiskRow, StepPoint

    def work(self, config: SingleConfig) -> list[Run]:
        """The one run."""
        stack = config.stack(config.model, config.model, [config.panel])
        return [Run(replace(stack, seeds=(config.seed,)))]

    def rows(self, config: SingleConfig, measured: Mapping[Run, Sequence[Measurement]]) -> list[RiskRow]:
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
            for (run,) in measured.values()
        ]

    def points(self, config: SingleConfig, measured: Mapping[Run, Sequence[Measurement]]) -> list[StepPoint]:
        """The losses, in at most 200 points."""
        M = config.panel.setting.M
        return [
            StepPoint(int(block[-1]) + 1, M * float(np.mean(np.array(run["losses"], float)[block])))
            for (run,) in measured.values()
            for block in np.array_split(np.arange(len(run["losses"])), min(_POINTS, len(run["losses"])))
        ]

    def draw(self, rows: Sequence[RiskRow], points: Sequence[StepPoint]) -> Figure:
        """The risk over the steps, the exact risk as a line, the tested model at the end."""
        figure, grid = panel_grid(1, 1, panel=(6.4, 3.8), margin=0.5)
        axis = grid[0][0]
        axis.plot([p.step for p in points], [p.risk for p in points], color=PALE, linewidth=1.4, label="training")
        for row in rows:
            _, colour, marker = family(row.model)
            axis.axhline(row.exact, color=colour, linewidth=1.4, label="exact")
            style = {"color": colour, "marker": marker, "markersize": 5}
            draw_points(axis, [points[-1].step], [row], label="trained, on fresh prompts", **style)
            axis.set_title(f"{row.model}: {row.panel}", fontsize=11)
        axis.set_xlabel("step")
        axis.set_ylabel("risk")
        axis.set_ylim(bottom=0)
        frame(axis)
        legend_below(figure, axis, columns=3)
        return figure

    def judge(self, row: RiskRow) -> Judgement | None:
        """Whether the model reaches its rung or lies below it; a model without context, or without a rung, has none."""
        judged = MODELS[row.model].known
        return judge_gap(row.risk, row.standard_error, row.exact, or_below=True) if judged else None

    def summary(self, judged: Sequence[RiskRow]) -> list[str]:
        """The risk beside the exact one."""
        return [
            f"risk {row.risk:.4f} ± {row.standard_error:.4f}, exact {row.exact:.4f}, gap {row.gap:+.2%}"
            for row in judged
        ]
