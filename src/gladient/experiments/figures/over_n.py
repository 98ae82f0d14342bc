"""Figures over the prompt's length n: trained models beside exact risks, a panel for each setting."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments.engine.experiment import OF_ZERO, Config, Reproducible, risk_columns
from gladient.experiments.engine.results import (
    GAP_BOUND,
    Z_BOUND,
    ExactPoint,
    Judgement,
    RiskRow,
    by_panel,
    judge_gap,
    summarise,
)
from gladient.experiments.models.kinds import MODELS
from gladient.experiments.models.rungs import RUNGS
from gladient.experiments.models.stack import NamedSetting, TrainedStack
from gladient.experiments.work import Measurement
from gladient.pictures import draw_points, family, frame, legend_below, log_axis, panel_grid, panel_title
from gladient.prompts import MultitaskSetting

__all__ = ["REACHES", "Curve", "Dots", "OverN", "OverNConfig", "TwoTasksConfig"]

REACHES = (
    f"A point reaches its exact value if the risk ± {Z_BOUND:g} standard errors lies within {GAP_BOUND:.0%} of it. "
    "gap = risk / exact − 1; z = (risk − exact) / standard error"
)
"""How to read the table of such a figure."""


@dataclass(frozen=True, kw_only=True)
class OverNConfig(Config):
    """What decides the numbers of a figure over n.

    Args:
        models: names in `experiments.MODELS`.
        n: examples in a prompt.
    """

    models: tuple[str, ...]
    n: tuple[int, ...]

    @abstractmethod
    def settings(self, n: int) -> Sequence[NamedSetting]:
        """The setting of each panel at one length; they differ in r alone, and have the same names at each length."""


@dataclass(frozen=True, kw_only=True)
class TwoTasksConfig(OverNConfig):
    """The same for two uncorrelated tasks of n/2 examples each, without noise.

    Args:
        r: (r1, r2) of each panel.
        d: number of features.
    """

    r: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))
    d: int = 10

    @final
    def settings(self, n: int) -> tuple[NamedSetting, ...]:
        """A setting for each (r1, r2); n is even."""
        return tuple(NamedSetting.isotropic((n // 2, n // 2), r, self.d) for r in self.r)


@dataclass(frozen=True)
class Curve:
    """How an exact curve is drawn. Where curves coincide, a wider one stays visible around a narrower above.

    Args:
        name: the curve's, one of those that `OverN.curves` gives.
        label: in the legend; none if empty.
        like: the family whose colour it has; its own if empty.
        line: as matplotlib takes it.
        width: in points.
        behind: whether it stands behind the grid too.
    """

    name: str
    label: str = ""
    like: str = ""
    line: Any = "-"
    width: float = 1.5
    behind: bool = False

    def draw(self, axis: Axes, rows: Sequence[RiskRow], points: Sequence[ExactPoint]) -> None:
        """Draw it, if it has points."""
        if own := sorted((point.n, point.risk) for point in points if point.curve == self.name):
            style = {"color": family(self.like or self.name).colour, "linestyle": self.line, "linewidth": self.width}
            axis.plot(*zip(*own, strict=True), label=self.label or None, zorder=1 if self.behind else 2, **style)


@dataclass(frozen=True)
class Dots:
    """How the trained models of one kind are drawn: as points with two standard errors.

    Args:
        model: a name in `experiments.MODELS`.
        label: in the legend.
        size: the marker's diameter in points; small markers are filled.
    """

    model: str
    label: str
    size: float = 6.0

    def draw(self, axis: Axes, rows: Sequence[RiskRow], points: Sequence[ExactPoint]) -> None:
        """Draw them, if there are any."""
        if own := [row for row in rows if row.model == self.model]:
            _, colour, marker = family(self.model)
            inside = "none" if self.size >= 4 else None
            style = {"color": colour, "marker": marker, "markersize": self.size, "markerfacecolor": inside}
            draw_points(axis, [row.n for row in own], own, label=self.label, markeredgewidth=1.4, zorder=3, **style)


C = TypeVar("C", bound=OverNConfig)
R = TypeVar("R", bound=RiskRow)


class OverN(Reproducible[C, TrainedStack, R, ExactPoint]):
    """Trained models beside exact risks over n. A figure says what is drawn; work, rows and picture come from that.

    Risks are in units of that of predicting 0, which is d without noise.

    Attributes:
        bands: each line of panels: what stands on its left, and what is drawn in each panel, lowest first.
        also: further columns of `row`: the exact risks of these rungs.
        size, margin: of a panel, and below all panels for the legend, in inches.
        log: whether n is drawn on a logarithmic scale.
        or_below: whether a point below its exact value reaches it, however far.
    """

    bands: tuple[tuple[str, tuple[Curve | Dots, ...]], ...]
    also: tuple[tuple[str, str], ...] = ()
    size: tuple[float, float] = (3.2, 3.5)
    margin: float = 0.6
    log: bool = False
    or_below: bool = False
    claim = "trained points reach their exact value"
    unit = OF_ZERO
    columns = risk_columns("(r₁ r₂)")
    point = ExactPoint

    @abstractmethod
    def curves(self, config: C) -> Mapping[str, Callable[[MultitaskSetting], float]]:
        """The risk of each curve."""

    @abstractmethod
    def drawn(self, config: C) -> Sequence[int]:
        """The lengths at which curves are drawn."""

    @final
    def work(self, config: C) -> list[TrainedStack]:
        """A stack for each length and kind of model."""
        return [config.stack(f"{model}-n{n}", model, config.settings(n)) for n in config.n for model in config.models]

    @final
    def rows(self, config: C, measured: Mapping[TrainedStack, Sequence[Measurement]]) -> list[R]:
        """A row for each panel, length and kind of model."""
        cells = sorted(by_panel(measured), key=lambda cell: cell[0].panels.index(cell[1]))
        return [self._row(*cell) for cell in cells]

    def _row(self, stack: TrainedStack, panel: NamedSetting, runs: Sequence[Measurement]) -> R:
        which = {"figure": self.name, "panel": panel.name, "model": stack.model}
        row = summarise(runs, n=stack.n, exact=_share(RUNGS[MODELS[stack.model].rung], panel), **which)
        also: dict[str, Any] = {column: _share(RUNGS[rung], panel) for column, rung in self.also}
        return self.row(**asdict(row), **also)

    @final
    def points(self, config: C, measured: Mapping[TrainedStack, Sequence[Measurement]]) -> list[ExactPoint]:
        """Every curve in every panel."""
        lengths = [(n, config.settings(n)) for n in self.drawn(config)]
        return [
            ExactPoint(panels[place].name, n, curve, _share(risk, panels[place]))
            for place in range(len(lengths[0][1]))
            for curve, risk in self.curves(config).items()
            for n, panels in lengths
        ]

    @final
    def draw(self, rows: Sequence[R], points: Sequence[ExactPoint]) -> Figure:
        """Risk over n: exact curves as lines, trained models as points with two standard errors."""
        panels = list(dict.fromkeys(point.panel for point in points))
        figure, grid = panel_grid(
            len(self.bands), len(panels), panel=self.size, margin=self.margin, sharex=True, sharey=True
        )
        for (label, drawn), line in zip(self.bands, grid, strict=True):
            line[0].set_ylabel(label)
            for panel, axis in zip(panels, line, strict=True):
                own = [row for row in rows if row.panel == panel], [point for point in points if point.panel == panel]
                for one in drawn:
                    one.draw(axis, *own)
                self._frame(axis, *own)
        for panel, top, bottom in zip(panels, grid[0], grid[-1], strict=True):
            top.set_title(panel_title(panel), fontsize=11)
            bottom.set_xlabel("examples in the prompt, n")
        legend_below(figure, *(line[0] for line in grid), columns=4)
        return figure

    def _frame(self, axis: Axes, rows: Sequence[R], points: Sequence[ExactPoint]) -> None:
        if self.log:
            lengths = [point.n for point in points]
            log_axis(axis, {min(lengths), max(lengths), *(row.n for row in rows)}, base=2)
        axis.set_ylim(0, 1.05)
        frame(axis)

    @final
    def judge(self, row: R) -> Judgement | None:
        """Whether the row reaches its exact value; a model without context, or without a rung, has none."""
        known = MODELS[row.model].known
        return judge_gap(row.risk, row.standard_error, row.exact, or_below=self.or_below) if known else None


def _share(risk: Callable[[MultitaskSetting], float], panel: NamedSetting) -> float:
    """In units of the risk of predicting 0, as measurements are."""
    setting = panel.setting
    return risk(setting) / setting.M
