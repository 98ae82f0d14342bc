"""The work of the drift figure: a stack of models, and the decay and the step that each gives its examples."""

from dataclasses import dataclass
from pathlib import Path

import torch

from gladient.experiments._stack import StackWork, one_layer, prompt_streams
from gladient.experiments._work import OnStep, Outcome
from gladient.nn import InContextRegressor
from gladient.prompts import PromptSampler

__all__ = ["Streaming", "read_rule"]


@dataclass(frozen=True)
class Streaming(StackWork):
    """Trains a stack on prompts without delimiters and reads the rule off its members.

    Args:
        stack: the models.
        prompts: how many fresh prompts they are read on, per seed.
    """

    prompts: int

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The stack's records, with the mean decay and step of the examples."""
        model, sampler = self.stack.build()
        self.stack.fit(model, sampler, scratch, on_step)
        tested, weights = self.stack.test(model, sampler), self.stack.pack(model)
        decays, steps = read_rule(one_layer(model), sampler, self)
        rules = [{"decay": decay, "step": step} for decay, step in zip(decays, steps, strict=True)]
        return Outcome([{**record, **rule} for record, rule in zip(tested, rules, strict=True)], weights)


@torch.no_grad()
def read_rule(model: InContextRegressor, sampler: PromptSampler, reading: Streaming) -> tuple[list[float], list[float]]:
    r"""Each member's mean decay of an example, and its mean step $\beta\,|W_k|^2/d$ for keys that are the features.

    A decay is 1 without gates, a step 0 without the delta rule.
    """
    layer, members = model.layer, model.layer.members
    tokens = sampler.draw(reading.prompts, prompt_streams("look", reading.stack.seeds, sampler)).tokens
    decays, steps = torch.ones(members), torch.zeros(members)
    if (g := layer.gates(tokens).g) is not None:
        decays = g[:, :-1].exp().unflatten(0, (len(tokens), -1)).mean((1, 2)).flatten()
    if layer.step is not None and layer.W_k is not None:
        features = layer.W_k[:, : sampler.layout.d].square().sum((1, 2)) / sampler.layout.d
        steps = layer.config.step_bound * layer.step(tokens)[:, :, :-1].mean((1, 2)).flatten() * features
    return decays.tolist(), steps.tolist()
