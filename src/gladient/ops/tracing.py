"""What torch.compile has to know of a function, said without importing it: that takes longer than torch itself."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch

__all__ = ["constant", "untraced"]

Function = TypeVar("Function", bound=Callable[..., Any])


def constant(function: Function) -> Function:
    """As torch.compiler.assume_constant_result: called while tracing, its result is a constant of the graph."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # all that the original does
    return function


def untraced(reason: str) -> Callable[[Function], Function]:
    """As torch.compiler.disable: it runs outside of graphs; where one is wanted, the error names the reason."""

    def mark(function: Function) -> Function:
        @wraps(function)
        def run(*given: Any) -> Any:
            traced = "torch._dynamo" in sys.modules  # after a graph break dynamo traces this frame too
            return (torch.compiler.disable(function) if traced else function)(*given)

        run._torchdynamo_disable = True  # type: ignore[attr-defined]
        run._torchdynamo_disable_msg = reason  # type: ignore[attr-defined]
        return run  # type: ignore[return-value]

    return mark
