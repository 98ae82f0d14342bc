"""The kernels as Python calls them: structs whose fields the library names itself."""

import ctypes
import functools
import logging
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

import torch
from torch import Tensor

from gladient.ops.native.build import library

__all__ = ["Prepared", "call", "empty", "prepared"]

_NUMBERS = {torch.float32: "float", torch.float64: "double"}
_HUGE_PAGE = 2**21  # bytes, on x86-64 and on most aarch64 systems; where pages are larger, nothing is gained or lost
_log = logging.getLogger(__name__)


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """torch.empty for what a kernel is to fill: in huge pages where it is large and Linux has them.

    Memory of more than 32 MiB is new to the process in every call, by malloc's own rule. Linux then gives it page by
    page of 4 KiB, each at its first touch, which takes longer than a whole recurrence over them on one thread.
    """
    x = torch.empty(shape, dtype=dtype)
    # Two pages hold a whole one wherever they begin. NumPy, too, asks from 4 MiB on.
    if x.nbytes >= 2 * _HUGE_PAGE and (advise := _advise()):
        first, behind = x.data_ptr(), x.data_ptr() + x.nbytes
        first, behind = -(-first // _HUGE_PAGE) * _HUGE_PAGE, behind // _HUGE_PAGE * _HUGE_PAGE
        advise(first, behind - first, mmap.MADV_HUGEPAGE)  # an advice: where it is refused, pages stay small
    return x


@functools.cache
def _advise() -> Any:
    """The C library's `madvise`, where huge pages can be asked for; else None."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise


def call(kernel: str, dtype: torch.dtype, *flags: int, **fields: int | float) -> None:
    """Runs the kernel of a name on a struct of these fields; absent ones are 0 or null."""
    function, zeros, pack = _kernel(kernel, dtype)
    values = zeros | fields
    if len(values) > len(zeros):
        raise TypeError(f"kernel {kernel!r} has no field {', '.join(values.keys() - zeros)}; it has {', '.join(zeros)}")
    # `zeros` has the struct's order, which `|` keeps; every field has eight bytes, so that there is no padding between.
    function(pack(*values.values()), *flags)


@dataclass(frozen=True)
class Prepared:
    """A kernel whose struct is filled but for addresses, for many calls.

    Args:
        run: calls it with a list of addresses, null where one is absent.
        places: where in this list that of a name stands.
        length: of this list.
    """

    run: Callable[[Sequence[int]], None]
    places: dict[str, int]
    length: int


def prepared(kernel: str, dtype: torch.dtype, names: Sequence[str], **fields: int | float) -> Prepared:
    """The same for the addresses of those names, which stand in a row of the struct; the other fields are these."""
    function, zeros, pack = _kernel(kernel, dtype)
    order, filled = [*zeros], pack(*(zeros | fields).values())
    found = {name: order.index(name) for name in names}
    first, behind = min(found.values()), max(found.values()) + 1
    head, tail, packed = filled[: 8 * first], filled[8 * behind :], Struct(f"{behind - first}Q").pack

    def run(addresses: Sequence[int]) -> None:
        function(head + packed(*addresses) + tail)

    return Prepared(run, {name: at - first for name, at in found.items()}, behind - first)


@functools.cache
def _kernel(kernel: str, dtype: torch.dtype) -> tuple[Any, dict[str, int], Any]:
    loaded = _threaded()
    described = getattr(loaded, f"{kernel}_fields")
    described.restype = ctypes.c_char_p
    names, codes = zip(*(field.split(":") for field in described().decode().split()), strict=True)
    function = getattr(loaded, f"{kernel}_{_NUMBERS[dtype]}")
    function.restype = None
    return function, dict.fromkeys(names, 0), Struct("".join(codes)).pack


@functools.cache
def _threaded() -> ctypes.CDLL:
    """The library with PyTorch's loop over threads, which torch.set_num_threads and torch's own operators share."""
    loaded = library()
    take = loaded.take_loop
    take.argtypes, take.restype = [ctypes.c_void_p], None
    take(_loop())
    if hasattr(os, "register_at_fork"):  # a forked process would wait for the pool's threads, which it does not have
        os.register_at_fork(after_in_child=lambda: take(None))
    return loaded


def _loop() -> Any:
    """`torch_parallel_for`, which PyTorch has since 2.10; None where it is missing."""
    # By the module that needs it, wherever its library lies; Windows looks in no library but the one that is named.
    name = "torch_cpu.dll" if sys.platform == "win32" else torch._C.__file__
    try:
        return ctypes.cast(ctypes.CDLL(name).torch_parallel_for, ctypes.c_void_p)
    except (AttributeError, OSError) as error:
        _log.warning("the native kernels run on one thread: PyTorch %s lends no others (%s)", torch.__version__, error)
        return None
