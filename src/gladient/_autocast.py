"""What computes the same inside a user's `torch.autocast` region as outside of it."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

__all__ = ["outside_autocast"]

P = ParamSpec("P")
R = TypeVar("R")
_DEVICES = ("cpu", "cuda", "mps", "xpu")  # each has a switch of its own


def outside_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off while it runs: it would round matrix products to half precision.

    >>> product = outside_autocast(torch.matmul)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     product(torch.eye(2), torch.eye(2)).dtype, torch.matmul(torch.eye(2), torch.eye(2)).dtype
    (torch.float32, torch.bfloat16)
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return run(*args, **kwargs)  # there may be another that is on
        return function(*args, **kwargs)

    return run
