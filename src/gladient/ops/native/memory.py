"""Memory for large results, kept when they go: filling untouched pages takes longer than most kernels compute."""

import mmap
import weakref
from collections import defaultdict
from collections.abc import Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

__all__ = ["empty", "release"]

_SMALL = 1 << 16  # bytes up to which the system's allocator does as well
_HUGE = 4 << 20  # bytes from which huge pages are worth asking for
_MOST = 256 << 20  # bytes kept for later; beyond, all of them go back to the system
_NUMBERS = {torch.float32: np.float32, torch.float64: np.float64}

_free: dict[int, list[mmap.mmap]] = defaultdict(list)  # by size; single list operations need no lock
_lent: dict[int, "_Loan"] = {}  # by id; a weak reference calls back only while it lives


class _Loan(weakref.ref[np.ndarray]):
    """Of a block to an array, until the array goes: `weakref.finalize` for less of each call's time."""

    __slots__ = ("block",)
    block: mmap.mmap


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A new tensor with arbitrary content, float32 or float64, on a block that an earlier tensor of its size left.

    >>> empty((2, 3), torch.float32).shape
    torch.Size([2, 3])
    """
    size = prod(shape) * dtype.itemsize
    if size <= _SMALL:
        return torch.empty(shape, dtype=dtype)
    block = _take(-(-size // _SMALL) * _SMALL)
    array: np.ndarray = np.ndarray(shape, _NUMBERS[dtype], block)
    loan = _Loan(array, _end)  # the tensor's storage holds the array
    loan.block = block
    _lent[id(loan)] = loan
    return torch.from_numpy(array)


def release() -> None:
    """Gives the memory kept for later results back to the system."""
    _free.clear()


def _take(size: int) -> mmap.mmap:
    try:
        return _free[size].pop()
    except IndexError:
        pass
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _end(loan: _Loan) -> None:
    block = _lent.pop(id(loan)).block
    if sum(size * len(blocks) for size, blocks in tuple(_free.items())) + len(block) > _MOST:
        release()
    if len(block) <= _MOST:
        _free[len(block)].append(block)
