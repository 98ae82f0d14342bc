"""How a model is trained."""

import math
from dataclasses import dataclass

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    r"""Adam with a linear warm-up and a cosine to 0.

    Args:
        steps: optimiser steps.
        batch_size: prompts per step, fresh ones each time.
        learning_rate: Adam's step size at its peak.
        gate_learning_rate: the same for the gates. A gate that closes travels ten units of logit and more while
            the other weights stay of order one, so it needs the larger step.
        warmup: share of the steps that ramp a step size up.
        gate_rest: share of the steps before the gates begin to move: what reads the gated memories settles first,
            signs included; gates that move from the start can lock a read-out of several channels in at the wrong sign.
        checkpoint_every: steps between checkpoints.

    Raises:
        ValueError: if a number is out of its range.

    >>> [round(TrainingConfig(steps=100).schedule(step), 3) for step in (0, 4, 50, 99)]
    [0.2, 0.996, 0.5, 0.0]
    """

    steps: int = 800
    batch_size: int = 512
    learning_rate: float = 1e-2
    gate_learning_rate: float = 1e-1
    warmup: float = 0.05
    gate_rest: float = 0.25
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1")
        for name in ("learning_rate", "gate_learning_rate"):
            value = getattr(self, name)
            if not (_is_number(value) and math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value!r}; it must be a number above 0")
        for name in ("warmup", "gate_rest"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value < 1):
                raise ValueError(f"{name} is {value!r}; it is a share of the steps, at least 0 and below 1")

    def schedule(self, step: int, rest: float = 0.0) -> float:
        """The factor of a step size at a step, counted from 0, after a rest."""
        # + 1, so that the first step is not one of size 0. The cosine runs over all steps, ramp and rest included:
        # gates and other weights come to an end together.
        ramp = (step + 1 - rest * self.steps) / max(1.0, self.warmup * self.steps)
        return min(1.0, max(0.0, ramp)) * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
