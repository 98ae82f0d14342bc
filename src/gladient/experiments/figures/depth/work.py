"""The work of the depth figure: models grown layer by layer, and the best L steps of the algorithm."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gladient import landscape
from gladient._files import write_atomically
from gladient.experiments.models.stack import measurement, prompt_streams
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.nn import Gate, LayerConfig, ResidualModel
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.training import TrainingConfig, evaluate, load_tensors, pack_tensors, train
from gladient.wpgd import WPGD, best_steps, conditional_risk

__all__ = ["GrownModels", "SearchedSteps", "grow"]

_APART = 2**20  # between the seeds of two depths' training prompts
_TEST_SEED = 2**30  # of the features on which algorithms are tested; the search's seed is 0


@dataclass(frozen=True)
class GrownModels:
    """Models of one kind at one prompt length, one for each seed: trained with one layer, then with one more, up to L.

    Args:
        model: the kind's name in results.
        gate: its gate family.
        n: examples per task.
        r: correlation of each task with the query's.
        d: number of features; Σ = I, uncorrelated tasks, no noise.
        seeds: one training run each.
        training: how each depth is trained.
        learning_rates: peak step size at each depth, from one layer to L.
        start_scale: factor of a new layer's random queries, keys and values; its outputs start at 0.
        test_prompts: fresh prompts that each depth is tested on, the same for all.
        device: where to train.
    """

    model: str
    gate: Gate
    n: tuple[int, ...]
    r: tuple[float, ...]
    d: int
    seeds: tuple[int, ...]
    training: TrainingConfig
    learning_rates: tuple[float, ...]
    start_scale: float
    test_prompts: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.model}-n{sum(self.n)}"

    @property
    def layers(self) -> int:
        """L."""
        return len(self.learning_rates)

    @property
    def steps(self) -> int:
        """Training steps of all depths."""
        return self.layers * self.training.steps

    @property
    def cost(self) -> float:
        """Tokens times layers."""
        passes = self.layers * (self.layers + 1) / 2
        return passes * self.training.steps * (sum(self.n) + 10) * len(self.seeds)

    def setting(self) -> MultitaskSetting:
        """The data."""
        return MultitaskSetting.isotropic(self.n, self.r, d=self.d)

    def build(self, depth: int, sampler: PromptSampler) -> ResidualModel:
        """The untrained models of one depth."""
        layout = sampler.layout
        layer = LayerConfig(
            gate=self.gate,
            scale=1 / sum(self.n),
            open_columns=layout.data_columns,
            delimiter_columns=layout.delimiter_columns,
        )
        return ResidualModel(layout.width, [layer] * depth, seeds=self.seeds).to(self.device)

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each depth and seed: risk, and gain over one layer less, with errors, divided by d."""
        sampler = PromptSampler([self.setting()], device=self.device)
        models: list[ResidualModel] = []
        weights = {}
        for depth in range(1, self.layers + 1):
            model = self.build(depth, sampler)
            if models:
                grow(models[-1], model, scale=self.start_scale)
            weights[f"{self.name}-L{depth}"] = self._train(model, sampler, depth, scratch, on_step)
            models.append(model)
        return Outcome(self._test(models, sampler), weights)

    def _train(self, model: ResidualModel, sampler: PromptSampler, depth: int, scratch: Path, on_step: OnStep) -> bytes:
        """Train one depth, or take its weights from the scratch folder; the content of their file."""
        training = replace(self.training, learning_rate=self.learning_rates[depth - 1])
        run = {**{key: value for key, value in asdict(self).items() if key != "training"}, "depth": depth}
        kept, described = scratch / f"L{depth}.safetensors", {**run, "training": asdict(training)}
        if kept.exists():
            model.load_state_dict(load_tensors(kept, run=described)[0])
            return kept.read_bytes()
        before = (depth - 1) * self.training.steps
        fresh = prompt_streams("train", [seed + _APART * depth for seed in self.seeds], sampler)

        def loss(model: nn.Module) -> Tensor:
            prompts = sampler.draw(training.batch_size, fresh)
            return (model(prompts.tokens) - prompts.targets).square().mean(1) / self.d

        checkpoint = scratch / f"L{depth}-checkpoint.safetensors"
        train(
            model,
            loss,
            training,
            generators=fresh,
            checkpoint=checkpoint,
            run=run,
            on_step=lambda done: on_step(before + done),
        )
        content = pack_tensors(dict(model.state_dict()), run=described)
        write_atomically(kept, content)
        return content

    def _test(self, models: list[ResidualModel], sampler: PromptSampler) -> list[Measurement]:
        held_out = prompt_streams("test", self.seeds, sampler)

        def errors_and_gains(batch: int) -> Tensor:
            prompts = sampler.draw(batch, held_out)
            errors = torch.stack([(model(prompts.tokens) - prompts.targets).square() for model in models]) / self.d
            gains = torch.cat([torch.zeros_like(errors[:1]), errors[:-1] - errors[1:]])
            return torch.cat([errors, gains]).flatten(0, 1)

        found = evaluate(errors_and_gains, self.test_prompts, batch=2048)
        shape = (2, len(models), len(self.seeds))
        means, deviations = found.risk.view(shape).tolist(), found.standard_error.view(shape).tolist()
        return [
            {
                "layers": depth + 1,
                "seed": seed,
                **measurement(means[0][depth][i], deviations[0][depth][i]),
                "gain": means[1][depth][i],
                "gain_error": deviations[1][depth][i],
            }
            for depth in range(len(models))
            for i, seed in enumerate(self.seeds)
        ]


def grow(old: ResidualModel, new: ResidualModel, *, scale: float) -> None:
    """Start a model as one of a layer less: its first layer writes nothing yet, the others and the read-out are old.

    >>> tokens, old = torch.randn(1, 2, 4, 3), ResidualModel(3, [LayerConfig()])
    >>> _ = torch.nn.init.normal_(old.readout)
    >>> new = ResidualModel(3, [LayerConfig()] * 2)
    >>> grow(old, new, scale=0.3)
    >>> torch.equal(new(tokens), old(tokens))
    True
    """
    first, *rest = new.layers
    with torch.no_grad():
        for layer, trained in zip(rest, old.layers, strict=True):
            layer.load_state_dict(trained.state_dict())
        first.W_o.zero_()
        for weight in (first.attention.W_q, first.attention.W_k, first.attention.W_v):
            if weight is not None:
                weight.mul_(scale)
        new.readout.copy_(old.readout)


@dataclass(frozen=True)
class SearchedSteps:
    """The best 1 … L steps of the algorithm at one prompt length, tested on fresh features.

    Args:
        model: the kind of model in results that they are compared with.
        gated: whether the steps have gates.
        n: examples per task.
        r: correlation of each task with the query's.
        d: number of features; Σ = I, uncorrelated tasks, no noise.
        layers: L.
        prompts: features that the search sees.
        starts: random starts for each number of steps.
        test_prompts: fresh features that the steps are tested on.
    """

    model: str
    gated: bool
    n: tuple[int, ...]
    r: tuple[float, ...]
    d: int
    layers: int
    prompts: int
    starts: int
    test_prompts: int

    @property
    def name(self) -> str:
        """What files are called."""
        return f"steps-{self.model}-n{sum(self.n)}"

    @property
    def steps(self) -> int:
        """The search and each test."""
        return 1 + self.layers

    @property
    def cost(self) -> float:
        """In the unit of `GrownModels`, roughly."""
        return (100.0 if self.gated else 40.0) * self.layers * (2 + self.starts) * (sum(self.n) + 10)

    def setting(self) -> MultitaskSetting:
        """The data."""
        return MultitaskSetting.isotropic(self.n, self.r, d=self.d)

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each number of steps: rates, gates, risk and error (divided by d), agreeing starts.

        The exact risk of one step is the control: its error on the same features is taken off all others'.
        """
        setting = self.setting()
        layout = PromptLayout.of(setting)
        found = best_steps(setting, self.layers, gated=self.gated, prompts=self.prompts, starts=self.starts)
        on_step(1)
        algorithms = [steps.algorithm(layout) for steps in found]
        exact = _one_step_risk(algorithms[0], setting)
        sampler = PromptSampler([setting], dtype=torch.float64)
        fresh = [torch.Generator().manual_seed(_TEST_SEED)]

        def risks(batch: int) -> Tensor:
            x = sampler.draw(batch, fresh).tokens[0, ..., : self.d]
            each = torch.stack([conditional_risk(algorithm, x, setting) for algorithm in algorithms])
            return (each - each[:1] + exact) / self.d

        test = evaluate(risks, self.test_prompts, batch=128)  # T² numbers per prompt stay in cache
        on_step(self.steps)
        measurements: list[Measurement] = [
            {
                "layers": depth,
                "rates": steps.rates,
                "gates": steps.gates,
                "agreeing": steps.agreeing,
                "risk": risk,
                "standard_error": error,
            }
            for depth, (steps, risk, error) in enumerate(
                zip(found, test.risk.tolist(), test.standard_error.tolist(), strict=True), start=1
            )
        ]
        return Outcome(measurements)


def _one_step_risk(algorithm: WPGD, setting: MultitaskSetting) -> float:
    (step,) = algorithm.steps
    omega = torch.stack([step.matrix[0, -1, block.start, 0] for block in PromptLayout.of(setting).blocks])
    return landscape.risk((step.P_q @ step.P_k.T).numpy(), omega.numpy(), setting)
