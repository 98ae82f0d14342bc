"""Figures of trained models beside the theory: what is trained, what makes a figure of it, and the figures."""

from typing import Any

from gladient.experiments.engine.experiment import Column, Config, Experiment, Reproducible
from gladient.experiments.engine.make import Made, make
from gladient.experiments.engine.results import (
    ExactPoint,
    Judgement,
    RiskRow,
    by_panel,
    judge_gap,
    largest_misses,
    summarise,
)
from gladient.experiments.figures.delta import Delta
from gladient.experiments.figures.depth.figure import Depth
from gladient.experiments.figures.depth.marks import Marks
from gladient.experiments.figures.drift import Drift
from gladient.experiments.figures.family import Family
from gladient.experiments.figures.limits import Limits
from gladient.experiments.figures.multitask import Multitask
from gladient.experiments.figures.over_n import Curve, Dots, OverN, OverNConfig
from gladient.experiments.figures.real.figure import Real
from gladient.experiments.figures.rotation import Rotation
from gladient.experiments.figures.single import Single, SingleConfig
from gladient.experiments.figures.sweep.figure import Sweep
from gladient.experiments.figures.sweep.grid import SweepConfig, read_grid
from gladient.experiments.figures.weights import Weights
from gladient.experiments.figures.worth.figure import Worth
from gladient.experiments.models.kinds import MODELS
from gladient.experiments.models.register import register
from gladient.experiments.models.rungs import RUNGS
from gladient.experiments.models.stack import NamedSetting, TrainedStack
from gladient.experiments.work import Measurement, Outcome, Work

__all__ = [
    # the figures
    "FIGURES",
    "make",
    "Made",
    "Single",
    "SingleConfig",
    "Sweep",
    "SweepConfig",
    "read_grid",
    # what is trained
    "MODELS",
    "RUNGS",
    "register",
    "NamedSetting",
    "TrainedStack",
    # a figure over n
    "OverN",
    "OverNConfig",
    "Curve",
    "Dots",
    # any other figure
    "Experiment",
    "Reproducible",
    "Config",
    "Column",
    "Work",
    "Outcome",
    "Measurement",
    "RiskRow",
    "ExactPoint",
    "Judgement",
    "judge_gap",
    "by_panel",
    "summarise",
    "largest_misses",
]

FIGURES: dict[str, Reproducible[Any, Any, Any, Any]] = {
    figure.name: figure
    for figure in (
        Multitask(),
        Weights(),
        Depth(),
        Marks(),
        Limits(),
        Family(),
        Delta(),
        Rotation(),
        Drift(),
        Real(),
        Worth(),
    )
}
"""The figures of `gladient reproduce --figure`, by name."""
