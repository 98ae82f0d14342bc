"""The kernels as Python calls them: structs whose fields the library names itself."""

import ctypes
import functools
from struct import Struct
from typing import Any

import torch

from gladient.ops.native.build import library

__all__ = ["call"]

_NUMBERS = {torch.float32: "float", torch.float64: "double"}


def call(kernel: str, dtype: torch.dtype, *flags: int, **fields: float) -> None:
    """Runs a kernel, "scan", "full", "step" or "last_query", on a struct of these fields; absent ones are 0 or null."""
    function, names, layout = _kernel(kernel, dtype)
    function(layout.pack(*[fields.get(name, 0) for name in names]), *flags)
    if fields:
        raise TypeError(f"kernel {kernel!r} has no field {', '.join(fields)}; it has {', '.join(names)}")


@functools.cache
def _kernel(kernel: str, dtype: torch.dtype) -> tuple[Any, tuple[str, ...], Struct]:
    loaded = library()
    described = getattr(loaded, f"{kernel}_fields")
    described.restype = ctypes.c_char_p
    names, codes = zip(*(field.split(":") for field in described().decode().split()), strict=True)
    function = getattr(loaded, f"{kernel}_{_NUMBERS[dtype]}")
    function.restype = None
    return function, names, Struct("".join(codes))
