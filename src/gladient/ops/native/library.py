"""The kernels as Python calls them: structs whose fields the library names itself."""

import ctypes
import functools
from struct import Struct
from typing import Any

import torch

from gladient.ops.native.build import library

__all__ = ["call"]

_NUMBERS = {torch.float32: "float", torch.float64: "double"}


def call(kernel: str, dtype: torch.dtype, *flags: int, **fields: int | float) -> None:
    """Runs the kernel of a name on a struct of these fields; absent ones are 0 or null."""
    function, zeros, pack = _kernel(kernel, dtype)
    values = zeros | fields
    if len(values) > len(zeros):
        raise TypeError(f"kernel {kernel!r} has no field {', '.join(values.keys() - zeros)}; it has {', '.join(zeros)}")
    # `zeros` has the struct's order, which `|` keeps; every field has eight bytes, so that there is no padding between.
    function(pack(*values.values()), *flags)


@functools.cache
def _kernel(kernel: str, dtype: torch.dtype) -> tuple[Any, dict[str, int], Any]:
    loaded = library()
    described = getattr(loaded, f"{kernel}_fields")
    described.restype = ctypes.c_char_p
    names, codes = zip(*(field.split(":") for field in described().decode().split()), strict=True)
    function = getattr(loaded, f"{kernel}_{_NUMBERS[dtype]}")
    function.restype = None
    return function, dict.fromkeys(names, 0), Struct("".join(codes)).pack
