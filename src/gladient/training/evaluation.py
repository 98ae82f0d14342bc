"""Risk on fresh prompts."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["TestRisk", "evaluate"]


@dataclass(frozen=True)
class TestRisk:
    """Mean squared errors on fresh prompts.

    Attributes:
        risk: the mean for each member, float64, [E].
        standard_error: its standard error, [E].
    """

    __test__ = False  # not a test, whatever its name says to pytest

    risk: Float[Tensor, " E"]
    standard_error: Float[Tensor, " E"]


def evaluate(errors: Callable[[int], Float[Tensor, "E B"]], prompts: int, *, batch: int = 4096) -> TestRisk:
    """Estimate each member's risk.

    Args:
        errors: draws that many fresh prompts and returns the members' squared errors on them.
        prompts: how many to draw in all, at least 2.
        batch: how many to draw at a time.

    >>> result = evaluate(lambda count: torch.arange(count, dtype=torch.float32)[None], prompts=3)
    >>> result.risk.tolist(), round(result.standard_error.item(), 4)
    ([1.0], 0.5774)
    """
    if prompts < 2:
        raise ValueError(f"prompts is {prompts}; a standard error needs at least 2")
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    with torch.no_grad():
        for start in range(0, prompts, batch):
            drawn = errors(min(batch, prompts - start)).double()
            total = total + drawn.sum(1)
            squares = squares + drawn.square().sum(1)
    mean = torch.as_tensor(total / prompts)
    # E e² - (E e)², from two running sums: squared errors deviate by as much as their mean, so that in float64 the
    # difference loses no digit that a standard error has. Rounding may leave it below 0 where all errors are equal.
    variance = (torch.as_tensor(squares) / prompts - mean.square()).clamp(min=0) * (prompts / (prompts - 1))
    return TestRisk(risk=mean.cpu(), standard_error=(variance / prompts).sqrt().cpu())
