"""The paper's figure: trained models on multitask prompts against the exact risk of their gate family.

    gladient reproduce --figure multitask

Two uncorrelated tasks of n/2 examples each, d = 10, no noise, Σ = I; a panel for each (r1, r2); test risk / d over n.
Every trained point of linear attention, scalar gates and value (row) gates is held against its exact value: linear
attention's, the scalar cone's, and the optimum of weighted preconditioned gradient descent (WPGD). GLA without
contextual features has no exact value; it is drawn beside the plateau of gates that stay at 1/2.

Source: arXiv 2504.04308, section 6; the exact values are those of `gladient.landscape`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gladient import landscape
from gladient.experiments._figure import Column, Figure
from gladient.experiments._picture import draw_risk_panels
from gladient.experiments._results import GAP_BOUND, Z_BOUND, ExactPoint, Row, summarise
from gladient.experiments._stacks import ModelSpec, Stack
from gladient.experiments._work import Record
from gladient.landscape import FixedDecay, Rung
from gladient.prompts import MultitaskSetting
from gladient.training import TrainingConfig

__all__ = ["CURVES", "FIGURE", "MODELS", "MultitaskConfig"]

MODELS: dict[str, ModelSpec] = {
    "linear_attention": ModelSpec("none"),
    "scalar_gate": ModelSpec("scalar"),
    "value_gate": ModelSpec("value"),
    "without_context": ModelSpec("scalar", contextual=False),
}

CURVES: dict[str, Callable[[MultitaskSetting], Rung | FixedDecay]] = {
    "linear_attention": landscape.linear_attention,
    "scalar_gate": landscape.scalar_gate,
    "value_gate": landscape.optimum,
    "without_context": landscape.half_gate,
}


@dataclass(frozen=True)
class MultitaskConfig:
    """What decides the figure's numbers.

    Args:
        n: examples in a prompt, even numbers; half of them belong to each task.
        r: (r1, r2) of each panel.
        d: number of features.
        sigma2: noise variance.
        seeds: training runs a point.
        training: steps, step sizes, schedule.
        test_prompts: fresh prompts that each trained model is tested on.
        device: where to train.
    """

    n: tuple[int, ...] = (10, 20, 40, 60, 80, 100)
    r: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2))
    d: int = 10
    sigma2: float = 0.0
    seeds: int = 1
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=600))
    test_prompts: int = 2**17
    device: str = "cpu"

    def __post_init__(self) -> None:
        if isinstance(self.seeds, bool) or self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds!r}; each point needs at least 1 training run")

    @property
    def panels(self) -> tuple[tuple[str, tuple[float, float]], ...]:
        """Name and r of each panel; the name is what `gladient risk --r` takes."""
        return tuple((" ".join(f"{value:g}" for value in r), r) for r in self.r)


def _make_config(*, quick: bool, seeds: int, device: str) -> MultitaskConfig:
    config = MultitaskConfig(seeds=seeds, device=device)
    return replace(config, n=(10, 40)) if quick else config


def _stacks(config: MultitaskConfig) -> list[Stack]:
    return [
        Stack(
            model=model,
            spec=spec,
            n=(n // 2, n // 2),
            d=config.d,
            sigma2=config.sigma2,
            panels=config.panels,
            seeds=tuple(range(config.seeds)),
            training=config.training,
            test_prompts=config.test_prompts,
            device=config.device,
        )
        for n in config.n
        for model, spec in MODELS.items()
    ]


def _rows(config: MultitaskConfig, records: Mapping[Stack, Sequence[Record]]) -> list[Row]:
    return [
        summarise(
            [record for record in records[stack] if record["panel"] == panel],
            figure="multitask",
            panel=panel,
            n=sum(stack.n),
            model=stack.model,
            exact=CURVES[stack.model](_setting(config, sum(stack.n), r)).risk / stack.d,
        )
        for panel, r in config.panels
        for stack in records
    ]


def _curves(config: MultitaskConfig, records: object = None) -> list[ExactPoint]:
    return [
        ExactPoint(panel, n, curve, exact(_setting(config, n, r)).risk / config.d)
        for panel, r in config.panels
        for curve, exact in CURVES.items()
        for n in range(min(config.n), max(config.n) + 1, 2)
    ]


def _setting(config: MultitaskConfig, n: int, r: tuple[float, float]) -> MultitaskSetting:
    return MultitaskSetting.isotropic((n // 2, n // 2), r, d=config.d, sigma2=config.sigma2)


def _judge(row: Row) -> bool | None:
    return None if row.model == "without_context" else row.hit


def _summary(judged: Sequence[Row]) -> list[str]:
    gap, z = max(abs(row.gap) for row in judged), max(abs(row.z) for row in judged)
    return [f"largest |gap| {gap:.2%}, largest |z| {z:.1f}"]


FIGURE = Figure(
    name="multitask",
    title="Gating is weighting: trained models against the exact theory",
    abstract=(
        "One-layer models trained on multitask in-context regression: two uncorrelated tasks of n/2 examples each, "
        "correlated with the query's task by (r₁, r₂). Lines are exact risks, points are trained models with two "
        "standard errors."
    ),
    claim="trained points reach their exact value",
    note=(
        f"A point reaches its exact value within {GAP_BOUND:.0%} or {Z_BOUND:g} standard errors. "
        "Risks are divided by d. gap = risk / exact − 1; z = (risk − exact) / standard error. Models in grey "
        "have no exact value of their own: theirs is drawn for comparison."
    ),
    columns=(
        Column("panel", "(r₁ r₂)"),
        Column("n", form="d"),
        Column("model"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("seeds", form="d"),
        Column("exact", form=".4f"),
        Column("gap", form="+.2%"),
        Column("z", form="+.1f"),
    ),
    make_config=_make_config,
    work=_stacks,
    rows=_rows,
    curves=_curves,
    draw=draw_risk_panels,
    judge=_judge,
    summary=_summary,
)
