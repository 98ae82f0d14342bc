"""Depth in the limit of many features: laws of n/d beside exact risks. Nothing is trained.

    gladient reproduce --figure limits

One task that is the query's, no noise, Σ = I, n = τ d examples in d = 10, 100, 1000 features. As d grows the share of
the signal that L layers leave tends to

    1 / (1 + τ + τ² + … + τ^L)            full steps: every example sees all others,
    1 / (1 + τ + τ²/2! + … + τ^L/L!)      causal layers,
    e^{-τ}                                one layer of the delta rule, and causal layers without end.

The exact risks are `landscape.depth.full_steps`, `one_task_share` and `landscape.delta_rule`. Their largest relative
distance from the law over τ has to fall like 1/d: the rate log(gap / gap before) / log(d before / d) is 1, up to terms
of the order of 1 / d before.

Source: derived; Marchenko and Pastur's law for full steps, Charlier's polynomials for causal layers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient import landscape
from gladient.experiments.engine.experiment import Column, Config, Reproducible
from gladient.experiments.engine.results import Judgement
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.landscape.depth import full_steps, one_task_share, proportional_share
from gladient.pictures import INK, family, frame, legend_below, ordered, panel_grid
from gladient.prompts import MultitaskSetting

__all__ = ["ExactLaw", "Limits", "LimitsConfig", "LimitsPoint", "LimitsRow"]

# The rate differs from 1 by the next term of the expansion in 1/d, relative to the first: 0.3 to 3.4 for L ≤ 4, τ ≤ 4.
_NEXT_TERM = 4.0
_LAWS = {"full": "full steps", "causal": "causal layers", "delta": "the delta rule"}


@dataclass(frozen=True, kw_only=True)
class LimitsConfig(Config):
    """What decides the figure's numbers.

    Args:
        d: numbers of features, in growing order.
        tau: examples per feature; τ d is a whole number.
        layers: the most layers.
    """

    d: tuple[int, ...] = (10, 100, 1000)
    tau: tuple[float, ...] = (0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    layers: int = 4


@dataclass(frozen=True)
class LimitsRow:
    """One law for one number of features.

    Attributes:
        figure, law, layers, d: which; layers is 1 for the delta rule.
        gap: the largest |exact / law - 1| over τ.
        tau: where it is.
        rate: log(gap / gap before) / log(d before / d); 0 for the least d.
        before: the number of features before; 0 for the least.
    """

    figure: str
    law: str
    layers: int
    d: int
    gap: float
    tau: float
    rate: float
    before: int


@dataclass(frozen=True)
class LimitsPoint:
    """An exact share for one τ; the law itself for d = 0."""

    law: str
    layers: int
    d: int
    tau: float
    share: float


@dataclass(frozen=True)
class ExactLaw:
    """The exact shares of one law for one number of features.

    Args:
        law: full, causal or delta.
        d: number of features.
        tau: examples per feature.
        layers: the most layers.
    """

    law: str
    d: int
    tau: tuple[float, ...]
    layers: int

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.law}-d{self.d}"

    @property
    def steps(self) -> int:
        """One for each τ."""
        return len(self.tau)

    @property
    def cost(self) -> float:
        """Features are diagonalised, which costs d³."""
        return len(self.tau) * (1.0 + 1e-6 * self.d**3 * (self.law != "causal"))

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each τ and number of layers: the share of the signal that is left."""
        found: list[Measurement] = []
        for i, tau in enumerate(self.tau, start=1):
            found += [
                {"tau": tau, "layers": layers, "share": share}
                for layers, share in enumerate(self._shares(tau), start=1)
            ]
            on_step(i)
        return Outcome(found)

    def _shares(self, tau: float) -> list[float]:
        n, depths = round(tau * self.d), range(1, self.layers + 1)
        if self.law == "causal":
            return [one_task_share(n, self.d, layers) for layers in depths]
        reduced = landscape.reduce(MultitaskSetting.isotropic(n=[n], r=[1.0], d=self.d))
        if self.law == "delta":
            return [landscape.delta_rule(reduced).risk / self.d]
        return [full_steps(reduced, layers).risk / self.d for layers in depths]


Measurements = Mapping[ExactLaw, Sequence[Measurement]]


class Limits(Reproducible[LimitsConfig, ExactLaw, LimitsRow, LimitsPoint]):
    """Laws of n/d beside exact risks."""

    name = "limits"
    title = "Depth in many features: laws of n/d beside exact risks"
    abstract = (
        "One task without noise, τ examples per feature. As the number of features d grows, L full steps leave the "
        "share 1 / (1 + τ + … + τ^L) of the signal, L causal layers 1 / (1 + τ + … + τ^L/L!), the delta rule e^−τ, "
        "which is the limit of causal layers without end. Lines are the laws, points are exact risks; nothing is "
        "trained."
    )
    claim = "laws are approached like 1/d"
    note = (
        "gap: the largest |exact / law − 1| over τ; rate: log(gap / gap before) / log(d before / d), 1 for a gap like "
        f"1/d. The claim asks for a rate within {_NEXT_TERM:g} / (d before) of 1: what the next term in 1/d adds. "
        "The least d claims nothing."
    )
    columns = (
        Column("law"),
        Column("layers", form="d"),
        Column("d", form="d"),
        Column("gap", form=".4%"),
        Column("tau", "τ", "g"),
        Column("rate", form=".3f"),
    )
    row, point = LimitsRow, LimitsPoint
    full = LimitsConfig()
    quick = LimitsConfig(d=(10, 100))

    def work(self, config: LimitsConfig) -> list[ExactLaw]:
        """Exact shares for each law and number of features."""
        return [ExactLaw(law, d, config.tau, config.layers) for law in _LAWS for d in config.d]

    def rows(self, config: LimitsConfig, measured: Measurements) -> list[LimitsRow]:
        """The largest gap of each law, number of layers and of features, and how it fell."""
        rows, last = [], dict[tuple[str, int], LimitsRow]()
        for work in self.work(config):
            for layers in sorted({run["layers"] for run in measured[work]}):
                gaps = {
                    run["tau"]: abs(run["share"] / _law(work.law, run["tau"], layers) - 1.0)
                    for run in measured[work]
                    if run["layers"] == layers
                }
                tau = max(gaps, key=lambda each: gaps[each])
                before = last.get((work.law, layers))
                rate = math.log(before.gap / gaps[tau]) / math.log(work.d / before.d) if before else 0.0
                row = LimitsRow("limits", work.law, layers, work.d, gaps[tau], tau, rate, before.d if before else 0)
                rows.append(row)
                last[work.law, layers] = row
        return rows

    def points(self, config: LimitsConfig, measured: Measurements) -> list[LimitsPoint]:
        """Exact shares, and the laws on a fine grid."""
        found = [LimitsPoint(work.law, d=work.d, **run) for work, runs in measured.items() for run in runs]
        fine = np.linspace(0.0, max(config.tau), 81).tolist()
        depths = {law: range(1, 2 if law == "delta" else config.layers + 1) for law in _LAWS}
        laws = [LimitsPoint(law, L, 0, tau, _law(law, tau, L)) for law in _LAWS for L in depths[law] for tau in fine]
        return [*laws, *found]

    def draw(self, rows: Sequence[LimitsRow], points: Sequence[LimitsPoint]) -> Figure:
        """Full steps and causal layers over τ, each beside the delta rule; the gaps over d."""
        figure, [[full, causal, gaps]] = panel_grid(1, 3, panel=(4.0, 3.6), margin=0.9)
        depths = sorted({row.layers for row in rows})
        colours = dict(zip(depths, ordered(len(depths)), strict=True))
        for law, axis in (("full", full), ("causal", causal)):
            _draw_law(axis, law, points, colours)
            axis.set_title(_LAWS[law], fontsize=11)
            axis.set_xlabel("examples per feature, τ = n / d")
        full.set_ylabel("share of the signal that is left, risk / d")
        _draw_gaps(gaps, rows, colours)
        for axis in (full, causal, gaps):
            frame(axis)
        legend_below(figure, causal, gaps, columns=5)
        return figure

    def judge(self, row: LimitsRow) -> Judgement | None:
        """Whether its gap fell like 1/d; None for the least d."""
        if not row.before:
            return None
        return "reached" if abs(row.rate - 1.0) <= _NEXT_TERM / row.before else "missed"

    def summary(self, judged: Sequence[LimitsRow]) -> list[str]:
        """The largest gap for each number of features, and the rates."""
        lines = []
        for d in sorted({row.d for row in judged}):
            own = [row for row in judged if row.d == d]
            least, most = min(row.rate for row in own), max(row.rate for row in own)
            lines.append(f"d = {d}: largest gap {max(row.gap for row in own):.3%}, rates {least:.3f} to {most:.3f}")
        return lines


def _law(law: str, tau: float, layers: int) -> float:
    return math.exp(-tau) if law == "delta" else proportional_share(tau, layers, full=law == "full")


_MARKERS = "os."  # of 10, 100, 1000 features
_SIZES = (7.0, 4.5, 4.0)


def _draw_law(axis: Axes, law: str, points: Sequence[LimitsPoint], colours: Mapping[int, str]) -> None:
    """The laws of each number of layers as lines, exact shares as points, the delta rule beside them."""
    looks = [(law, L, colour, f"{L} layer{'s' * (L > 1)}") for L, colour in colours.items()]
    for name, layers, colour, label in [*looks, ("delta", 1, family("delta_rule").colour, "delta rule, one layer")]:
        own = [p for p in points if (p.law, p.layers) == (name, layers)]
        line = [p for p in own if p.d == 0]
        style = "--" if name == "delta" else "-"
        axis.plot([p.tau for p in line], [p.share for p in line], style, color=colour, linewidth=1.4, label=label)
        for d, marker, size in zip(sorted({p.d for p in own} - {0}), _MARKERS, _SIZES, strict=False):
            found = [p for p in own if p.d == d]
            axis.plot(
                [p.tau for p in found], [p.share for p in found], marker, color=colour, markersize=size, mfc="none"
            )
    for d, marker, size in zip(sorted({p.d for p in points} - {0}), _MARKERS, _SIZES, strict=False):
        axis.plot([], [], marker, color=INK, markersize=size, mfc="none", label=f"d = {d}, exact")
    axis.set_yscale("log")


def _draw_gaps(axis: Axes, rows: Sequence[LimitsRow], colours: Mapping[int, str]) -> None:
    """Largest gaps over d, beside a slope of -1."""
    for law, style in (("full", "o-"), ("causal", "s-"), ("delta", "P--")):
        for layers in sorted({row.layers for row in rows if row.law == law}):
            own = [row for row in rows if (row.law, row.layers) == (law, layers)]
            colour = family("delta_rule").colour if law == "delta" else colours[layers]
            axis.plot(
                [row.d for row in own], [row.gap for row in own], style, color=colour, markersize=4.5, linewidth=1.0
            )
        axis.plot([], [], style, color=INK, markersize=4.5, linewidth=1.0, label=f"gap, {_LAWS[law]}")
    d = sorted({row.d for row in rows})
    axis.plot(d, [0.3 * max(row.gap for row in rows) * d[0] / each for each in d], ":", color=INK, label="like 1/d")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("number of features, d")
    axis.set_ylabel("largest |exact / law − 1|")
    axis.set_title("distance from the law", fontsize=11)
