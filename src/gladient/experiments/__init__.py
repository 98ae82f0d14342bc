"""One folder for each figure, and what makes a figure from it."""

from typing import Any

from gladient.experiments._figure import Column, Config, Figure, Reproducible
from gladient.experiments._make import Made, make
from gladient.experiments._models import MODELS
from gladient.experiments._stack import Panel, Stack
from gladient.experiments._work import Outcome, Work
from gladient.experiments.depth.figure import Depth
from gladient.experiments.family.figure import Family
from gladient.experiments.multitask.figure import Multitask
from gladient.experiments.single.figure import Single, SingleConfig
from gladient.experiments.sweep.figure import Sweep
from gladient.experiments.sweep.grid import SweepConfig, read_grid
from gladient.experiments.weights.figure import Weights

__all__ = [
    "FIGURES",
    "MODELS",
    "Column",
    "Config",
    "Figure",
    "Made",
    "Outcome",
    "Panel",
    "Reproducible",
    "Single",
    "SingleConfig",
    "Stack",
    "Sweep",
    "SweepConfig",
    "Work",
    "make",
    "read_grid",
]

FIGURES: dict[str, Reproducible[Any, Any, Any, Any]] = {
    figure.name: figure for figure in (Multitask(), Weights(), Depth(), Family())
}
