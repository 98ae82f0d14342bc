"""The unit of work of a figure: models of one kind at one prompt length, trained side by side and then tested."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gladient.nn import InContextRegressor
from gladient.prompts import MultitaskSetting, PromptSampler
from gladient.training import TrainingConfig, evaluate, save_tensors, train

__all__ = ["ModelSpec", "Record", "Stack", "train_stack"]

Record = dict[str, Any]  # of one trained model: panel, seed, risk and standard_error (both divided by d)


@dataclass(frozen=True)
class ModelSpec:
    """A kind of one-layer model.

    Args:
        gate: its gate family.
        contextual: whether its tokens carry contextual features.
    """

    gate: str
    contextual: bool = True


@dataclass(frozen=True)
class Stack:
    """Models of one kind at one prompt length: one for each seed and panel.

    Args:
        model: the model's name in results.
        spec: what it is.
        n: examples per task.
        d: number of features; Σ = I.
        sigma2: noise variance.
        panels: name and r of each panel.
        seeds: one training run each.
        training: steps, step sizes, schedule.
        test_prompts: fresh prompts that each trained model is tested on.
        device: where to train.
    """

    model: str
    spec: ModelSpec
    n: tuple[int, ...]
    d: int
    sigma2: float
    panels: tuple[tuple[str, tuple[float, ...]], ...]
    seeds: tuple[int, ...]
    training: TrainingConfig
    test_prompts: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        """What files of this stack are called."""
        return f"{self.model}-n{sum(self.n)}"

    def settings(self) -> list[MultitaskSetting]:
        """The setting of each panel."""
        return [MultitaskSetting.isotropic(self.n, r, d=self.d, sigma2=self.sigma2) for _, r in self.panels]

    def build(self) -> tuple[InContextRegressor, PromptSampler]:
        """The untrained models and the prompts that they read."""
        sampler = PromptSampler(self.settings(), contextual=self.spec.contextual, device=self.device)
        model = InContextRegressor(
            sampler.layout.width,
            seeds=[seed for seed in self.seeds for _ in self.panels],
            gate=self.spec.gate,
            value_dim=len(self.n),  # one row of state for each task is enough for any weights
            open_columns=sampler.layout.data_columns,
            delimiter_columns=sampler.layout.delimiter_columns,
            scale=1 / sum(self.n),
        )
        return model.to(self.device), sampler


def train_stack(
    stack: Stack, *, checkpoint: Path, weights: Path, on_step: Callable[[int], None] = lambda step: None
) -> list[Record]:
    """Train and test a stack, resuming from its checkpoint if there is one; keeps the trained weights.

    Returns:
        One record for each panel and seed.
    """
    model, sampler = stack.build()
    run = {key: value for key, value in asdict(stack).items() if key != "training"}

    def errors(model: nn.Module, batch: int, generators: list[torch.Generator]) -> Tensor:
        prompts = sampler.draw(batch, generators)
        return (model(prompts.tokens) - prompts.targets).square()

    fresh = _generators(stack, "train")
    train(
        model,
        lambda model: errors(model, stack.training.batch_size, fresh).mean(1) / stack.d,
        stack.training,
        generators=fresh,
        checkpoint=checkpoint,
        run=run,
        on_step=on_step,
    )
    held_out = _generators(stack, "test")
    result = evaluate(lambda batch: errors(model, batch, held_out) / stack.d, stack.test_prompts)
    save_tensors(weights, dict(model.state_dict()), run={**run, "training": asdict(stack.training)})
    members = [(panel, seed) for seed in stack.seeds for panel, _ in stack.panels]
    return [
        {"panel": panel, "seed": seed, "risk": risk, "standard_error": error}
        for (panel, seed), risk, error in zip(
            members, result.risk.tolist(), result.standard_error.tolist(), strict=True
        )
    ]


def _generators(stack: Stack, purpose: str) -> list[torch.Generator]:
    """A stream of prompts for each seed, the same for every model at the same prompt length."""
    tag = {"train": 0, "test": 1}[purpose]
    entropy = [np.random.SeedSequence([seed, tag, *stack.n]).generate_state(1, np.uint64)[0] for seed in stack.seeds]
    return [torch.Generator(stack.device).manual_seed(int(value >> np.uint64(1))) for value in entropy]
