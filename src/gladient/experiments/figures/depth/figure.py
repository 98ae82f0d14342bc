"""One and two layers of linear attention, scalar gates and the gated delta rule, beside the best that stacks can do.

    gladient reproduce --figure depth

Two uncorrelated tasks of n/2 examples each, d = 5, no noise, Σ = I; (r1, r2) = (0.2, 0.8) and (0.8, 0.2). Trained
models are residual and free in all their channels. A model grows by one layer at a time: a new layer is put in front of
the trained ones, writes nothing at first, and all are trained; no parameter of the algorithm is given to them.

A model should reach what its kind of stack can do (exact, `figures.depth.reach`). It may lie below that: its lower
layers may write into the channels of the features, which the theory does not have. So each is grown once more without
such writes, and must then not lie below the bound of all such stacks. What the delimiters' features are worth is
measured by taking the first one away (`figures.depth.marks`).

Source: `gladient.landscape.depth`, derived; the multi-layer theorem is that of arXiv 2504.04308; the growing is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments.engine.experiment import OF_ZERO, Column, Config, Reproducible, risk_columns
from gladient.experiments.engine.results import (
    GAP_BOUND,
    Z_BOUND,
    Judgement,
    RiskRow,
    judge_gap,
    mean_risk,
    relative_gap,
)
from gladient.experiments.figures.depth.grown import GrownModels
from gladient.experiments.figures.depth.reach import CLASSES, ExactStacks
from gladient.experiments.models.stack import NamedSetting
from gladient.experiments.work import Measurement
from gladient.pictures import INK, draw_points, family, frame, legend_below, log_axis, panel_grid, panel_title
from gladient.training import TrainingConfig

__all__ = ["Depth", "DepthConfig", "DepthPoint", "DepthRow", "GrownConfig"]


@dataclass(frozen=True, kw_only=True)
class GrownConfig(Config):
    """What decides the numbers of a figure of grown models.

    Args:
        r: (r1, r2) of each panel.
        d: number of features.
        training: how each depth is trained; the learning rate is that of `learning_rates`.
        learning_rates: peak step size at each depth, from one layer to the most.
        start_scale: factor of a new layer's random queries, keys and values.
    """

    r: tuple[tuple[float, float], ...]
    d: int = 5
    training: TrainingConfig = TrainingConfig(steps=600, batch_size=512, gate_rest=0.05)
    learning_rates: tuple[float, ...] = (1e-2, 2e-2)
    start_scale: float = 0.6
    seeds: int = 2

    def grown(self, model: str, n: int) -> GrownModels:
        """The models of one kind and length, for each seed and panel."""
        return GrownModels(
            model,
            self.settings(n),
            tuple(range(self.seeds)),
            self.training,
            self.learning_rates,
            self.start_scale,
            self.test_prompts,
            self.device,
        )

    def settings(self, n: int) -> tuple[NamedSetting, ...]:
        """The setting of each panel."""
        return tuple(NamedSetting.isotropic((n // 2, n // 2), r, self.d) for r in self.r)


@dataclass(frozen=True, kw_only=True)
class DepthConfig(GrownConfig):
    """What decides the figure's numbers.

    Args:
        models: names in `LAYERS`.
        n: examples in a prompt, even numbers; half of them belong to each task.
        n_delta: the same for the delta rule, whose layers take twice as long.
        drawn: lengths at which exact curves are drawn.
    """

    r: tuple[tuple[float, float], ...] = ((0.2, 0.8), (0.8, 0.2))
    models: tuple[str, ...] = tuple(CLASSES)
    n: tuple[int, ...] = (10, 20, 40)
    n_delta: tuple[int, ...] = (10, 20)
    drawn: tuple[int, ...] = (10, 14, 20, 28, 40)
    test_prompts: int = 2**18  # with half as many one row of 32 was undecided


@dataclass(frozen=True)
class DepthRow(RiskRow):
    """One kind of model with L layers on one setting; risks are shares of that of predicting 0.

    Attributes:
        exact: the best risk that its kind of stack can reach with L layers.
        layers: L.
        worst, worst_error: the largest of the seeds' risks / exact - 1, and the standard error of its test.
        gain: mean over the seeds of the risk of one layer less minus this one's, on the same prompts; 0 for one layer.
        gain_z: the least of the seeds' gains in standard errors of its own.
        labels: the risk once layers write labels alone; that of one layer, which has no other writes, is its risk.
        labels_error: its standard error.
        bound: what no stack of L layers that writes labels alone goes below: the bound of all that do not erase; for
            those that do, the floor of any depth.
        labels_gap: the least of the seeds' (labels + 3 standard errors) / bound - 1.
        unmarked: the risk without the first delimiter's feature.
    """

    layers: int
    worst: float
    worst_error: float
    gain: float
    gain_z: float
    labels: float
    labels_error: float
    bound: float
    labels_gap: float
    unmarked: float

    @property
    def outcome(self) -> Judgement:
        """Whether each seed is known to reach what its kind can, and none to pass the bound by label writes alone."""
        near = judge_gap(1.0 + self.worst, self.worst_error, 1.0, or_below=True)
        return "missed" if near == "reached" and self.labels_gap < -GAP_BOUND else near


@dataclass(frozen=True)
class DepthPoint:
    """An exact risk of one setting, as a share of that of predicting 0; layers is 0 for any number of them."""

    panel: str
    n: int
    curve: str
    layers: int
    risk: float


Measurements = Mapping[GrownModels | ExactStacks, Sequence[Measurement]]


class Depth(Reproducible[DepthConfig, GrownModels | ExactStacks, DepthRow, DepthPoint]):
    """Models of one and two layers beside the best that their kind of stack can do."""

    name = "depth"
    title = "Depth: layers and gates beside the best that stacks of each kind can do"
    abstract = (
        "Residual models of one and two layers of linear attention, of GLA with scalar gates and of the gated delta "
        "rule, trained on two uncorrelated tasks of n/2 examples each, correlated with the query's task by (r₁, r₂). "
        "Lines are exact: the best stacks of each kind, the bound of all stacks of two layers without erasing, and the "
        "floor that no depth of layers that write labels alone goes below. Points are trained models with two standard "
        "errors."
    )
    claim = "trained models reach what their kind of stack can, and none passes the bound by writing labels alone"
    note = (
        f"A model reaches its value if the risk of each seed is known, with {Z_BOUND:g} standard errors, to be at most "
        f"{GAP_BOUND:.0%} above it, and if no seed is known to be {GAP_BOUND:.0%} below the bound while its layers "
        "write labels alone. exact: the best risk of its kind of stack; worst: the largest gap "
        "of a seed; labels alone: grown while no layer below the last writes into the channels of the features; bound: "
        "of all stacks that write labels alone and do not erase, or exact where that is lower; no mark: without the "
        "first delimiter's feature; gain: over one layer less on the same prompts, least z of its seeds. Seeds count "
        "from 0."
    )
    unit = OF_ZERO
    columns = (
        *risk_columns("(r₁ r₂)"),
        Column("layers", form="d"),
        Column("worst", form="+.2%"),
        Column("gain", form=".4f"),
        Column("gain_z", "least z", ".1f"),
        Column("labels", "labels alone", ".4f"),
        Column("labels_error", "standard error", ".4f"),
        Column("bound", form=".4f"),
        Column("unmarked", "no mark", ".4f"),
    )
    row, point = DepthRow, DepthPoint
    full = DepthConfig()
    quick = DepthConfig(
        r=((0.2, 0.8),), models=("linear_attention", "scalar_gate"), n=(20,), drawn=(20,), seeds=1, test_prompts=2**16
    )

    def work(self, config: DepthConfig) -> list[GrownModels | ExactStacks]:
        """Models to grow, and exact risks to compute."""
        lengths = sorted({*config.n, *config.drawn})
        trained = [
            config.grown(model, n)
            for n in config.n
            for model in config.models
            if model != "gated_delta_rule" or n in config.n_delta
        ]
        exact = [ExactStacks(each, len(config.learning_rates)) for n in lengths for each in config.settings(n)]
        return [*trained, *exact]

    def rows(self, config: DepthConfig, measured: Measurements) -> list[DepthRow]:
        """A row for each panel, length, kind of model and depth."""
        points = self.points(config, measured)
        cells = [
            (work, panel, depth, runs)
            for work, found in measured.items()
            if isinstance(work, GrownModels)
            for panel in work.panels
            for depth in range(1, work.layers + 1)
            if (runs := [run for run in found if (run["panel"], run["layers"]) == (panel.name, depth)])
        ]
        cells.sort(key=lambda cell: cell[0].panels.index(cell[1]))
        return [_row(work, panel.name, depth, runs, points) for work, panel, depth, runs in cells]

    def points(self, config: DepthConfig, measured: Measurements) -> list[DepthPoint]:
        """All exact risks."""
        return [
            DepthPoint(work.panel.name, sum(work.panel.n), **run)
            for work, found in measured.items()
            if isinstance(work, ExactStacks)
            for run in found
        ]

    def draw(self, rows: Sequence[DepthRow], points: Sequence[DepthPoint]) -> Figure:
        """A line of panels for each r, a panel for each kind of model: risk over n."""
        panels, models = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("panel", "model"))
        figure, grid = panel_grid(len(panels), len(models), panel=(3.5, 3.1), margin=0.8, sharex=True, sharey=True)
        for panel, line in zip(panels, grid, strict=True):
            line[0].set_ylabel(f"{panel_title(panel)}\ntest risk / d")
            for model, axis in zip(models, line, strict=True):
                own = [row for row in rows if (row.panel, row.model) == (panel, model)]
                _draw_lines(axis, model, [point for point in points if point.panel == panel])
                _draw_trained(axis, model, own)
                log_axis(axis, {row.n for row in rows})
                frame(axis)
        for model, top, bottom in zip(models, grid[0], grid[-1], strict=True):
            top.set_title(family(model).title, fontsize=11, color=family(model).colour)
            bottom.set_xlabel("examples in the prompt, n")
        _name(grid[0][0])
        legend_below(figure, grid[0][0], columns=4)
        return figure

    def judge(self, row: DepthRow) -> Judgement:
        """Whether the row reaches what its kind can, or lies below it for the reason that is known."""
        return row.outcome

    def summary(self, judged: Sequence[DepthRow]) -> list[str]:
        """The largest gaps, what lies below, and what the first delimiter's feature is worth."""
        deep = [row for row in judged if row.layers > 1]
        gaps = [row.gap for row in judged]
        below = [row for row in judged if row.gap < -GAP_BOUND]
        alone = [relative_gap(row.labels, row.exact) for row in judged]
        linear = [row.unmarked / row.risk - 1 for row in deep if row.model == "linear_attention"]
        return [
            f"largest gap of a seed {max((row.worst for row in judged), default=0.0):+.1%}, least z of a layer's gain "
            f"{min((row.gain_z for row in deep), default=0.0):.1f}",
            f"{len(below)} lie more than {GAP_BOUND:.0%} below what layers that write labels alone can reach, down to "
            f"{min(gaps, default=0.0):+.1%}; those that do write labels alone down to {min(alone, default=0.0):+.1%}",
            f"without the first delimiter's feature linear attention's risk rises by {min(linear, default=0.0):.0%} to "
            f"{max(linear, default=0.0):.0%}",
        ]


def reach(points: Sequence[DepthPoint], panel: str, n: int, model: str, layers: int) -> float:
    """The best exact risk of a kind of stack."""
    place = (panel, n, layers)
    return min(p.risk for p in points if (p.panel, p.n, p.layers) == place and p.curve in CLASSES[model])


def _row(
    work: GrownModels, panel: str, depth: int, runs: Sequence[Measurement], points: Sequence[DepthPoint]
) -> DepthRow:
    exact = reach(points, panel, work.n, work.model, depth)
    worst = max(runs, key=lambda run: run["risk"])
    risk, error = mean_risk([(run["risk"], run["standard_error"]) for run in runs])
    # one layer writes nowhere but into what is read
    names = ("risk", "standard_error") if depth == 1 else ("labels", "labels_error")
    labels = [(float(run[names[0]]), float(run[names[1]])) for run in runs]
    alone, alone_error = mean_risk(labels)
    # The bound is that of stacks that do not erase; the floor holds for those that do.
    erases = work.model == "gated_delta_rule"
    curve = (panel, work.n, 0, "floor") if erases else (panel, work.n, depth, "bound")
    bound = min(exact, *(p.risk for p in points if (p.panel, p.n, p.layers, p.curve) == curve))
    return DepthRow(
        figure="depth",
        panel=panel,
        n=work.n,
        model=work.model,
        risk=risk,
        standard_error=error,
        seeds=len(runs),
        exact=exact,
        gap=relative_gap(risk, exact),
        z=(risk - exact) / error,
        layers=depth,
        worst=relative_gap(worst["risk"], exact),
        worst_error=worst["standard_error"] / exact,
        gain=sum(run.get("gain", 0.0) for run in runs) / len(runs),
        gain_z=min(run["gain"] / run["gain_error"] for run in runs) if depth > 1 else 0.0,
        labels=alone,
        labels_error=alone_error,
        bound=bound,
        labels_gap=min(relative_gap(one + Z_BOUND * error, bound) for one, error in labels),
        unmarked=sum(run["unmarked1"] for run in runs) / len(runs),
    )


_STYLES = {1: ":", 2: "-"}  # of one layer and two
_FLOORS = {"bound": ("-", 1.0), "floor": ((0, (5, 3)), 1.2)}


def _draw_lines(axis: Axes, model: str, points: Sequence[DepthPoint]) -> None:
    """The best of this kind of stack, its best steps where they are not that, the bound and the floor."""
    lengths, layers = sorted({p.n for p in points}), sorted({p.layers for p in points} - {0})
    panel = points[0].panel
    for depth in layers:
        best = [reach(points, panel, n, model, depth) for n in lengths]
        axis.plot(lengths, best, color=family(model).colour, linestyle=_STYLES.get(depth, "-."), linewidth=1.6)
    steps = {p.n: p.risk for p in points if (p.curve, p.layers) == (model, layers[-1])}
    axis.plot(*zip(*sorted(steps.items()), strict=True), "--", color=family(model).colour, linewidth=0.9)
    for curve, depth, like in (("bound", layers[-1], "value_gate"), ("floor", 0, "")):
        line = {p.n: p.risk for p in points if (p.curve, p.layers) == (curve, depth)}
        style, width = _FLOORS[curve]
        colour = family(like).colour if like else INK
        axis.plot(*zip(*sorted(line.items()), strict=True), linestyle=style, color=colour, linewidth=width, zorder=1)


def _draw_trained(axis: Axes, model: str, rows: Sequence[DepthRow]) -> None:
    _, colour, marker = family(model)
    style: dict[str, Any] = {"color": colour, "marker": marker, "markeredgewidth": 1.3, "zorder": 3}
    for depth, own in groupby(sorted(rows, key=lambda row: row.layers), key=lambda row: row.layers):
        trained = list(own)
        inside = "none" if depth == 1 else colour
        draw_points(axis, [row.n for row in trained], trained, markersize=6.0, markerfacecolor=inside, **style)
        if depth > 1:  # a little to the right, so that none covers another
            beside = [1.09 * row.n for row in trained]
            axis.plot(beside, [row.labels for row in trained], linestyle="none", markersize=4.5, mfc="white", **style)


def _name(axis: Axes) -> None:
    """The legend's entries, which belong to all panels and so have no colour."""
    lines: dict[str, dict[str, Any]] = {
        "one layer, exact": {"linestyle": ":"},
        "two layers, exact": {"linestyle": "-"},
        "best two layers without marks": {"linestyle": "--", "linewidth": 0.9},
        "any two layers that do not erase": {"linestyle": "-", "linewidth": 1.0, "color": family("value_gate").colour},
        "floor of any depth": {"linestyle": (0, (5, 3)), "linewidth": 1.2},
        "one layer, trained": {"linestyle": "none", "marker": "o", "markersize": 6.0, "mfc": "none"},
        "two layers, trained": {"linestyle": "none", "marker": "o", "markersize": 6.0},
        "two layers that write labels alone": {"linestyle": "none", "marker": "o", "markersize": 4.5, "mfc": "white"},
    }
    for label, style in lines.items():
        axis.plot([], [], label=label, **{"color": INK, **style})
