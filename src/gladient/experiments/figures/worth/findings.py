"""From what was measured of the models of words to rows: means over seeds and texts, with their errors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from gladient._types import Array
from gladient.experiments.figures.worth.knocking import KNOCKED, StoryAnswers
from gladient.experiments.figures.worth.trained import KINDS
from gladient.experiments.figures.worth.work import TrainedWords
from gladient.experiments.work import Measurement

__all__ = ["HeadPoint", "Measured", "WorthRow", "found_rows", "head_points", "mean_error"]

Measured = Mapping[TrainedWords | StoryAnswers, Sequence[Measurement]]
Found = tuple[str, Array]  # a measure's name, and its values, [seeds, texts] or [seeds]
_KEPT = {"fixed": "kept by decays, retrained", "fitted": "kept by decays, fitted"}
_LOST = {"fixed": "rise, retrained with decays", "fitted": "rise, with fitted decays"}
_LOST |= {"none": "rise, retrained without gates", "no_erase": "rise, retrained without erasing"}
_TAKEN = {"no_gate": "rise, gates taken away", "no_erase": "rise, erasing taken away"}
_LEAST = 2.0  # standard errors that a gain has to be above 0 for shares of it to mean anything


@dataclass(frozen=True)
class WorthRow:
    """One number of a family.

    Attributes:
        figure, family, measure: which; in nats per word, or as the measure says.
        value: mean over seeds and texts.
        standard_error: of seeds and of texts, added in quadrature.
        seeds: trained models.
    """

    figure: str
    family: str
    measure: str
    value: float
    standard_error: float
    seeds: int


@dataclass(frozen=True)
class HeadPoint:
    """One head: what its gate is worth over a fitted decay, in nats per word, and how many words it remembers."""

    family: str
    seed: int
    layer: int
    head: int
    memory_length: float
    worth: float
    standard_error: float


def found_rows(measured: Measured) -> list[WorthRow]:
    """All rows, family by family; measures that a family lacks have none."""
    return [
        WorthRow("worth", kind, name, *mean_error(values), len(values))
        for kind in KINDS
        for name, values in (*_losses(measured, kind), *_heads(measured, kind), *_names(measured, kind))
    ]


def mean_error(values: Array) -> tuple[float, float]:
    """The mean of [seeds] or [seeds, texts], and its standard error over both: texts are the same for every seed.

    >>> mean_error(np.array([[1.0, 3.0], [1.0, 3.0]]))
    (2.0, 1.0)
    """
    table = values.reshape(len(values), -1)
    variances = [each.var(ddof=1) / len(each) for each in (table.mean(1), table.mean(0)) if len(each) > 1]
    return float(table.mean()), float(np.sqrt(sum(variances)))


def head_points(measured: Measured) -> list[HeadPoint]:
    """Every head of the models with gates."""
    return [
        HeadPoint(work.kind, work.seed, one["layer"], one["head"], one["memory_length"], *one["fixed"])
        for work, found in measured.items()
        for one in found
        if one["what"] == "head"
    ]


def _losses(measured: Measured, kind: str) -> Iterator[Found]:
    """The loss with gates, what is above it, and the shares of the gain of gates that decays keep."""
    loss = {variant: _texts(measured, kind, variant, "loss") for variant in ("gates", "fixed", "none", "no_erase")}
    loss["fitted"] = _texts(measured, kind, "gates", "fitted")
    seeds = min(len(loss[name]) for name in ("gates", "fixed", "none", "fitted"))
    if not seeds:
        return
    yield "loss, with gates", loss["gates"]
    for name, told in _LOST.items():
        if count := min(seeds, len(loss[name])):
            yield told, loss[name][:count] - loss["gates"][:count]
    gain = loss["none"][:seeds] - loss["gates"][:seeds]
    mean, error = mean_error(gain)
    if mean > _LEAST * error:
        for name, told in _KEPT.items():
            kept = loss["none"][:seeds] - loss[name][:seeds]
            share = kept.mean() / mean
            yield told, share + (kept - share * gain) / mean  # to first order in the errors of both


def _heads(measured: Measured, kind: str) -> Iterator[Found]:
    """What is lost where a trained model's gates or erasing are taken away; worth and memory of heads."""
    together = _measurements(measured, kind, "together")
    for name, told in _TAKEN.items():
        rises = [one[name][0] for one in together if one[name] is not None]
        if rises:
            yield told, np.array(rises)
    points = [point for point in head_points(measured) if point.family == kind]
    seeds = sorted({point.seed for point in points})
    if seeds:
        seen = [[point.worth > 2 * point.standard_error for point in points if point.seed == seed] for seed in seeds]
        yield "share of heads worth over 2 errors", np.array([np.mean(each) for each in seen])
        yield "rank correlation of worth and memory", np.array([_rank(points, seed) for seed in seeds])


def _rank(points: Sequence[HeadPoint], seed: int) -> float:
    own = [point for point in points if point.seed == seed]
    return float(spearmanr([point.worth for point in own], [point.memory_length for point in own]).statistic)


def _names(measured: Measured, kind: str) -> Iterator[Found]:
    """How often a name that stood in the text before is right, and what knock-outs take from it."""
    for what in ("names", "stories"):
        found = _measurements(measured, kind, what)
        logs, right = (
            {name: np.array([one[key] for one in found if one["without"] == name]) for name in ("nothing", *KNOCKED)}
            for key in ("logs", "right")
        )
        if found:
            yield f"{what}, right", right["nothing"]
            yield f"{what}, right without source", right["source"]
            for name in KNOCKED:
                yield f"{what}, rise without {name}", logs["nothing"] - logs[name]


def _texts(measured: Measured, kind: str, variant: str, what: str) -> Array:
    """[seeds, texts]."""
    return np.array(
        [
            one["losses"]
            for work, found in measured.items()
            for one in found
            if (work.kind, work.variant, one["what"]) == (kind, variant, what)
        ]
    )


def _measurements(measured: Measured, kind: str, what: str) -> list[Measurement]:
    return [one for work, found in measured.items() for one in found if work.kind == kind and one["what"] == what]
