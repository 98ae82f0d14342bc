"""Models of one kind that read the same prompts, trained side by side and then tested."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gladient.experiments.models.kinds import MODELS, TOKENS, find_model
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.nn import InContextRegressor
from gladient.prompts import MultitaskSetting, PromptSampler, correlation_matrix
from gladient.training import (
    History,
    TrainingConfig,
    TrainingDivergedError,
    evaluate,
    load_tensors,
    pack_tensors,
    train,
)

__all__ = [
    "NamedSetting",
    "TrainedStack",
    "StackWork",
    "is_diverged",
    "one_layer",
    "prompt_streams",
    "measurement",
    "spaced",
]

_NAMED = 8  # correlations that a panel's name has room for
_DIVERGED = 10.0  # times the risk of predicting 0, where every model starts


def spaced(values: Sequence[float | int]) -> str:
    """Numbers as `gladient risk` takes them.

    >>> spaced([0.2, 1.0])
    '0.2 1'
    """
    return " ".join(f"{value:g}" for value in values)


@dataclass(frozen=True)
class NamedSetting:
    """A setting as JSON values, and what it is called.

    Args:
        name: the panel's name in results.
        n: examples per task.
        r: correlation of each task with the query's.
        spectrum: variances of the features, d numbers.
        rho: correlations between tasks, see `prompts.correlation_matrix`.
        sigma2: noise variance.
    """

    name: str
    n: tuple[int, ...]
    r: tuple[float, ...]
    spectrum: tuple[float, ...]
    rho: tuple[float, ...] = ()
    sigma2: float = 0.0

    @classmethod
    def of(cls, setting: MultitaskSetting) -> "NamedSetting":
        """A setting in the eigenbasis of Σ, where the problem is the same; its name lists r, of many tasks the ends."""
        ends = f"{setting.r[0]:g} … {setting.r[-1]:g} ({setting.K} tasks)"
        return cls(
            name=spaced(setting.r.tolist()) if setting.K <= _NAMED else ends,
            n=tuple(setting.n.tolist()),
            r=tuple(setting.r.tolist()),
            spectrum=tuple(np.linalg.eigvalsh(setting.Sigma).clip(0)[::-1].tolist()),
            rho=tuple(setting.R[np.triu_indices(setting.K, 1)].tolist()),
            sigma2=setting.sigma2,
        )

    @classmethod
    def isotropic(cls, n: tuple[int, ...], r: tuple[float, ...], d: int) -> "NamedSetting":
        """Uncorrelated tasks, d features of variance 1, no noise; its name is what `gladient risk --r` takes."""
        return cls(spaced(r), n, r, (1.0,) * d)

    @property
    def setting(self) -> MultitaskSetting:
        """The setting."""
        R = correlation_matrix(self.rho, len(self.n))
        return MultitaskSetting(self.n, R, self.r, np.diag(self.spectrum), self.sigma2)


@dataclass(frozen=True)
class TrainedStack:
    """Models of one kind: one for each seed and panel.

    Args:
        name: what its files are called.
        model: a name in `MODELS`.
        panels: settings that differ in r alone.
        seeds: one training run each.
        training: steps, step sizes, schedule; some kinds take smaller steps for their gates.
        test_prompts: fresh prompts that each trained model is tested on.
        key_channels: channels of a preset's keys per feature.
        device: where to train.

    Raises:
        ValueError: if there is no such model.

    >>> setting = NamedSetting.isotropic((3, 2), (0.2, 0.8), 4)
    >>> TrainedStack("mine", "transformer", (setting,), (0,), TrainingConfig(), 100)
    Traceback (most recent call last):
    ValueError: there is no model 'transformer'; choose among linear_attention, scalar_gate, ...
    """

    name: str
    model: str
    panels: tuple[NamedSetting, ...]
    seeds: tuple[int, ...]
    training: TrainingConfig
    test_prompts: int
    key_channels: int = 4
    device: str = "cpu"

    def __post_init__(self) -> None:
        find_model(self.model)

    @property
    def n(self) -> int:
        """Examples in a prompt."""
        return sum(self.panels[0].n)

    @property
    def steps(self) -> int:
        """Training steps."""
        return self.training.steps

    @property
    def cost(self) -> float:
        """Tokens times width, over all steps and members."""
        tokens = (self.n + 20) * (len(self.panels[0].spectrum) + 4)
        members = len(self.seeds) * (len(self.panels) + 4)
        return MODELS[self.model].cost * tokens * members * self.steps * self.training.batch_size

    def build(self) -> tuple[Any, PromptSampler]:
        """One module with the untrained models, for each seed one for each panel, and the prompts that they read."""
        kind = MODELS[self.model]
        settings = [panel.setting for panel in self.panels]
        sampler = PromptSampler(settings, device=self.device, **TOKENS[kind.tokens])
        members = [seed for seed in self.seeds for _ in self.panels]
        return kind.build(sampler.layout, members, key_channels=self.key_channels).to(self.device), sampler

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each panel and seed; risk and standard_error are in units of the risk of predicting 0."""
        model, sampler = self.build()
        self.fit(model, sampler, scratch, on_step)
        return Outcome(self.test(model, sampler), self.pack(model))

    def fit(
        self, model: nn.Module, sampler: PromptSampler, scratch: Path, on_step: OnStep = lambda step: None
    ) -> History | None:
        """Train, resuming from a checkpoint if there is one; None if all members diverged."""
        kind, M = MODELS[self.model], self.panels[0].setting.M
        training = replace(self.training, gate_learning_rate=kind.gate_rate or self.training.gate_learning_rate)
        fresh = prompt_streams("train", self.seeds, sampler)
        try:
            return train(
                model,
                lambda model: _errors(model, sampler, training.batch_size, fresh).mean(1) / M,
                training,
                generators=fresh,
                checkpoint=scratch / "checkpoint.safetensors",
                run=self._run(),
                on_step=on_step,
            )
        except TrainingDivergedError:
            return None

    def test(self, model: nn.Module, sampler: PromptSampler) -> list[Measurement]:
        """The measurements of trained models."""
        held_out, M = prompt_streams("test", self.seeds, sampler), self.panels[0].setting.M
        found = evaluate(lambda batch: _errors(model, sampler, batch, held_out) / M, self.test_prompts)
        members = [{"panel": panel.name, "seed": seed} for seed in self.seeds for panel in self.panels]
        return [
            {**member, **measurement(risk, error)}
            for member, risk, error in zip(members, found.risk.tolist(), found.standard_error.tolist(), strict=True)
        ]

    def pack(self, model: nn.Module) -> dict[str, bytes]:
        """The models' weights, by the name of their file."""
        return {self.name: pack_tensors(dict(model.state_dict()), run=asdict(self))}

    def load(self, weights: Path) -> tuple[Any, PromptSampler]:
        """The trained models from the file that holds their weights, and the prompts that they read."""
        model, sampler = self.build()
        model.load_state_dict(load_tensors(weights, run=asdict(self))[0])
        return model, sampler

    def _run(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "training"}


@dataclass(frozen=True)
class StackWork(ABC):
    """Work that trains a stack and then does more with it.

    Args:
        stack: the models.
    """

    stack: TrainedStack

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

    @abstractmethod
    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """See `Work.run`."""


def one_layer(model: nn.Module) -> InContextRegressor:
    """A stack's models as the one layer that they are, for work that reads its weights or gates.

    Raises:
        ValueError: if they are modules of the user's own.
    """
    if not isinstance(model, InContextRegressor):
        raise ValueError("weights are read off one layer; a model that is a module has none: register a LayerConfig")
    return model


def measurement(risk: float, standard_error: float) -> Measurement:
    """A risk in units of that of predicting 0 as a measurement says it: a number, or that the model diverged.

    >>> measurement(0.5, 0.01), measurement(5e24, 1e23)
    ({'risk': 0.5, 'standard_error': 0.01}, {'diverged': True})
    """
    if math.isfinite(risk) and math.isfinite(standard_error) and risk <= _DIVERGED:
        return {"risk": risk, "standard_error": standard_error}
    return {"diverged": True}


def is_diverged(found: Measurement) -> bool:
    """Whether a measurement says that its model diverged."""
    return bool(found.get("diverged"))


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


def _errors(model: nn.Module, sampler: PromptSampler, batch: int, generators: Sequence[torch.Generator]) -> Tensor:
    prompts = sampler.draw(batch, generators)
    errors: Tensor = (model(prompts.tokens) - prompts.targets).square()
    return errors
