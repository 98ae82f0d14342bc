"""A tiny model of random weights, none of them at its default, and what its architecture can do."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["Tiny", "perturb"]


@dataclass(frozen=True)
class Tiny:
    """How to build one architecture small.

    Args:
        build: the model in eval mode, from a seed.
        vocabulary: number of tokens.
        cache: the keyword under which the model takes the cache that its output holds under the same name; None if it
            has none.
        padding: whether it takes an attention mask.
        note: what the library itself does not do in some case.
    """

    build: Callable[[int], nn.Module]
    vocabulary: int = 64
    cache: str | None = "past_key_values"
    padding: bool = True
    note: str = ""


def perturb(model: nn.Module, *names: str) -> nn.Module:
    """Moves parameters whose names end so off their defaults (D, dt, decays …)."""
    with torch.no_grad():
        found = [p for name, p in model.named_parameters() if name.endswith(names)]
        for parameter in found:
            parameter.add_(torch.randn_like(parameter) / 2)
    if not found:
        raise ValueError(f"no parameter ends with one of {names}")
    return model.eval()
