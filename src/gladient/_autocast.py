"""What computes the same inside a user's `torch.autocast` region as outside of it."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch

__all__ = ["casts", "outside_autocast", "unrounded"]

P = ParamSpec("P")
R = TypeVar("R")
_DEVICES = ("cpu", "cuda", "mps", "xpu")  # each has a switch of its own


def casts(device: str) -> bool:
    """Whether an autocast region is open for such a device; some, as meta, have none, and PyTorch raises for those."""
    return _available(device) and torch.is_autocast_enabled(device)


def _available(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


# What torch.compiler.assume_constant_result does (gladient.ops.tracing): PyTorch 2.10 does not follow that question.
_available._dynamo_marked_constant = True  # type: ignore[attr-defined]


def unrounded(device: str) -> AbstractContextManager[Any]:
    """Outside of the user's autocast region: products of float32 numbers are float32, and states are never rounded."""
    return torch.autocast(device, enabled=False) if casts(device) else nullcontext()


def outside_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast off while it runs, for every device.

    >>> product = outside_autocast(torch.matmul)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     product(torch.eye(2), torch.eye(2)).dtype, torch.matmul(torch.eye(2), torch.eye(2)).dtype
    (torch.float32, torch.bfloat16)
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # One question for all devices, which is not public: asking each costs every call 2 microseconds.
        if torch._C._is_any_autocast_enabled():
            for device in filter(torch.is_autocast_enabled, _DEVICES):
                with torch.autocast(device, enabled=False):
                    return run(*args, **kwargs)  # again: there may be another device whose region is open
        return function(*args, **kwargs)

    return run
