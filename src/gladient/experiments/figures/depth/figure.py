"""Risk against prompt length for L = 1 … 4 layers, beside the best L steps of the algorithm and the Bayes risk.

    gladient reproduce --figure depth

Two uncorrelated tasks of n/2 examples each, (r1, r2) = (0.2, 0.8), d = 5, no noise, Σ = I. L residual layers can run L
causal steps of weighted preconditioned gradient descent (WPGD); the best L steps are found by optimising the algorithm
itself, with the gates' weights for GLA and without gates for linear attention. Trained models are free in all their
channels. A model grows by one layer at a time: a new layer is put in front of the L - 1 trained ones, writes nothing at
first, and all are trained; no parameter of the algorithm is given to them.

Source: arXiv 2504.04308, multi-layer theorem; the search and the growing are ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient import landscape
from gladient.experiments.engine.experiment import Column, Config, Reproducible
from gladient.experiments.engine.results import Judgement, judge_gap, summarise
from gladient.experiments.figures.depth.work import GrownModels, SearchedSteps
from gladient.experiments.work import Measurement
from gladient.nn import Gate
from gladient.pictures import INK, draw_points, frame, legend_below, log_axis, ordered, panel_grid
from gladient.training import TrainingConfig

__all__ = ["GATES", "Depth", "DepthConfig", "DepthPoint", "DepthRow"]

GATES: Mapping[str, Gate] = {"linear_attention": "none", "scalar_gate": "scalar"}
"""The models of the figure, and the gates of their layers."""
GAP_BOUND, Z_BOUND = 0.05, 3.0


@dataclass(frozen=True, kw_only=True)
class DepthConfig(Config):
    """What decides the figure's numbers.

    Args:
        n: examples in a prompt, even numbers; half of them belong to each task.
        r: correlation of each task with the query's.
        d: number of features.
        training: how each depth is trained; the learning rate is that of `learning_rates`.
        learning_rates: peak step size at each depth, from one layer to the most.
        start_scale: factor of a new layer's random queries, keys and values.
        search_prompts: features that the search for the best steps sees.
        starts: its random starts for each number of steps.
        step_prompts: fresh features that the best steps are tested on.
    """

    n: tuple[int, ...] = (10, 20, 40)
    r: tuple[float, float] = (0.2, 0.8)
    d: int = 5
    training: TrainingConfig = TrainingConfig(steps=400, gate_rest=0.05)
    learning_rates: tuple[float, ...] = (1e-2, 1e-2, 5e-3, 3e-3)
    start_scale: float = 0.6
    search_prompts: int = 4096
    starts: int = 4
    step_prompts: int = 2**15
    seeds: int = 2


@dataclass(frozen=True)
class DepthRow:
    """One kind of model with L layers at one prompt length; risks are divided by d.

    Attributes:
        figure, model, n, layers: which point; n counts all examples of the prompt.
        risk, standard_error: mean over the seeds of the risk on fresh prompts.
        seeds: training runs.
        best, best_error: risk of the best L steps and its standard error; 0 for the exact risk of one step.
        gap: risk / best - 1.
        gain: mean over the seeds of the risk of one layer less minus this one's, on the same prompts; 0 for one layer.
        gain_z: the least of the seeds' gains in standard errors of its own: each model beats the one it grew from.
    """

    figure: str
    model: str
    n: int
    layers: int
    risk: float
    standard_error: float
    seeds: int
    best: float
    best_error: float
    gap: float
    gain: float
    gain_z: float

    @property
    def outcome(self) -> Judgement:
        """Whether it is known to be within 5% of the best steps or better, and each seed to gain by its layer."""
        error = (self.standard_error**2 + self.best_error**2) ** 0.5
        near = judge_gap(self.risk, error, self.best, bound=GAP_BOUND, or_below=True)
        if near != "reached" or self.layers == 1 or self.gain_z >= Z_BOUND:
            return near
        return "missed" if self.gain_z <= -Z_BOUND else "undecided"

    @property
    def beats(self) -> bool:
        """Whether it is better than the best steps by 3 standard errors."""
        return self.best - self.risk > Z_BOUND * (self.standard_error**2 + self.best_error**2) ** 0.5


@dataclass(frozen=True)
class DepthPoint:
    """Risk of the best L steps at one prompt length, divided by d; the Bayes risk for L = 0."""

    model: str
    n: int
    layers: int
    risk: float
    standard_error: float


Measurements = Mapping[GrownModels | SearchedSteps, Sequence[Measurement]]


class Depth(Reproducible[DepthConfig, GrownModels | SearchedSteps, DepthRow, DepthPoint]):
    """Models of 1 … L layers beside the best L steps of the algorithm."""

    name = "depth"
    title = "Depth: L layers beside the best L steps of the algorithm"
    abstract = (
        "Residual models of L layers of linear attention and of GLA with scalar gates, trained on two uncorrelated "
        "tasks of n/2 examples each, correlated with the query's task by (0.2, 0.8). Lines are the best L causal "
        "steps of weighted preconditioned gradient descent, found by optimising the algorithm itself; points are "
        "trained models with two standard errors; dashed is the Bayes risk, which no estimator beats."
    )
    claim = "trained models are within 5% of the best L steps or better, and better than one layer less"
    note = (
        "Risks are divided by d. best: the best L steps that the search found, on fresh features (exact for L = 1); "
        "gap = risk / best − 1: below zero the model beats the steps; gain: over one layer less on the same prompts; "
        f"least z: the smallest z of the seeds' gains. The claim asks for a gap of at most {GAP_BOUND:.0%} with "
        f"{Z_BOUND:g} standard errors added and, from two layers on, for gains of at least {Z_BOUND:g} standard errors "
        "for each seed. Models are grown layer by layer, from random starts; seeds count from 0."
    )
    columns = (
        Column("model"),
        Column("n", form="d"),
        Column("layers", form="d"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("seeds", form="d"),
        Column("best", form=".4f"),
        Column("best_error", "standard error", ".4f"),
        Column("gap", form="+.1%"),
        Column("gain", form=".4f"),
        Column("gain_z", "least z", ".1f"),
    )
    row, point = DepthRow, DepthPoint
    full = DepthConfig()
    quick = DepthConfig(
        n=(10, 20),
        learning_rates=full.learning_rates[:2],
        seeds=1,
        starts=2,
        test_prompts=2**15,
        search_prompts=2048,
        step_prompts=2**14,
    )

    def work(self, config: DepthConfig) -> list[GrownModels | SearchedSteps]:
        """Models to grow and steps to search for, for each length and kind of model."""
        return [
            work
            for n in config.n
            for model, gate in GATES.items()
            for work in (
                GrownModels(
                    model=model,
                    gate=gate,
                    n=(n // 2, n // 2),
                    r=config.r,
                    d=config.d,
                    seeds=tuple(range(config.seeds)),
                    training=config.training,
                    learning_rates=config.learning_rates,
                    start_scale=config.start_scale,
                    test_prompts=config.test_prompts,
                    device=config.device,
                ),
                SearchedSteps(
                    model=model,
                    gated=gate != "none",
                    n=(n // 2, n // 2),
                    r=config.r,
                    d=config.d,
                    layers=len(config.learning_rates),
                    prompts=config.search_prompts,
                    starts=config.starts,
                    test_prompts=config.step_prompts,
                ),
            )
        ]

    def rows(self, config: DepthConfig, measured: Measurements) -> list[DepthRow]:
        """A row for each kind of model, length and depth."""
        best = {(point.model, point.n, point.layers): point for point in _best_points(measured)}
        return [
            _row(work, depth, runs, best[work.model, sum(work.n), depth])
            for work, found in measured.items()
            if isinstance(work, GrownModels)
            for depth in range(1, len(config.learning_rates) + 1)
            if (runs := [run for run in found if run["layers"] == depth])
        ]

    def points(self, config: DepthConfig, measured: Measurements) -> list[DepthPoint]:
        """The best steps, and the Bayes risk."""
        floors = []
        for work in measured:
            if isinstance(work, SearchedSteps):
                floor = landscape.bayes(work.setting(), prompts=2000)
                floors.append(
                    DepthPoint(work.model, sum(work.n), 0, floor.risk / config.d, floor.standard_error / config.d)
                )
        return [*_best_points(measured), *floors]

    def draw(self, rows: Sequence[DepthRow], points: Sequence[DepthPoint]) -> Figure:
        """A panel for each kind of model: the best steps as lines, trained models as points, the Bayes risk dashed."""
        models = list(dict.fromkeys(row.model for row in rows))
        figure, grid = panel_grid(1, len(models), panel=(4.4, 3.8), margin=0.6, sharey=True)
        for model, axis in zip(models, grid[0], strict=True):
            _draw_panel(axis, [row for row in rows if row.model == model], [p for p in points if p.model == model])
            axis.set_title(_TITLES.get(model, model), fontsize=11)
            axis.set_xlabel("examples in the prompt, n")
        grid[0][0].set_ylabel("test risk / d")
        legend_below(figure, grid[0][0], columns=3)
        return figure

    def judge(self, row: DepthRow) -> Judgement:
        """Whether the row is near the best steps and gains by its layer."""
        return row.outcome

    def summary(self, judged: Sequence[DepthRow]) -> list[str]:
        """How many beat the best steps, and the margins."""
        deep = [row for row in judged if row.layers > 1]
        beating = sum(row.beats for row in deep)
        return [
            f"{beating} of {len(deep)} models of two layers and more beat the best L steps by over {Z_BOUND:g} "
            "standard errors",
            f"largest gap {max((row.gap for row in judged), default=0.0):+.1%}, least z of a layer's gain "
            f"{min((row.gain_z for row in deep), default=0.0):.1f}",
        ]


def _row(work: GrownModels, depth: int, runs: Sequence[Measurement], best: DepthPoint) -> DepthRow:
    risk = summarise(runs, figure="depth", panel="", n=sum(work.n), model=work.model, exact=best.risk)
    return DepthRow(
        figure="depth",
        model=work.model,
        n=sum(work.n),
        layers=depth,
        risk=risk.risk,
        standard_error=risk.standard_error,
        seeds=len(runs),
        best=best.risk,
        best_error=best.standard_error,
        gap=risk.gap,
        gain=sum(run["gain"] for run in runs) / len(runs),
        gain_z=min(run["gain"] / run["gain_error"] for run in runs) if depth > 1 else 0.0,
    )


def _best_points(measured: Measurements) -> list[DepthPoint]:
    return [
        DepthPoint(work.model, sum(work.n), run["layers"], run["risk"], run["standard_error"])
        for work, runs in measured.items()
        if isinstance(work, SearchedSteps)
        for run in runs
    ]


_TITLES = {"linear_attention": "linear attention", "scalar_gate": "GLA, scalar gates"}
_MARKERS = "osD^"


def _draw_panel(axis: Axes, rows: Sequence[DepthRow], points: Sequence[DepthPoint]) -> None:
    depths = sorted({row.layers for row in rows})
    colours = ordered(len(depths))
    for depth, colour in zip(depths, colours, strict=True):
        line = [point for point in points if point.layers == depth]
        label = f"best {depth} step{'s' if depth > 1 else ''} of WPGD"
        axis.plot([p.n for p in line], [p.risk for p in line], color=colour, linewidth=1.4, label=label)
    floor = [point for point in points if point.layers == 0]
    axis.plot([p.n for p in floor], [p.risk for p in floor], "--", color=INK, linewidth=1.2, label="Bayes")
    for depth, colour, marker in zip(depths, colours, _MARKERS * len(depths), strict=False):
        trained = [row for row in rows if row.layers == depth]
        draw_points(
            axis,
            [row.n for row in trained],
            trained,
            color=colour,
            marker=marker,
            markersize=5.5,
            markerfacecolor="none",
            label=f"{depth} layer{'s' if depth > 1 else ''}, trained",
        )
    log_axis(axis, {row.n for row in rows})
    frame(axis)
