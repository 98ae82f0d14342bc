"""Learned token weights beside the best ones: what a trained layer does to each example of its prompt.

    gladient reproduce --figure weights

Models of the multitask figure at one prompt length are trained, and `equivalence.extract` reads the algorithm off each:
the weight of every example, the preconditioner P, and the share of the predictions' variance that one step of weighted
preconditioned gradient descent with fixed weights explains. Scalar gates are held against the best weights
that they can make, value gates against ω*.

Source: arXiv 2504.04308, Theorem 1 read backwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gladient.equivalence import Factor, extract, residual_model
from gladient.experiments._figure import Column, Figure
from gladient.experiments._stacks import Stack, prompt_streams
from gladient.experiments._weights_picture import draw_weights
from gladient.experiments._work import Record
from gladient.experiments.multitask import CURVES, MODELS
from gladient.landscape import Rung
from gladient.training import TrainingConfig

__all__ = ["FIGURE", "Reading", "WeightPoint", "WeightRow", "WeightsConfig"]

EXPLAINED, COSINE = 0.98, 0.99


@dataclass(frozen=True)
class WeightsConfig:
    """What decides the figure's numbers.

    Args:
        models: names in `multitask.MODELS` that have an exact optimum.
        n: examples of each task.
        r: (r1, r2) of each panel.
        d: number of features.
        seeds: training runs a point.
        training: steps, step sizes, schedule.
        test_prompts: fresh prompts that each trained model is tested on.
        read_prompts: fresh prompts that its algorithm is read off.
        device: where to train.
    """

    models: tuple[str, ...] = ("scalar_gate", "value_gate")
    n: tuple[int, ...] = (10, 10)
    r: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))
    d: int = 10
    seeds: int = 3
    training: TrainingConfig = field(default_factory=TrainingConfig)
    test_prompts: int = 2**16
    read_prompts: int = 2000
    device: str = "cpu"

    def __post_init__(self) -> None:
        if isinstance(self.seeds, bool) or self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds!r}; each point needs at least 1 training run")


@dataclass(frozen=True)
class WeightRow:
    """One panel and kind of model: means over the seeds, and the least of them.

    Attributes:
        figure, panel, n, model, seeds: which point.
        explained: share of the predictions' variance that the extracted algorithm explains.
        cos_omega: cosine of its task weights with the best ones.
        cos_p: cosine of its preconditioner with the best one.
        explained_least, cos_omega_least, cos_p_least: of the worst seed.
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
    def hit(self) -> bool:
        """Whether every seed is WPGD with the best weights, to the figure's bounds."""
        return self.explained_least >= EXPLAINED and self.cos_omega_least >= COSINE


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


@dataclass(frozen=True)
class Reading:
    """Trains a stack and reads the algorithm off its members.

    Args:
        stack: the models.
        prompts: how many fresh prompts they are read on.
    """

    stack: Stack
    prompts: int

    @property
    def name(self) -> str:
        """The stack's name."""
        return self.stack.name

    @property
    def steps(self) -> int:
        """Training steps."""
        return self.stack.steps

    @property
    def cost(self) -> float:
        """That of the training."""
        return self.stack.cost

    def run(self, *, checkpoint: Path, weights: Path, on_step: Callable[[int], None]) -> list[Record]:
        """The stack's records and what was read: shares, P, and the weight of each task and example."""
        records = self.stack.run(checkpoint=checkpoint, weights=weights, on_step=on_step)
        return [{**record, **found} for record, found in zip(records, self._read(weights), strict=True)]

    def _read(self, weights: Path) -> list[Record]:
        regressor, sampler = self.stack.load(weights)
        model = residual_model(regressor.double().cpu(), sampler.layout)
        tokens = sampler.draw(self.prompts, prompt_streams("look", self.stack.seeds, sampler)).tokens.double().cpu()
        panels = len(self.stack.panels)
        found = [
            extract(model.member(member), tokens[member // panels, None], sampler.layout)
            for member in range(len(model.readout))
        ]
        return [
            {"explained": one.explained, "moving_gates": one.moving_gates, **_listed(one.factors[0])} for one in found
        ]


def _listed(factor: Factor) -> Record:
    return {"omega": factor.omega.tolist(), "examples": factor.examples.tolist(), "P": factor.P.tolist()}


def _make_config(*, quick: bool, seeds: int, device: str) -> WeightsConfig:
    config = WeightsConfig(seeds=seeds, device=device)
    return replace(config, models=("value_gate",)) if quick else config


def _work(config: WeightsConfig) -> list[Reading]:
    return [
        Reading(
            Stack(
                model=model,
                spec=MODELS[model],
                n=config.n,
                d=config.d,
                sigma2=0.0,
                panels=tuple((" ".join(f"{value:g}" for value in r), r) for r in config.r),
                seeds=tuple(range(config.seeds)),
                training=config.training,
                test_prompts=config.test_prompts,
                device=config.device,
            ),
            config.read_prompts,
        )
        for model in config.models
    ]


def _rows(config: WeightsConfig, records: Mapping[Any, Sequence[Record]]) -> list[WeightRow]:
    return [_row(reading.stack, panel, best, runs) for reading, panel, best, runs in _points(records)]


def _curves(config: WeightsConfig, records: Mapping[Any, Sequence[Record]]) -> list[WeightPoint]:
    return [
        point
        for reading, panel, best, runs in _points(records)
        for point in _weight_points(reading.stack, panel, best, runs)
    ]


def _points(records: Mapping[Any, Sequence[Record]]) -> list[tuple[Reading, str, Rung, list[Record]]]:
    """For each kind of model and panel: the best weights, and the record of each seed."""
    return [
        (reading, panel, _best(reading.stack.model, setting), [run for run in runs if run["panel"] == panel])
        for reading, runs in records.items()
        for (panel, _), setting in zip(reading.stack.panels, reading.stack.settings(), strict=True)
    ]


def _best(model: str, setting: Any) -> Rung:
    rung = CURVES[model](setting)
    assert isinstance(rung, Rung)
    return rung


def _row(stack: Stack, panel: str, best: Rung, runs: Sequence[Record]) -> WeightRow:
    shares = [run["explained"] for run in runs]
    omega = [cosine(run["omega"], best.omega) for run in runs]
    P = [cosine(run["P"], best.P) for run in runs]
    return WeightRow(
        figure="weights",
        panel=panel,
        n=sum(stack.n),
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


def _weight_points(stack: Stack, panel: str, best: Rung, runs: Sequence[Record]) -> list[WeightPoint]:
    exact = np.repeat(best.omega, stack.n)
    learned = np.array([run["examples"] for run in runs])
    learned = learned * (np.linalg.norm(exact) / np.linalg.norm(learned, axis=1, keepdims=True))
    learned = learned * np.where(learned @ exact < 0, -1.0, 1.0)[:, None]
    tasks = np.repeat(np.arange(len(stack.n)), stack.n)
    return [
        WeightPoint(panel, stack.model, int(task), i, float(of.mean()), float(of.min()), float(of.max()), float(aim))
        for i, (task, of, aim) in enumerate(zip(tasks, learned.T, exact, strict=True))
    ]


def cosine(a: Any, b: Any) -> float:
    """Cosine of the angle between two arrays up to sign, the scale symmetry of (P, ω).

    >>> cosine([1.0, 0.0], [-2.0, 0.0])
    1.0
    """
    a, b = np.ravel(a), np.ravel(b)
    return float(abs(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def _judge(row: WeightRow) -> bool:
    return row.hit


FIGURE = Figure(
    name="weights",
    title="Learned token weights beside the best ones",
    abstract=(
        "What the gates of trained one-layer models make of each example in the prompt: filled, the exact weights; "
        "points, the weights read off trained models, with the range over their seeds."
    ),
    claim="kinds of model are WPGD with the best weights",
    note=(
        f"One step of WPGD with fixed weights must explain at least {EXPLAINED:.0%} of the variance of each seed's "
        f"predictions, and these weights must have a cosine of at least {COSINE} with the best ones. Means over the "
        "seeds, and the least of them."
    ),
    columns=(
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
    ),
    make_config=_make_config,
    work=_work,
    rows=_rows,
    curves=_curves,
    draw=draw_weights,
    judge=_judge,
    row=WeightRow,
    point=WeightPoint,
    seeds=3,
)
