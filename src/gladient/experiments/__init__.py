"""One folder for each figure, and what makes a figure from it."""

from typing import Any

from gladient.experiments._figure import Column, Config, Figure, Reproducible
from gladient.experiments._make import Made, make
from gladient.experiments._models import MODELS
from gladient.experiments._register import register
from gladient.experiments._results import ExactPoint, Judgement, Row, judge_gap, summarise
from gladient.experiments._rungs import RUNGS
from gladient.experiments._stack import Panel, Stack
from gladient.experiments._work import Outcome, Record, Work
from gladient.experiments.delta.figure import Delta
from gladient.experiments.depth.figure import Depth
from gladient.experiments.drift.figure import Drift
from gladient.experiments.family.figure import Family
from gladient.experiments.multitask.figure import Multitask
from gladient.experiments.real.figure import Real
from gladient.experiments.single.figure import Single, SingleConfig
from gladient.experiments.sweep.figure import Sweep
from gladient.experiments.sweep.grid import SweepConfig, read_grid
from gladient.experiments.weights.figure import Weights

__all__ = [
    "FIGURES",
    "Made",
    "make",
    "Single",
    "SingleConfig",
    "Sweep",
    "SweepConfig",
    "read_grid",
    "MODELS",
    "register",
    "RUNGS",
    "Outcome",
    "Panel",
    "Record",
    "Stack",
    "Work",
    "Column",
    "Config",
    "ExactPoint",
    "Figure",
    "Judgement",
    "Reproducible",
    "Row",
    "judge_gap",
    "summarise",
]

FIGURES: dict[str, Reproducible[Any, Any, Any, Any]] = {
    figure.name: figure for figure in (Multitask(), Weights(), Depth(), Family(), Delta(), Drift(), Real())
}
"""The figures of `gladient reproduce --figure`, by name."""
