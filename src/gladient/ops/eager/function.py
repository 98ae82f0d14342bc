"""What the package's autograd functions share: vmap by folding into the batch, and work in cache-sized row blocks."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["BatchFunction", "row_blocks"]

_BLOCK = 262_144  # elements of the largest temporary, per thread: a few of them fit a core's L2 cache


class BatchFunction(torch.autograd.Function):
    """An autograd function whose tensors all lead with the batch dimension, so that vmap is a larger batch."""

    def __init_subclass__(cls) -> None:
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]  # torch asks each call

    @classmethod
    def _fold(cls, x: Any, dim: Any, size: int) -> Any:
        if not isinstance(x, Tensor):
            return x
        x = x.movedim(dim, 0) if dim is not None else x.expand(size, *x.shape)
        return x.flatten(0, 1)

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        """Folds the mapped dimension into the batch and unfolds the outputs."""
        n = info.batch_size
        outputs = cls.apply(*(cls._fold(x, dim, n) for x, dim in zip(args, in_dims, strict=True)))
        unfolded = tuple(None if y is None else y.unflatten(0, (n, y.shape[0] // n)) for y in outputs)
        return unfolded, tuple(None if y is None else 0 for y in outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keeps nothing: what is itself a derivative has none."""

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raises NotImplementedError unless the function has a derivative."""
        raise NotImplementedError("this form has first derivatives only; use form='recurrent' for higher ones")


def row_blocks(rows: int, elements: int) -> Iterator[slice]:
    """Slices of the batch such that `elements` per row stay in cache.

    >>> list(row_blocks(3, 10**9))
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None)]
    """
    size = max(1, _BLOCK * torch.get_num_threads() // max(elements, 1))
    return (slice(i, min(i + size, rows)) for i in range(0, rows, size))
