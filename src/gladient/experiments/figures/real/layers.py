"""One layer of gated linear attention trained on the same prompts, a member for each fold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gladient._types import Array
from gladient.data import Prompt
from gladient.data.folds import folds_of
from gladient.experiments.figures.real.sets import SETS, in_order
from gladient.experiments.figures.real.work import BASE, estimate, measured
from gladient.experiments.models.kinds import MODELS
from gladient.experiments.work import OnStep, Outcome
from gladient.nn import InContextRegressor
from gladient.prompts import PromptLayout
from gladient.training import TrainingConfig, pack_tensors, train

__all__ = ["TRAINED", "TrainedLayers"]

TRAINED = (BASE, "scalar_gate", "value_gate", "scalar_gate, roles alone", "value_gate, roles alone")
"""The trained layers, by name."""


@dataclass(frozen=True)
class TrainedLayers:
    """Layers without gates, with gates, and with gates that see roles alone, on one data set in one order.

    Args:
        data: a name in `SETS`.
        order: one of `ORDERS`.
        n: examples of each source that a prompt shows.
        folds: contiguous blocks of clusters, each held out once; each has a member of its own.
        training: steps, step sizes, schedule; a step draws that many prompts for each fold.
    """

    data: str
    order: str
    n: int
    folds: int
    training: TrainingConfig

    @property
    def name(self) -> str:
        """What files are called."""
        return f"trained-{self.data}-{self.order.replace(' ', '-')}-n{self.n}"

    @property
    def steps(self) -> int:
        """Training steps of all models."""
        return len(TRAINED) * self.training.steps

    @property
    def cost(self) -> float:
        """Seconds, roughly."""
        return 0.02 * self.steps

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each model; gains are over the trained layer without gates."""
        real = in_order(SETS[self.data](), self.order)
        parts = folds_of(real.clusters, self.folds, real.gap)
        fitted = [estimate(real, rows) for rows, _ in parts]
        white = [[each.transform.white(prompt) for prompt in real.prompts] for each in fitted]
        layout = PromptLayout((self.n,) * len(real.prompts[0].sources), white[0][0].d)
        pools = [_Pool([prompts[i] for i in rows], layout) for prompts, (rows, _) in zip(white, parts, strict=True)]
        errors: dict[str, Array] = {}
        weights = {}
        for i, model in enumerate(TRAINED):
            trained = self._train(model, layout, pools, partial(_later, on_step, i * self.training.steps))
            errors[model] = np.empty(len(real.prompts))
            for fold, (_, test) in enumerate(parts):
                errors[model][test] = [_error(trained, fold, layout, white[fold][row]) for row in test]
            weights[f"{self.name}-{model.replace(', ', '-').replace(' ', '-')}"] = pack_tensors(
                dict(trained.state_dict()), run={**asdict(self), "model": model}
            )
        return Outcome(
            [
                {"n": self.n, "kind": "trained", "model": model, "omega": [], "omega_error": []}
                | measured(found, errors[BASE], real.clusters)
                for model, found in errors.items()
            ],
            weights,
        )

    def _train(self, name: str, layout: PromptLayout, pools: Sequence["_Pool"], on_step: OnStep) -> InContextRegressor:
        family, _, alone = name.partition(", ")
        model = MODELS[family].build(layout, list(range(self.folds)), key_channels=1)
        if alone:
            see_roles_alone(model, layout)
        draw = np.random.default_rng(0)

        def loss(model: nn.Module) -> Tensor:
            batches = [pool.draw(self.training.batch_size, draw) for pool in pools]
            tokens, targets = (torch.stack(part) for part in zip(*batches, strict=True))
            errors: Tensor = (model(tokens) - targets).square().mean(1)
            return errors

        train(model, loss, self.training, on_step=on_step)
        return model


def see_roles_alone(model: InContextRegressor, layout: PromptLayout) -> None:
    """Keep the gates blind to x and y, in training too."""
    gate = model.layer.gate
    if gate is None:
        return
    sees = torch.ones(layout.width, 1)
    sees[: layout.d + 1] = 0
    with torch.no_grad():
        gate.weight.mul_(sees)
    gate.weight.register_hook(lambda slope: slope * sees)


class _Pool:
    """Training prompts, from which examples and a query are drawn afresh each time."""

    def __init__(self, prompts: Sequence[Prompt], layout: PromptLayout) -> None:
        self.layout = layout
        self.X = np.stack([[X for X, _ in prompt.sources] for prompt in prompts])  # [G, K, N, d]
        self.y = np.stack([[y for _, y in prompt.sources] for prompt in prompts])
        self.queries = [prompt.query for prompt in prompts]

    def draw(self, count: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Tokens [count, T, D] and targets [count]."""
        rows, n = draw.integers(len(self.y), size=count), self.layout.n[0]
        chosen = draw.random((count, *self.y.shape[1:])).argsort(2)[:, :, :n]
        X = np.take_along_axis(self.X[rows], chosen[..., None], axis=2)
        y = np.take_along_axis(self.y[rows], chosen, axis=2)
        picked = [int(share * len(self.queries[row][1])) for row, share in zip(rows, draw.random(count), strict=True)]
        query = np.stack([self.queries[row][0][i] for row, i in zip(rows, picked, strict=True)])
        target = np.array([self.queries[row][1][i] for row, i in zip(rows, picked, strict=True)])
        return _tokens(self.layout, X, y, query), torch.as_tensor(target, dtype=torch.float32)


def _tokens(layout: PromptLayout, X: Array, y: Array, query: Array) -> Tensor:
    """Prompts as token matrices: X [B, K, n, d], y [B, K, n], query [B, d]."""
    tokens = np.repeat(layout.template[None], len(query), 0)
    for k, block in enumerate(layout.blocks):
        tokens[:, block, : layout.d], tokens[:, block, layout.d] = X[:, k], y[:, k]
    tokens[:, -1, : layout.d] = query
    return torch.as_tensor(tokens, dtype=torch.float32)


def _error(model: InContextRegressor, fold: int, layout: PromptLayout, prompt: Prompt) -> float:
    """Mean squared error of one member on a prompt's queries; the first n examples of each source are shown."""
    (query, target), n = prompt.query, layout.n[0]
    X = np.stack([X[:n] for X, _ in prompt.sources])[None].repeat(len(target), 0)
    y = np.stack([y[:n] for _, y in prompt.sources])[None].repeat(len(target), 0)
    with torch.no_grad():
        found = model(_tokens(layout, X, y, query))[fold].numpy()
    return float(np.mean((target - found) ** 2))


def _later(on_step: OnStep, before: int, done: int) -> None:
    on_step(before + done)
