"""A sweep of the user's own: a grid of settings, models and seeds beside the exact theory.

    gladient sweep FILE.yaml

Each setting is one that `gladient risk` answers; each model is trained on it for each seed. results.csv has one line
for each trained model, with the exact risk that its kind can reach, the gap and z.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments.engine.experiment import SQUARED_ERROR, Column, Experiment
from gladient.experiments.engine.results import GAP_BOUND, Z_BOUND, Judgement, judge_gap, mean_risk, relative_gap
from gladient.experiments.figures.sweep.grid import AXES, SweepConfig
from gladient.experiments.models.kinds import MODELS
from gladient.experiments.models.rungs import RUNGS
from gladient.experiments.models.stack import NamedSetting, TrainedStack, spaced
from gladient.experiments.work import Measurement
from gladient.pictures import draw_points, family, frame, legend_below, panel_grid

__all__ = ["Sweep", "SweepPoint", "SweepRow"]

_MEMBERS = 16  # the most models that train side by side: enough to fill a vector, few enough to share out


@dataclass(frozen=True)
class SweepPoint:
    """The exact risk of a model's rung on one setting.

    Attributes:
        n, r, rho, spectrum: the setting's lists, numbers with spaces between; d numbers of the spectrum.
        d, sigma2: the setting's numbers.
        model, rung: the kind of model, and what it is compared with.
        exact: the exact risk, as `gladient risk` prints it.
    """

    n: str
    r: str
    d: int
    spectrum: str
    rho: str
    sigma2: float
    model: str
    rung: str
    exact: float


@dataclass(frozen=True)
class SweepRow(SweepPoint):
    """One trained model: its point, and what it reached.

    Attributes:
        seed: the seed of the training run.
        risk, standard_error: on fresh prompts.
        gap: risk / exact - 1.
        z: (risk - exact) / standard_error.
    """

    seed: int
    risk: float
    standard_error: float
    gap: float
    z: float


class Sweep(Experiment[SweepConfig, TrainedStack, SweepRow, SweepPoint]):
    """A grid of settings, models and seeds.

    Args:
        x: the axis that the picture goes along, one of `AXES`; the one with the most values if not given.

    Raises:
        ValueError: if x is not an axis.
    """

    name = "sweep"
    title = "A sweep beside the exact theory"
    abstract = (
        "Every model trained on every setting. Lines are exact risks, points the means over seeds of trained models "
        "with two standard errors."
    )
    claim = "trained models reach their exact risk or lie below it"
    note = (
        "exact: the least risk that the model's rung allows; gap = risk / exact − 1; z = (risk − exact) / standard "
        f"error. A model reaches it if its risk ± {Z_BOUND:g} standard errors lies within {GAP_BOUND:.0%} of it, or "
        "below. Gates that move with the features can lie below their rung."
    )
    unit = SQUARED_ERROR
    columns = (
        *(Column(name) for name in AXES),
        Column("model"),
        Column("seed", form="d"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("rung"),
        Column("exact", form=".4f"),
        Column("gap", form="+.2%"),
        Column("z", form="+.1f"),
    )
    row, point = SweepRow, SweepPoint

    def __init__(self, x: str | None = None) -> None:
        if x is not None and x not in AXES:
            raise ValueError(f"x is {x!r}; a picture goes along one of {', '.join(AXES)}")
        self.x = x

    def work(self, config: SweepConfig) -> list[TrainedStack]:
        """Stacks of at most 16 models that read the same prompts."""
        stacks = []
        for place, panels in enumerate(config.grid()):
            many = max(1, _MEMBERS // len(panels))
            for model in config.models:
                for r in range(0, len(panels), _MEMBERS):
                    for seed in range(0, config.seeds, many):
                        seeds = tuple(range(seed, min(seed + many, config.seeds)))
                        stack = config.stack(f"{place:05d}-{model}-r{r}-s{seed}", model, panels[r : r + _MEMBERS])
                        stacks.append(replace(stack, seeds=seeds))
        return stacks

    def rows(self, config: SweepConfig, measured: Mapping[TrainedStack, Sequence[Measurement]]) -> list[SweepRow]:
        """A row for each trained model."""
        rows = []
        for stack, found in measured.items():
            points = {panel.name: (_point(panel, stack.model), panel.setting.M) for panel in stack.panels}
            for run in found:
                point, M = points[run["panel"]]
                risk, error = M * run["risk"], M * run["standard_error"]
                rows.append(
                    SweepRow(
                        **vars(point),
                        seed=run["seed"],
                        risk=risk,
                        standard_error=error,
                        gap=relative_gap(risk, point.exact),
                        z=(risk - point.exact) / error,
                    )
                )
        return rows

    def points(self, config: SweepConfig, measured: Mapping[TrainedStack, Sequence[Measurement]]) -> list[SweepPoint]:
        """A point for each setting and model."""
        return [_point(panel, model) for panels in config.grid() for panel in panels for model in config.models]

    def draw(self, rows: Sequence[SweepRow], points: Sequence[SweepPoint]) -> Figure:
        """Exact risks as lines, means over the seeds of trained models as points with two standard errors.

        Args:
            rows: trained models.
            points: exact risks.
        """
        values = {axis: list(dict.fromkeys(getattr(point, axis) for point in points)) for axis in AXES}
        x = self.x or max(AXES, key=lambda axis: len(values[axis]))
        others = [axis for axis in AXES if axis != x and len(values[axis]) > 1]
        panels = list(dict.fromkeys(_panel(point, others) for point in points))
        shown, columns = panels[:_MOST], min(4, len(panels))
        figure, grid = panel_grid(-(-len(shown) // columns), columns, panel=(3.4, 3.0), margin=0.8)
        axes, places = list(chain.from_iterable(grid)), _places(values[x])
        for name, axis in zip(shown, axes, strict=False):
            for model in dict.fromkeys(point.model for point in points):
                line = [p for p in points if p.model == model and _panel(p, others) == name]
                dots = [row for row in rows if row.model == model and _panel(row, others) == name]
                _draw_model(axis, model, line=_line(line, places, x), dots=_means(dots, places, x))
            axis.set_title(
                ", ".join(f"{other} = {value}" for other, value in zip(others, name, strict=True)), fontsize=9
            )
            axis.set_ylim(bottom=0)
            axis.set_xlabel("examples in the prompt, n" if x == "n" else x)
            if not _numeric(values[x]):
                axis.set_xticks(list(places.values()), [str(value) for value in places], rotation=30, fontsize=8)
            frame(axis)
        for axis in axes[len(shown) :]:
            axis.set_visible(False)
        if len(shown) < len(panels):
            figure.suptitle(f"the first {len(shown)} of {len(panels)} panels", fontsize=9)
        axes[0].set_ylabel("test risk")
        legend_below(figure, axes[0], columns=4)
        return figure

    def judge(self, row: SweepRow) -> Judgement | None:
        """Whether the row reaches its rung or lies below it; a model without context, or without a rung, has none."""
        judged = MODELS[row.model].known
        return judge_gap(row.risk, row.standard_error, row.exact, or_below=True) if judged else None

    def summary(self, judged: Sequence[SweepRow]) -> list[str]:
        """The median and the largest gap of each kind of model."""
        lines = []
        for model in dict.fromkeys(row.model for row in judged):
            gaps = [row.gap for row in judged if row.model == model]
            lines.append(f"{model}: median gap {median(gaps):+.2%}, largest {max(gaps):+.2%}")
        return lines


def _point(panel: NamedSetting, model: str) -> SweepPoint:
    rung = MODELS[model].rung
    return SweepPoint(
        n=spaced(panel.n),
        r=panel.name,
        d=len(panel.spectrum),
        spectrum=spaced(panel.spectrum) if set(panel.spectrum) != {1.0} else "1",
        rho=spaced(panel.rho),
        sigma2=panel.sigma2,
        model=model,
        rung=rung,
        exact=RUNGS[rung](panel.setting),
    )


_MOST = 24  # panels; more cannot be read


class _Mean(NamedTuple):
    place: float
    risk: float
    standard_error: float


def _draw_model(axis: Axes, model: str, *, line: list[tuple[float, float]], dots: list[_Mean]) -> None:
    _, colour, marker = family(model)
    axis.plot(*zip(*line, strict=True), color=colour, linewidth=1.4, label=f"{model}, exact")
    style = {"color": colour, "marker": marker, "markersize": 5, "markerfacecolor": "none"}
    draw_points(axis, [dot.place for dot in dots], dots, label=f"{model}, trained", **style)


def _panel(point: SweepPoint, others: Sequence[str]) -> tuple[str | float | int, ...]:
    return tuple(getattr(point, axis) for axis in others)


def _numeric(values: Sequence[str | float | int]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _places(values: Sequence[str | float | int]) -> dict[str | float | int, float]:
    """Numbers stand where they are, lists one after another."""
    if _numeric(values):
        return {value: float(value) for value in values}
    return {value: float(place) for place, value in enumerate(values)}


def _line(points: Sequence[SweepPoint], places: dict[str | float | int, float], x: str) -> list[tuple[float, float]]:
    return sorted((places[getattr(point, x)], point.exact) for point in points)


def _means(rows: Sequence[SweepRow], places: dict[str | float | int, float], x: str) -> list[_Mean]:
    found = []
    for value, place in places.items():
        here = [row for row in rows if getattr(row, x) == value]
        if here:
            found.append(_Mean(place, *mean_risk([(row.risk, row.standard_error) for row in here])))
    return found
