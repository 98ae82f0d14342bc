"""Depth instead of gates: two layers of plain linear attention that mark the labels at the delimiters.

    gladient reproduce --figure marks

Two uncorrelated tasks of 10 examples each, d = 5, no noise, Σ = I, four (r1, r2). One layer of linear attention weighs
both tasks alike, and so does one with a scalar gate where the useful task comes first. Two layers need no gate: with
delimiters alone as keys and a label as query, the first one adds a multiple of the label to a channel of all later
tokens, and the second one reads labels through that channel, with any weights (`landscape.depth.marked_layers`).

Trained models are those of the depth figure, free in all channels and not told any of this. Shown are their risk, once
more when their lower layer writes labels alone, and without each delimiter's feature; and, read off the weights and the
predictions of the latter models, the mark, how much smaller or larger a label of task 2 is than one of task 1 to the
second layer, and the weights of both tasks beside those of `marked_layers`.

Source: derived.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gladient import landscape
from gladient.experiments.engine.experiment import OF_ZERO, Column, Reproducible
from gladient.experiments.engine.results import GAP_BOUND, Z_BOUND, Judgement, judge_gap, relative_gap
from gladient.experiments.figures.depth.figure import GrownConfig
from gladient.experiments.figures.depth.grown import GrownModels
from gladient.experiments.models.stack import NamedSetting, prompt_streams
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.landscape.depth import best_stack, depth_bound, marked_layers
from gladient.nn import ResidualModel
from gladient.pictures import INK, family, frame, legend_below, panel_grid
from gladient.prompts import MultitaskSetting, PromptLayout

__all__ = ["MarkedModels", "Marks", "MarksConfig", "MarksPoint", "MarksRow", "exact_weights", "fitted", "read_mark"]

_LOOKED_AT = 2**14  # prompts on which weights are fitted: errors of 1%


@dataclass(frozen=True, kw_only=True)
class MarksConfig(GrownConfig):
    """What decides the figure's numbers.

    Args:
        n: examples in a prompt, an even number.
    """

    r: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))
    n: int = 20
    seeds: int = 4
    test_prompts: int = 2**16


@dataclass(frozen=True)
class MarkedModels:
    """Grown models of two layers of linear attention, and what is read off them.

    Args:
        grown: the models.
    """

    grown: GrownModels

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.grown.name}-seed{self.grown.seeds[0]}"

    @property
    def steps(self) -> int:
        """Training steps."""
        return self.grown.steps

    @property
    def cost(self) -> float:
        """That of the training."""
        return self.grown.cost

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """Measurements of the grown models, with the mark and the weights of those that write labels alone."""
        models, weights = self.grown.train(scratch, on_step)
        found, model, sampler = self.grown.test(models), models[2, True], self.grown.sampler()
        streams = prompt_streams("look", self.grown.seeds, sampler)
        with torch.no_grad():
            tokens = sampler.draw(_LOOKED_AT, streams).tokens
            predicted = model(tokens)
        panels = [panel.name for panel in self.grown.panels]
        for one in found:
            if one["layers"] == 2:
                seed = self.grown.seeds.index(one["seed"])
                member = seed * len(panels) + panels.index(one["panel"])
                one["mark"] = read_mark(model.member(member), sampler.layout)
                one["weights"], one["explained"] = fitted(tokens[seed], predicted[member], sampler.layout)
        return Outcome(found, {f"{self.name}-{part}": content for part, content in weights.items()})


def read_mark(model: ResidualModel, layout: PromptLayout) -> float:
    r"""What the first delimiter adds to a later label, as the second layer reads both, relative to the label itself.

    Let the label be 1 and all else of a token 0: the first layer's query meets the first delimiter's key, and its value
    goes into the token. Both are seen by $u = W_v W_o h$ of the second layer and the read-out.
    """
    first, second = model.layers
    y, c = layout.d, layout.delimiter_columns[0]
    one, two = first.attention, second.attention
    with torch.no_grad():
        seen = two.W_v[0] @ second.W_o[0] @ model.readout[0]
        score = one.config.scale * (cast(Tensor, one.W_k)[0, c] @ one.W_q[0, y])
        written = score * one.W_v[0, c] @ first.W_o[0]
        return float(written @ seen / seen[y])


def exact_weights(setting: MultitaskSetting) -> list[float]:
    """Weights of Vy task by task, and of VVy, in the best marked layers, V being causal attention.

    >>> [round(weight, 4) for weight in exact_weights(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5))]
    [0.0842, 0.0357, -0.0011]
    """
    stack = marked_layers(setting).stack
    *tasks, both, second = stack.readout.tolist()
    return [*(task + both for task in tasks), second * float(stack.skips[-1, -2])]


def fitted(tokens: Tensor, predicted: Tensor, layout: PromptLayout) -> tuple[list[float], float]:
    """Weights of Vy of each task and of VVy in predictions, by least squares, and the share that they explain."""
    x, y = tokens[..., : layout.d], tokens[..., layout.d]
    V = (x @ x.mT).tril()  # a token sees itself; delimiters have x = 0
    tasks = y.new_zeros(len(layout.blocks), *y.shape)
    for k, block in enumerate(layout.blocks):
        tasks[k, :, block] = y[:, block]
    first = torch.einsum("bt,kbt->kb", V[:, -1], tasks)
    second = torch.einsum("bt,bts,bs->b", V[:, -1], V, y)
    features = torch.stack([*first, second], 1).double().numpy()
    wanted = predicted.double().numpy()
    weights, *_ = np.linalg.lstsq(features, wanted, rcond=None)
    return weights.tolist(), 1.0 - float(np.var(wanted - features @ weights) / np.var(wanted))


@dataclass(frozen=True)
class MarksRow:
    """One seed of two layers of linear attention on one setting; risks are shares of that of predicting 0.

    Attributes:
        figure, panel, n, seed: which.
        risk, standard_error: on fresh prompts.
        marks: the exact risk of the best marked layers.
        gap: risk / marks - 1.
        labels, labels_error, labels_gap: the same for the model whose first layer writes labels alone.
        bound: what no two layers that write labels alone go below, whatever their gates.
        scalar, wpgd: exact risks of one layer with the best scalar gate, and with the best weights at all.
        without_first, without_second: risk without the feature of the first or the second delimiter.
        mark: what the first delimiter adds to later labels, relative to them.
        share, best_share: weight of task 1 over that of both, in predictions and in the best marked layers.
        explained: share of the predictions' variance that the marked layers' three terms explain.
    """

    figure: str
    panel: str
    n: int
    seed: int
    risk: float
    standard_error: float
    marks: float
    gap: float
    labels: float
    labels_error: float
    labels_gap: float
    bound: float
    scalar: float
    wpgd: float
    without_first: float
    without_second: float
    mark: float
    share: float
    best_share: float
    explained: float

    @property
    def outcome(self) -> Judgement:
        """Whether it is known to reach one layer of any weights, and not to pass the bound by label writes alone."""
        near = judge_gap(self.risk, self.standard_error, self.wpgd, or_below=True)
        passes = self.labels + Z_BOUND * self.labels_error < (1.0 - GAP_BOUND) * self.bound
        return "missed" if near == "reached" and passes else near


@dataclass(frozen=True)
class MarksPoint:
    """An exact risk of one setting, as a share of that of predicting 0."""

    panel: str
    curve: str
    risk: float


_CURVES: Mapping[str, Callable[[MultitaskSetting], float]] = {
    "linear_attention": lambda setting: landscape.linear_attention(setting).risk,
    "scalar_gate": lambda setting: landscape.scalar_gate(setting).risk,
    "value_gate": lambda setting: landscape.optimum(setting).risk,
    "two_steps": lambda setting: best_stack(setting, 2).risk,
    "marks": lambda setting: marked_layers(setting).risk,
    "bound": lambda setting: depth_bound(setting, 2).risk,
}

Measurements = Mapping[MarkedModels, Sequence[Measurement]]


class Marks(Reproducible[MarksConfig, MarkedModels, MarksRow, MarksPoint]):
    """Two trained layers without gates beside the best of one layer with any."""

    name = "marks"
    title = "Depth instead of gates: two layers of linear attention mark the labels at the delimiters"
    abstract = (
        "Two layers of plain linear attention, trained on two uncorrelated tasks of 10 examples each, correlated with "
        "the query's task by (r₁, r₂). The first layer can mark each label at the delimiter between the tasks, so that "
        "the second one weighs the tasks as it likes: without any gate both reach and pass one layer of any gates. "
        "Lines are exact, points are seeds."
    )
    claim = "trained pairs of layers without gates reach one layer of any weights"
    note = (
        f"A model reaches one layer of any weights if its risk is known, with {Z_BOUND:g} standard errors, to be at "
        f"most {GAP_BOUND:.0%} above that, and if it is not known to pass the bound of two gated layers while its "
        "first layer writes labels alone. scalar, any weights: one layer with the best scalar "
        "gate, and with the best weights at all; gap: to the best marked layers; no mark: without the first "
        "delimiter's feature, no second: without the second one's; mark: what the first delimiter adds to later "
        "labels, relative to them; share: weight of task 1 over that of both, in predictions and in the best marked "
        "layers; explained: share of the predictions' variance that the marked layers' three terms explain."
    )
    unit = OF_ZERO
    columns = (
        Column("panel", "(r₁ r₂)"),
        Column("seed", form="d"),
        Column("scalar", form=".4f"),
        Column("wpgd", "any weights", ".4f"),
        Column("marks", "marked layers", ".4f"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("gap", form="+.1%"),
        Column("labels", "labels alone", ".4f"),
        Column("labels_gap", "gap", "+.1%"),
        Column("bound", form=".4f"),
        Column("without_first", "no mark", ".4f"),
        Column("without_second", "no second", ".4f"),
        Column("mark", form="+.2f"),
        Column("share", form=".2f"),
        Column("best_share", "best share", ".2f"),
        Column("explained", form=".1%"),
    )
    row, point = MarksRow, MarksPoint
    full = MarksConfig()
    quick = MarksConfig(r=((0.2, 0.8),), seeds=1)

    def work(self, config: MarksConfig) -> list[MarkedModels]:
        """The models of each seed, all panels side by side."""
        return [
            MarkedModels(replace(config.grown("linear_attention", config.n), seeds=(seed,)))
            for seed in range(config.seeds)
        ]

    def rows(self, config: MarksConfig, measured: Measurements) -> list[MarksRow]:
        """A row for each panel and seed."""
        return [
            _row(panel, run)
            for panel in config.settings(config.n)
            for runs in measured.values()
            for run in runs
            if (run["panel"], run["layers"]) == (panel.name, 2)
        ]

    def points(self, config: MarksConfig, measured: Measurements) -> list[MarksPoint]:
        """Exact risks of each panel."""
        return [
            MarksPoint(panel.name, curve, risk(panel.setting) / panel.setting.M)
            for panel in config.settings(config.n)
            for curve, risk in _CURVES.items()
        ]

    def draw(self, rows: Sequence[MarksRow], points: Sequence[MarksPoint]) -> Figure:
        """Above, risks of each panel; below, what the first layer writes and the weights of task 1."""
        figure, [[risks, shares]] = panel_grid(1, 2, panel=(5.6, 3.6), margin=1.1)
        panels = list(dict.fromkeys(point.panel for point in points))
        for place, panel in enumerate(panels):
            exact = {point.curve: point.risk for point in points if point.panel == panel}
            own = [row for row in rows if row.panel == panel]
            _draw_risks(risks, place, exact, own)
            _draw_shares(shares, place, own)
        for axis in (risks, shares):
            axis.set_xticks(range(len(panels)), [f"({', '.join(panel.split())})" for panel in panels])
            axis.set_xlabel("(r₁, r₂)")
            frame(axis)
        risks.set_ylabel("test risk / d")
        shares.set_ylabel("relative to both, or to the label")
        legend_below(figure, risks, shares, columns=3)
        return figure

    def judge(self, row: MarksRow) -> Judgement:
        """Whether the seed reaches the marked layers."""
        return row.outcome

    def summary(self, judged: Sequence[MarksRow]) -> list[str]:
        """How many pass what one layer can do, and what the marks are worth."""
        below = sum(row.risk + Z_BOUND * row.standard_error < row.wpgd for row in judged)
        uneven = [row.without_first / row.risk - 1 for row in judged if len(set(row.panel.split())) > 1]
        second = [abs(row.without_second / row.risk - 1) for row in judged]
        labels, gaps = [row.labels_gap for row in judged], [row.gap for row in judged]
        reach = sum(judge_gap(row.risk, row.standard_error, row.marks, or_below=True) == "reached" for row in judged)
        apart = max((abs(row.share - row.best_share) for row in judged), default=0.0)
        return [
            f"{below} of {len(judged)} lie below it by over {Z_BOUND:g} standard errors; {reach} reach the best marked "
            f"layers too, with gaps from {min(gaps, default=0.0):+.1%} to {max(gaps, default=0.0):+.1%}",
            f"without the first delimiter's feature risks rise by {min(uneven, default=0.0):.0%} to "
            f"{max(uneven, default=0.0):.0%} where r₁ ≠ r₂; without the second one's they change by up to "
            f"{max(second, default=0.0):.0%}",
            f"with writes to labels alone gaps are {min(labels, default=0.0):+.1%} to {max(labels, default=0.0):+.1%}, "
            f"and shares of task 1 lie within {apart:.2f} of the best",
        ]


def _row(panel: NamedSetting, run: Measurement) -> MarksRow:
    setting = panel.setting
    exact = {name: risk(setting) / setting.M for name, risk in _CURVES.items()}
    one, two, _ = exact_weights(setting)
    first, second, _ = run["weights"]
    return MarksRow(
        figure="marks",
        panel=panel.name,
        n=sum(panel.n),
        seed=run["seed"],
        risk=run["risk"],
        standard_error=run["standard_error"],
        marks=exact["marks"],
        gap=relative_gap(run["risk"], exact["marks"]),
        labels=run["labels"],
        labels_error=run["labels_error"],
        labels_gap=relative_gap(run["labels"], exact["marks"]),
        bound=exact["bound"],
        scalar=exact["scalar_gate"],
        wpgd=exact["value_gate"],
        without_first=run["unmarked1"],
        without_second=run["unmarked2"],
        mark=run["mark"],
        share=first / (first + second),
        best_share=one / (one + two),
        explained=run["explained"],
    )


_LINES = {  # how exact risks are drawn, widest first where they coincide
    "linear_attention": ("one layer of linear attention, exact", "linear_attention", ":", 2.2),
    "scalar_gate": ("one layer, best scalar gate, exact", "scalar_gate", "-", 5.0),
    "value_gate": ("one layer, any weights, exact", "value_gate", "-", 2.2),
    "two_steps": ("two layers of linear attention without marks, exact", "linear_attention", "--", 1.4),
    "marks": ("two layers of linear attention with marks, exact", "linear_attention", "-", 2.2),
    "bound": ("two layers with any gates, exact", "value_gate", "--", 1.4),
}


def _draw_risks(axis: Axes, place: int, exact: Mapping[str, float], rows: Sequence[MarksRow]) -> None:
    """A short line for each exact risk; seeds side by side."""
    for curve, (label, like, style, width) in _LINES.items():
        ends, level = [place - 0.4, place + 0.4], [exact[curve]] * 2
        named = None if place else label
        axis.plot(ends, level, color=family(like).colour, linestyle=style, linewidth=width, label=named, zorder=1)
    looks: dict[str, tuple[str, dict[str, Any]]] = {
        "risk": ("two layers, trained", {"marker": "o", "color": family("linear_attention").colour}),
        "labels": (
            "two layers that write labels alone, trained",
            {"marker": "o", "color": family("linear_attention").colour, "mfc": "white"},
        ),
        "without_first": ("two layers, without the first delimiter's feature", {"marker": "x", "color": INK}),
        "without_second": ("two layers, without the second one's", {"marker": "+", "color": INK}),
    }
    for name, (label, look) in looks.items():
        values = [getattr(row, name) for row in rows]
        axis.plot(_beside(place, rows), values, label=None if place else label, linestyle="none", ms=5.0, **look)


def _draw_shares(axis: Axes, place: int, rows: Sequence[MarksRow]) -> None:
    """Weights of task 1 beside the best, and the marks."""
    colour, named = family("linear_attention").colour, place == 0
    label = "weight of task 1 / both, best marked layers" if named else None
    axis.plot([place - 0.4, place + 0.4], [rows[0].best_share] * 2, color=colour, linewidth=2.2, label=label, zorder=1)
    label = "weight of task 1 / both, in predictions" if named else None
    style: dict[str, Any] = {"linestyle": "none", "ms": 5.0}
    axis.plot(_beside(place, rows), [row.share for row in rows], "o", color=colour, mfc="white", label=label, **style)
    label = "mark: what the first delimiter adds to later labels / label" if named else None
    axis.plot(_beside(place, rows), [row.mark for row in rows], "^", color=INK, label=label, **style)


def _beside(place: int, rows: Sequence[MarksRow]) -> list[float]:
    seeds = max(row.seed for row in rows) + 1
    return [place + 0.6 * ((row.seed + 0.5) / seeds - 0.5) for row in rows]
