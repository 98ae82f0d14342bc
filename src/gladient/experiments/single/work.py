"""The work of one model: its training, with the loss of every step."""

from dataclasses import dataclass
from pathlib import Path

from gladient.experiments._stack import StackWork
from gladient.experiments._work import OnStep, Outcome

__all__ = ["Run"]


@dataclass(frozen=True)
class Run(StackWork):
    """Trains a stack of one model and keeps its losses.

    Args:
        stack: the model.
    """

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The stack's record and the loss at each step, in units of the risk of predicting 0."""
        model, sampler = self.stack.build()
        history = self.stack.fit(model, sampler, scratch, on_step)
        (tested,) = self.stack.test(model, sampler)
        losses = [] if history is None else history.losses[:, 0].tolist()
        return Outcome([{**tested, "losses": losses}], self.stack.pack(model))
