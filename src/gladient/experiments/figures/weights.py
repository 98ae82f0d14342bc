"""Learned token weights beside the best ones: what a trained layer does to each example of its prompt.

    gladient reproduce --figure weights

Models of the multitask figure at one prompt length are trained, and `equivalence.extract` reads the algorithm off each:
the weight of every example, the preconditioner P, and the share of the predictions' variance that one step of weighted
preconditioned gradient descent with fixed weights explains. Scalar gates are compared with the best weights
that they can make, value gates against ω*.

Source: arXiv 2504.04308, Theorem 1 read backwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from gladient import landscape
from gladient.equivalence import Factor, extract, residual_model
from gladient.experiments.engine.experiment import Column, Config, Reproducible
from gladient.experiments.engine.results import Judgement, by_panel
from gladient.experiments.models.stack import NamedSetting, StackWork, TrainedStack, one_layer, prompt_streams
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.landscape import Rung
from gladient.nn import InContextRegressor
from gladient.pictures import INK, frame, legend_below, ordered, panel_grid, panel_title
from gladient.prompts import MultitaskSetting, PromptSampler

__all__ = ["WeightPoint", "WeightRow", "Weights", "WeightsConfig", "cosine"]

EXPLAINED, COSINE = 0.98, 0.99

BEST: Mapping[str, Callable[[MultitaskSetting], Rung]] = {
    "scalar_gate": landscape.scalar_gate,
    "value_gate": landscape.optimum,
}


@dataclass(frozen=True, kw_only=True)
class WeightsConfig(Config):
    """What decides the figure's numbers.

    Args:
        models: kinds of models, scalar_gate and value_gate.
        n: examples of each task.
        r: (r1, r2) of each panel.
        d: number of features.
        read_prompts: fresh prompts that its algorithm is read off.
    """

    models: tuple[str, ...] = tuple(BEST)
    n: tuple[int, ...] = (10, 10)
    r: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))
    d: int = 10
    seeds: int = 3
    test_prompts: int = 2**16
    read_prompts: int = 2000


@dataclass(frozen=True)
class WeightRow:
    """One panel and kind of model: means over the seeds, and the least of them.

    Attributes:
        figure, panel, n, model, seeds: which point.
        explained: share of the predictions' variance that the extracted algorithm explains.
        cos_omega: cosine of its task weights with the best ones.
        cos_p: cosine of its preconditioner with the best one.
        explained_least, cos_omega_least, cos_p_least: the same for the worst seed.
        moving_gates: share of gates that move with x and y; the rest of what is missing is cross blocks.
    """

    figure: str
    panel: str
    n: int
    model: str
    seeds: int
    explained: float
    explained_least: float
    cos_omega: float
    cos_omega_least: float
    cos_p: float
    cos_p_least: float
    moving_gates: float

    @property
    def outcome(self) -> Judgement:
        """Whether every seed is WPGD with the best weights, to the figure's bounds."""
        return "reached" if self.explained_least >= EXPLAINED and self.cos_omega_least >= COSINE else "missed"


@dataclass(frozen=True)
class WeightPoint:
    """The weight of one example; each run's weights have the norm of the best ones.

    Attributes:
        panel, model, task, example: which; examples count from 0 through the prompt.
        learned, least, greatest: over the seeds.
        best: the exact weight.
    """

    panel: str
    model: str
    task: int
    example: int
    learned: float
    least: float
    greatest: float
    best: float


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of the angle between two arrays up to sign, the scale symmetry of (P, ω).

    >>> cosine([1.0, 0.0], [-2.0, 0.0])
    1.0
    """
    x, y = np.ravel(a), np.ravel(b)
    return float(abs(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)))


@dataclass(frozen=True)
class Reading(StackWork):
    """Trains a stack and reads the algorithm off its members.

    Args:
        stack: the models.
        prompts: how many fresh prompts they are read on.
    """

    prompts: int

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The stack's measurements and what was read: shares, P, and the weight of each task and example."""
        model, sampler = self.stack.build()
        self.stack.fit(model, sampler, scratch, on_step)
        tested, weights = self.stack.test(model, sampler), self.stack.pack(model)
        found = read(self, one_layer(model), sampler)
        return Outcome([{**run, **one} for run, one in zip(tested, found, strict=True)], weights)


class Weights(Reproducible[WeightsConfig, Reading, WeightRow, WeightPoint]):
    """The weights that trained gates make, beside the best ones."""

    name = "weights"
    title = "Learned token weights beside the best ones"
    abstract = (
        "What the gates of trained one-layer models make of each example in the prompt: filled, the exact weights; "
        "points, the weights read off trained models, with the range over their seeds."
    )
    claim = "kinds of model are WPGD with the best weights"
    note = (
        f"One step of WPGD with fixed weights must explain at least {EXPLAINED:.0%} of the variance of each seed's "
        f"predictions, and these weights must have a cosine of at least {COSINE} with the best ones. Means over the "
        "seeds, and the least of them."
    )
    columns = (
        Column("panel", "(r₁ r₂)"),
        Column("n", form="d"),
        Column("model"),
        Column("seeds", form="d"),
        Column("explained", form=".4f"),
        Column("explained_least", "least", ".4f"),
        Column("cos_omega", "cos(ω, ω*)", ".5f"),
        Column("cos_omega_least", "least", ".5f"),
        Column("cos_p", "cos(P, P*)", ".4f"),
        Column("cos_p_least", "least", ".4f"),
        Column("moving_gates", "moving gates", ".4f"),
    )
    row, point = WeightRow, WeightPoint
    full, quick = WeightsConfig(), WeightsConfig(models=("value_gate",))

    def work(self, config: WeightsConfig) -> list[Reading]:
        """A stack for each kind of model."""
        panels = [NamedSetting.isotropic(config.n, r, config.d) for r in config.r]
        return [
            Reading(config.stack(f"{model}-n{sum(config.n)}", model, panels), config.read_prompts)
            for model in config.models
        ]

    def rows(self, config: WeightsConfig, measured: Mapping[Reading, Sequence[Measurement]]) -> list[WeightRow]:
        """A row for each kind of model and panel."""
        return [_row(*cell) for cell in _cells(measured)]

    def points(self, config: WeightsConfig, measured: Mapping[Reading, Sequence[Measurement]]) -> list[WeightPoint]:
        """A point for each example, panel and kind of model."""
        return [point for cell in _cells(measured) for point in _weight_points(*cell)]

    def draw(self, rows: Sequence[WeightRow], points: Sequence[WeightPoint]) -> Figure:
        """A line of panels for each kind of model: the best weights filled, learned ones as points."""
        models, panels = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("model", "panel"))
        figure, grid = panel_grid(len(models), len(panels), panel=(2.9, 1.9), margin=0.8, sharex=True, sharey=True)
        for model, line in zip(models, grid, strict=True):
            line[0].set_ylabel(f"{_TITLES.get(model, model)}\nweight")
            for panel, axis in zip(panels, line, strict=True):
                _draw_panel(axis, [point for point in points if (point.model, point.panel) == (model, panel)])
                for row in rows:
                    if (row.model, row.panel) == (model, panel):
                        note = f"explained {row.explained:.3f}\ncos(ω, ω*) {row.cos_omega:.4f}"
                        axis.text(0.5, 0.97, note, transform=axis.transAxes, ha="center", va="top", fontsize=8.5)
        for panel, top, bottom in zip(panels, grid[0], grid[-1], strict=True):
            top.set_title(panel_title(panel), fontsize=11)
            bottom.set_xlabel("example of the prompt")
        legend_below(figure, grid[0][0], columns=len(grid[0][0].get_legend_handles_labels()[1]))
        return figure

    def judge(self, row: WeightRow) -> Judgement:
        """Whether every seed is WPGD with the best weights."""
        return row.outcome

    def summary(self, judged: Sequence[WeightRow]) -> list[str]:
        """The worst seed."""
        least = min((row.explained_least for row in judged), default=0.0)
        return [f"least share of the variance explained {least:.2%}"]


def _cells(
    measured: Mapping[Reading, Sequence[Measurement]],
) -> list[tuple[TrainedStack, NamedSetting, list[Measurement], Rung]]:
    """For each kind of model and panel: the measurements of its seeds, and the best weights."""
    found = by_panel({reading.stack: runs for reading, runs in measured.items()})
    return [(stack, panel, runs, BEST[stack.model](panel.setting)) for stack, panel, runs in found]


def _row(stack: TrainedStack, panel: NamedSetting, runs: Sequence[Measurement], best: Rung) -> WeightRow:
    shares = [run["explained"] for run in runs]
    omega = [cosine(run["omega"], best.omega) for run in runs]
    P = [cosine(run["P"], best.P) for run in runs]
    return WeightRow(
        figure="weights",
        panel=panel.name,
        n=stack.n,
        model=stack.model,
        seeds=len(runs),
        explained=float(np.mean(shares)),
        explained_least=min(shares),
        cos_omega=float(np.mean(omega)),
        cos_omega_least=min(omega),
        cos_p=float(np.mean(P)),
        cos_p_least=min(P),
        moving_gates=float(np.mean([run["moving_gates"] for run in runs])),
    )


def _weight_points(
    stack: TrainedStack, panel: NamedSetting, runs: Sequence[Measurement], best: Rung
) -> list[WeightPoint]:
    exact = np.repeat(best.omega, panel.n)
    learned = np.array([run["examples"] for run in runs])
    learned = learned * (np.linalg.norm(exact) / np.linalg.norm(learned, axis=1, keepdims=True))
    learned = learned * np.where(learned @ exact < 0, -1.0, 1.0)[:, None]
    tasks = np.repeat(np.arange(len(panel.n)), panel.n)
    return [
        WeightPoint(panel.name, stack.model, int(task), i, *map(float, (of.mean(), of.min(), of.max(), aim)))
        for i, (task, of, aim) in enumerate(zip(tasks, learned.T, exact, strict=True))
    ]


_TITLES = {"scalar_gate": "scalar gates", "value_gate": "value gates"}


def _draw_panel(axis: Axes, points: Sequence[WeightPoint]) -> None:
    tasks = sorted({point.task for point in points})
    for task, colour in zip(tasks, ordered(len(tasks)), strict=True):
        block = [point for point in points if point.task == task]
        places = [point.example + 1 for point in block]
        label = f"best weight, task {task + 1}"
        axis.bar(places, [point.best for point in block], width=1.0, color=colour, alpha=0.55, label=label)
    learned = [point.learned for point in points]
    spread = [[p.learned - p.least for p in points], [p.greatest - p.learned for p in points]]
    axis.errorbar(
        [point.example + 1 for point in points],
        learned,
        yerr=spread,
        color=INK,
        marker="o",
        markersize=3,
        linestyle="none",
        elinewidth=1.0,
        label="learned, with the range over seeds",
    )
    axis.set_ylim(min([0.0, *(point.least for point in points)]) - 0.06, 1.55)
    frame(axis, grid=False)


def read(reading: Reading, regressor: InContextRegressor, sampler: PromptSampler) -> list[Measurement]:
    """What each member does to its prompts: shares of variance, and the algorithm's weights and preconditioner."""
    model = residual_model(regressor.double().cpu(), sampler.layout)
    streams = prompt_streams("look", reading.stack.seeds, sampler)
    tokens, panels = sampler.draw(reading.prompts, streams).tokens.double().cpu(), len(reading.stack.panels)
    found = [
        extract(model.member(member), tokens[member // panels, None], sampler.layout)
        for member in range(len(model.readout))
    ]
    return [{"explained": one.explained, "moving_gates": one.moving_gates, **_listed(one.factors[0])} for one in found]


def _listed(factor: Factor) -> Measurement:
    return {"omega": factor.omega.tolist(), "examples": factor.examples.tolist(), "P": factor.P.tolist()}
