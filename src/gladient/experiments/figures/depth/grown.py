"""Models grown layer by layer, and what they use: the delimiters' features, and writes into the features' channels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gladient._files import write_atomically
from gladient.experiments.models.stack import NamedSetting, measurement, prompt_streams
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.nn import LayerConfig, ResidualModel
from gladient.prompts import PromptLayout, Prompts, PromptSampler
from gladient.training import TrainingConfig, evaluate, load_tensors, pack_tensors, train

__all__ = ["LAYERS", "GrownModels", "bounded_risk", "grow", "label_writes_only", "without_delimiter"]

_APART = 2**20  # between the seeds of two depths' training prompts
# A prompt with a larger squared error counts no more in training, in units of the risk of predicting 0. A state that
# erases multiplies long keys, and without it rare prompts threw two delta layers out: their risks rose above one
# layer's. Of Gaussian errors at risk 1 it would cut one in 10⁵.
_OUTLIER = 20.0

LAYERS: Mapping[str, Mapping[str, Any]] = {
    "linear_attention": {"gate": "none"},
    "scalar_gate": {"gate": "scalar"},
    "gated_delta_rule": {"gate": "scalar", "write": "delta"},
}
"""Options of the layers of each kind of model."""

Models = Mapping[tuple[int, bool], ResidualModel]
Pairs = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class GrownModels:
    """Models of one kind at one prompt length, one for each seed and panel: of one layer, then of one more, up to L.

    From two layers on there are two of each: one is free, in the other no layer below the last ever writes into the
    channels of the features. Both grow from the same first layer.

    Args:
        model: a name in `LAYERS`.
        panels: settings that differ in r alone.
        seeds: one training run each.
        training: how each depth is trained.
        learning_rates: peak step size at each depth, from one layer to L.
        start_scale: factor of a new layer's random queries, keys and values; its outputs start at 0.
        test_prompts: fresh prompts that each depth is tested on, the same for all.
        device: where to train.
    """

    model: str
    panels: tuple[NamedSetting, ...]
    seeds: tuple[int, ...]
    training: TrainingConfig
    learning_rates: tuple[float, ...]
    start_scale: float
    test_prompts: int
    device: str = "cpu"

    @property
    def n(self) -> int:
        """Examples in a prompt."""
        return sum(self.panels[0].n)

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.model}-n{self.n}"

    @property
    def layers(self) -> int:
        """L."""
        return len(self.learning_rates)

    @property
    def parts(self) -> list[tuple[int, bool]]:
        """What is trained, in order: each depth, and whether its lower layers write labels alone."""
        return [(1, False), *((depth, alone) for depth in self._deep for alone in (False, True))]

    @property
    def steps(self) -> int:
        """Training steps of all parts."""
        return len(self.parts) * self.training.steps

    @property
    def cost(self) -> float:
        """Tokens times layers, over all members."""
        slow = 1.5 if "write" in LAYERS[self.model] else 1.0
        passes = self.training.steps * sum(depth for depth, _ in self.parts)
        return slow * passes * (self.n + 10) * len(self.seeds) * len(self.panels)

    @property
    def _deep(self) -> range:
        return range(2, self.layers + 1)

    def sampler(self) -> PromptSampler:
        """The prompts of all panels."""
        return PromptSampler([panel.setting for panel in self.panels], device=self.device)

    def build(self, depth: int, layout: PromptLayout) -> ResidualModel:
        """The untrained models of one depth, panel by panel for each seed."""
        options = LAYERS[self.model]
        layer = LayerConfig(
            scale=1.0 if "write" in options else 1 / self.n,  # a state that erases is of order one by itself
            open_columns=layout.data_columns,
            delimiter_columns=layout.delimiter_columns,
            **options,
        )
        members = [seed for seed in self.seeds for _ in self.panels]
        model = ResidualModel(layout.width, [layer] * depth, seeds=members).to(self.device)
        with torch.no_grad():
            for each in model.layers:
                if each.attention.step is not None:  # half of the best for one task: errors do not grow before it moves
                    each.attention.step.bias.fill_(torch.tensor(0.5 / (layout.d + 2)).logit())
        return model

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """One measurement for each depth, panel and seed, in units of the risk of predicting 0."""
        models, weights = self.train(scratch, on_step)
        return Outcome(self.test(models), weights)

    def train(self, scratch: Path, on_step: OnStep) -> tuple[Models, dict[str, bytes]]:
        """All models, by depth and whether they write labels alone, and their weights by the names of their files."""
        sampler, models, weights = self.sampler(), dict[tuple[int, bool], ResidualModel](), {}
        for place, (depth, alone) in enumerate(self.parts):
            model = self.build(depth, sampler.layout)
            if depth > 1:
                grow(models.get((depth - 1, alone), models[depth - 1, False]), model, scale=self.start_scale)
            part, before = f"L{depth}{'-labels' * alone}", place * self.training.steps
            content = self._train(model, sampler, part, scratch, _after(before, on_step))
            weights[f"{self.name}-{part}"] = content
            models[depth, alone] = model
        return models, weights

    def _train(self, model: ResidualModel, sampler: PromptSampler, part: str, scratch: Path, on_step: OnStep) -> bytes:
        """Train one part, or take its weights from the scratch folder; the content of their file."""
        depth, d, alone = len(model.layers), sampler.layout.d, part.endswith("labels")
        training = replace(self.training, learning_rate=self.learning_rates[depth - 1])
        run = {**{key: value for key, value in asdict(self).items() if key != "training"}, "part": part}
        kept, described = scratch / f"{part}.safetensors", {**run, "training": asdict(training)}
        if kept.exists():
            model.load_state_dict(load_tensors(kept, run=described)[0])
            return kept.read_bytes()
        fresh = prompt_streams("train", [seed + _APART * depth for seed in self.seeds], sampler)

        def loss(model: nn.Module) -> Tensor:
            if alone:
                label_writes_only(model, d)  # before each step: the optimiser moves what was 0
            return bounded_risk(model, sampler.draw(training.batch_size, fresh), d)

        checkpoint = scratch / f"{part}-checkpoint.safetensors"
        train(model, loss, training, generators=fresh, checkpoint=checkpoint, run=run, on_step=on_step)
        if alone:
            label_writes_only(model, d)
        content = pack_tensors(dict(model.state_dict()), run=described)
        write_atomically(kept, content)
        return content

    def test(self, models: Models) -> list[Measurement]:
        """Risks of all parts on the same prompts; those without a delimiter's feature on an eighth of them."""
        sampler = self.sampler()

        def errors(prompts: Prompts) -> dict[str, Tensor]:
            each = {part: _errors(model, prompts) for part, model in models.items()}
            named = {f"{depth} {'labels' if alone else 'risk'}": value for (depth, alone), value in each.items()}
            return named | {f"{depth} gain": each[depth - 1, False] - each[depth, False] for depth in self._deep}

        def unmarked(prompts: Prompts) -> dict[str, Tensor]:
            return {
                f"{depth} unmarked{k + 1}": _errors(models[depth, False], without_delimiter(prompts, sampler.layout, k))
                for depth in range(1, self.layers + 1)
                for k in range(len(sampler.layout.n))
            }

        found = self._evaluate(errors, self.test_prompts, sampler)
        found |= self._evaluate(unmarked, max(2, self.test_prompts // 8), sampler)
        return [
            {"layers": depth, "panel": panel.name, "seed": seed} | _named(found, depth, i * len(self.panels) + j)
            for depth in range(1, self.layers + 1)
            for j, panel in enumerate(self.panels)
            for i, seed in enumerate(self.seeds)
        ]

    def _evaluate(
        self, errors: Callable[[Prompts], dict[str, Tensor]], count: int, sampler: PromptSampler
    ) -> dict[str, list[tuple[float, float]]]:
        """Mean and standard error of each of these errors, for each member."""
        held_out, names = prompt_streams("test", self.seeds, sampler), list[str]()

        def drawn(batch: int) -> Tensor:
            each = errors(sampler.draw(batch, held_out))
            names[:] = each
            return torch.cat(list(each.values())) / sampler.layout.d

        found = evaluate(drawn, count, batch=2048)
        pairs = list(zip(found.risk.tolist(), found.standard_error.tolist(), strict=True))
        members = len(self.seeds) * len(self.panels)
        return {name: pairs[i * members : (i + 1) * members] for i, name in enumerate(names)}


def _after(before: int, on_step: OnStep) -> OnStep:
    """Counts on from the steps of the parts before."""
    return lambda done: on_step(before + done)


def _named(found: Pairs, depth: int, member: int) -> Measurement:
    """The numbers of one depth and member by their names, and their errors."""
    out: Measurement = {}
    for what, pairs in found.items():
        number, name = what.split()
        if int(number) == depth:
            value, error = pairs[member]
            out |= measurement(value, error) if name == "risk" else {name: value, f"{name}_error": error}
    return out


def _errors(model: nn.Module, prompts: Prompts) -> Tensor:
    errors: Tensor = (model(prompts.tokens) - prompts.targets).square()
    return errors


def bounded_risk(model: nn.Module, prompts: Prompts, d: int) -> Tensor:
    """Mean squared error / d of each member, in which no prompt counts for more than `_OUTLIER`."""
    return (_errors(model, prompts) / d).clamp(max=_OUTLIER).mean(1)


def label_writes_only(model: nn.Module, d: int) -> None:
    """Set to 0 what all layers but the last write into the channels of the features."""
    assert isinstance(model, ResidualModel)
    *lower, _ = model.layers
    with torch.no_grad():
        for layer in lower:
            layer.W_o[:, :, :d] = 0.0


def without_delimiter(prompts: Prompts, layout: PromptLayout, k: int) -> Prompts:
    """The same prompts whose k-th delimiter, counted from 0, has no feature of its own."""
    tokens = prompts.tokens.clone()
    tokens[..., layout.delimiter_places[k], layout.delimiter_columns[k]] = 0.0
    return replace(prompts, tokens=tokens)


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
