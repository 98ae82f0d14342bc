"""What layers of many architectures compute before the operator: step sizes, and keys of length 1."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["L2_EPS", "step_sizes", "unit"]

L2_EPS = 1e-6
"""As in flash-linear-attention, inside the root: 0 stays 0 and has a gradient."""


def step_sizes(dt: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    """Mamba's Δ = softplus(dt + bias), without what is not asked for.

    >>> step_sizes(torch.tensor([-1.0]), torch.tensor([1.0]), softplus=True)
    tensor([0.6931])
    """
    dt = dt if bias is None else dt + bias
    return functional.softplus(dt) if softplus else dt


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1, as models of the delta rule and flash-linear-attention normalise them: along the last axis.

    >>> unit(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + L2_EPS)
