"""What the package's autograd functions share: vmap by folding into the batch, and work in cache-sized row blocks."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.utils import _pytree as pytree

__all__ = ["BatchFunction", "mapped", "row_blocks", "transformed"]

_BLOCK = 262_144  # elements of the largest temporary, per thread: a few of them fit a core's L2 cache


class BatchFunction(torch.autograd.Function):
    """An autograd function whose tensors all lead with the batch dimension, so that vmap is a larger batch."""

    def __init_subclass__(cls) -> None:
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]  # torch asks each call

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, Any]:
        """Folds the mapped dimension into the batch and unfolds the outputs."""
        return mapped(cls.apply, info, in_dims, arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keeps nothing: what is itself a derivative has none."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raises NotImplementedError unless the function has a derivative."""
        raise NotImplementedError("this form has first derivatives only; use form='recurrent' for higher ones")


def mapped(
    function: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """A function under vmap: the mapped dimension of every tensor becomes part of the batch that it leads with."""
    n, folded = info.batch_size, []
    for x, dim in zip(arguments, in_dims, strict=True):
        if isinstance(x, Tensor):
            x = (x.expand(n, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
        folded.append(x)
    found = function(*folded)
    unfolded = pytree.tree_map(lambda x: None if x is None else x.unflatten(0, (n, x.shape[0] // n)), found)
    return unfolded, pytree.tree_map(lambda x: None if x is None else 0, found)


def transformed() -> bool:
    """Whether one of torch.func's transforms that map or derive looks; there is no public question."""
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return False
    return retrieve_current_functorch_interpreter().key() != torch._C._functorch.TransformType.Functionalize


def row_blocks(rows: int, elements: int) -> Iterator[slice]:
    """Slices of the batch such that `elements` per row stay in cache.

    >>> list(row_blocks(3, 10**9))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    size = max(1, _BLOCK * torch.get_num_threads() // max(elements, 1))
    return (slice(i, min(i + size, rows)) for i in range(0, rows, size))
