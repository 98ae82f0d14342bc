"""Models of one shape that read the same prompts, trained side by side and then tested."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gladient.experiments._work import Record
from gladient.nn import Gate, InContextRegressor, LayerConfig
from gladient.prompts import MultitaskSetting, PromptSampler
from gladient.training import TestRisk, TrainingConfig, evaluate, load_tensors, save_tensors, train

__all__ = ["ModelSpec", "Stack", "prompt_streams", "train_and_test"]


@dataclass(frozen=True)
class ModelSpec:
    """A kind of one-layer model.

    Args:
        gate: its gate family.
        contextual: whether its tokens carry contextual features.
    """

    gate: Gate
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

    @property
    def steps(self) -> int:
        """Training steps."""
        return self.training.steps

    @property
    def cost(self) -> float:
        """Tokens times channels."""
        channels = {"none": 1, "scalar": 2, "value": 2 * len(self.n), "key": 2 * self.d}[self.spec.gate]
        return float(self.training.steps * (sum(self.n) + 20) * (4 + channels) * len(self.seeds))

    def settings(self) -> list[MultitaskSetting]:
        """The setting of each panel."""
        return [MultitaskSetting.isotropic(self.n, r, d=self.d, sigma2=self.sigma2) for _, r in self.panels]

    def build(self) -> tuple[InContextRegressor, PromptSampler]:
        """The untrained models and the prompts that they read."""
        sampler = PromptSampler(self.settings(), contextual=self.spec.contextual, device=self.device)
        config = LayerConfig(
            gate=self.spec.gate,
            value_dim=len(self.n),  # one row of state for each task is enough for any weights
            open_columns=sampler.layout.data_columns,
            delimiter_columns=sampler.layout.delimiter_columns,
            scale=1 / sum(self.n),
        )
        model = InContextRegressor(
            sampler.layout.width, config, seeds=[seed for seed in self.seeds for _ in self.panels]
        )
        return model.to(self.device), sampler

    def run(
        self, *, checkpoint: Path, weights: Path, on_step: Callable[[int], None] = lambda step: None
    ) -> list[Record]:
        """One record for each panel and seed: panel, seed, risk and standard_error, both divided by d."""
        model, sampler = self.build()
        result = train_and_test(
            model,
            sampler,
            seeds=self.seeds,
            unit=float(self.d),
            training=self.training,
            test_prompts=self.test_prompts,
            run=self._described(),
            checkpoint=checkpoint,
            weights=weights,
            on_step=on_step,
        )
        members = [(panel, seed) for seed in self.seeds for panel, _ in self.panels]
        return [
            {"panel": panel, "seed": seed, "risk": risk, "standard_error": error}
            for (panel, seed), risk, error in zip(
                members, result.risk.tolist(), result.standard_error.tolist(), strict=True
            )
        ]

    def load(self, weights: Path) -> tuple[InContextRegressor, PromptSampler]:
        """The trained models and the prompts that they read."""
        model, sampler = self.build()
        tensors, _ = load_tensors(weights, run={**self._described(), "training": asdict(self.training)})
        model.load_state_dict(tensors)
        return model, sampler

    def _described(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "training"}


def train_and_test(
    model: nn.Module,
    sampler: PromptSampler,
    *,
    seeds: Sequence[int],
    unit: float,
    training: TrainingConfig,
    test_prompts: int,
    run: Mapping[str, Any],
    checkpoint: Path,
    weights: Path,
    on_step: Callable[[int], None],
) -> TestRisk:
    """Train a stack, resuming from its checkpoint if there is one, keep its weights and test it on fresh prompts.

    Args:
        model: the stack: for each seed in turn a member for each of the sampler's settings.
        sampler: the prompts.
        seeds: of the prompts' streams, one for each group of members.
        unit: what risks are divided by.
        training: steps, step sizes, schedule.
        test_prompts: fresh prompts that each trained member is tested on.
        run: all else that decides the result, as JSON values.
        checkpoint: see `Work.run`.
        weights: see `Work.run`.
        on_step: see `Work.run`.
    """

    def errors(model: nn.Module, batch: int, generators: list[torch.Generator]) -> Tensor:
        prompts = sampler.draw(batch, generators)
        return (model(prompts.tokens) - prompts.targets).square()

    fresh = prompt_streams("train", seeds, sampler)
    train(
        model,
        lambda model: errors(model, training.batch_size, fresh).mean(1) / unit,
        training,
        generators=fresh,
        checkpoint=checkpoint,
        run=run,
        on_step=on_step,
    )
    held_out = prompt_streams("test", seeds, sampler)
    result = evaluate(lambda batch: errors(model, batch, held_out) / unit, test_prompts)
    save_tensors(weights, dict(model.state_dict()), run={**run, "training": asdict(training)})
    return result


def prompt_streams(purpose: str, seeds: Sequence[int], sampler: PromptSampler) -> list[torch.Generator]:
    """A stream of prompts for each seed, the same for every model at the same prompt length.

    Args:
        purpose: train, test or look; streams of two purposes have nothing in common.
        seeds: one each.
        sampler: what draws from them.
    """
    tag, n = {"train": 0, "test": 1, "look": 2}[purpose], sampler.layout.n
    entropy = [np.random.SeedSequence([seed, tag, *n]).generate_state(1, np.uint64)[0] for seed in seeds]
    device = sampler.template.device
    return [torch.Generator(device).manual_seed(int(value >> np.uint64(1))) for value in entropy]
