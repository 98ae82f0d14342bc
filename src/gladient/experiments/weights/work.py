"""The work of the weights figure: a stack of models, and the algorithm read off each."""

from dataclasses import dataclass
from pathlib import Path

from gladient.equivalence import Factor, extract, residual_model
from gladient.experiments._stack import StackWork, one_layer, prompt_streams
from gladient.experiments._work import OnStep, Outcome, Record
from gladient.nn import InContextRegressor
from gladient.prompts import PromptSampler

__all__ = ["Reading", "read"]


@dataclass(frozen=True)
class Reading(StackWork):
    """Trains a stack and reads the algorithm off its members.

    Args:
        stack: the models.
        prompts: how many fresh prompts they are read on.
    """

    prompts: int

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The stack's records and what was read: shares, P, and the weight of each task and example."""
        model, sampler = self.stack.build()
        self.stack.fit(model, sampler, scratch, on_step)
        tested, weights = self.stack.test(model, sampler), self.stack.pack(model)
        found = read(self, one_layer(model), sampler)
        return Outcome([{**record, **one} for record, one in zip(tested, found, strict=True)], weights)


def read(reading: Reading, regressor: InContextRegressor, sampler: PromptSampler) -> list[Record]:
    """What each member does to its prompts: shares of variance, and the algorithm's weights and preconditioner."""
    model = residual_model(regressor.double().cpu(), sampler.layout)
    streams = prompt_streams("look", reading.stack.seeds, sampler)
    tokens, panels = sampler.draw(reading.prompts, streams).tokens.double().cpu(), len(reading.stack.panels)
    found = [
        extract(model.member(member), tokens[member // panels, None], sampler.layout)
        for member in range(len(model.readout))
    ]
    return [{"explained": one.explained, "moving_gates": one.moving_gates, **_listed(one.factors[0])} for one in found]


def _listed(factor: Factor) -> Record:
    return {"omega": factor.omega.tolist(), "examples": factor.examples.tolist(), "P": factor.P.tolist()}
