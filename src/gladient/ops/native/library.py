"""The kernels as Python calls them: structs whose fields the library names itself."""

import ctypes
import functools
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import torch

from gladient.ops.native.build import library

__all__ = ["call", "prepared"]

_NUMBERS = {torch.float32: "float", torch.float64: "double"}


def call(kernel: str, dtype: torch.dtype, *flags: int, **fields: int | float) -> None:
    """Runs the kernel of a name on a struct of these fields; absent ones are 0 or null."""
    function, zeros, pack = _kernel(kernel, dtype)
    values = zeros | fields
    if len(values) > len(zeros):
        raise TypeError(f"kernel {kernel!r} has no field {', '.join(values.keys() - zeros)}; it has {', '.join(zeros)}")
    # `zeros` has the struct's order, which `|` keeps; every field has eight bytes, so that there is no padding between.
    function(pack(*values.values()), *flags)


def prepared(kernel: str, dtype: torch.dtype, names: Sequence[str], **fields: int | float) -> Callable[..., None]:
    """The same as a function of the addresses of those names, for many calls whose other fields are these."""
    function, zeros, pack = _kernel(kernel, dtype)
    order, values = [*zeros], [*(zeros | fields).values()]
    places = [order.index(name) for name in names]

    def run(*addresses: int) -> None:
        own = values.copy()  # other threads may run it at the same time
        for place, address in zip(places, addresses, strict=True):
            own[place] = address
        function(pack(*own))

    return run


@functools.cache
def _kernel(kernel: str, dtype: torch.dtype) -> tuple[Any, dict[str, int], Any]:
    loaded = library()
    described = getattr(loaded, f"{kernel}_fields")
    described.restype = ctypes.c_char_p
    names, codes = zip(*(field.split(":") for field in described().decode().split()), strict=True)
    function = getattr(loaded, f"{kernel}_{_NUMBERS[dtype]}")
    function.restype = None
    return function, dict.fromkeys(names, 0), Struct("".join(codes)).pack
