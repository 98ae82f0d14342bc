"""Checks of the operator's arguments: kinds, shapes and options always, values on request."""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import index
from typing import Any, get_args

import torch
from torch import Tensor

from gladient.ops.tracing import untraced

__all__ = [
    "LayoutWarning",
    "borders",
    "check_kinds",
    "check_option",
    "check_shapes",
    "check_state",
    "check_values",
    "warn_layout",
]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_CHANNELS = {
    "q": "K",
    "k": "K",
    "v": "V",
    "g": "",
    "gk": "K",
    "gv": "V",
    "G": "KV",
    "dt": "V",
    "beta": "V",
    "erase": "K",
    "erase_keys": "K",
    "a": "K",
    "b": "K",
}


_ROUNDING = 1e-5  # of a product of float32 keys of length 1; an error that grows by it takes 10⁵ tokens to matter

_NO_VALUES = "where tensors have no values to look at (one compiled or exported graph, vmap, the meta device)"
_NO_BORDERS = f"cu_seqlens came as a tensor {_NO_VALUES}; pass its list, cu_seqlens.tolist()"
_NO_CHECK = f"check_values=True came {_NO_VALUES}; check before, outside"


class LayoutWarning(UserWarning):
    """The tensors look head-first, [B, H, T, K]; the operator reads them time-first, [B, T, H, K]."""


def check_option(name: str, value: Any, allowed: Any) -> None:
    """Raises ValueError unless the value is among those of a Literal type."""
    if value not in get_args(allowed):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(get_args(allowed))}")


def check_kinds(tensors: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError unless all, q first, are real tensors of one precision on one device."""
    dtype = device = None
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} is {type(x).__name__}; it must be a torch.Tensor: wrap it in torch.as_tensor")
        if x.dtype not in _DTYPES:
            raise TypeError(f"{name} has dtype {x.dtype}; it must hold real floating-point numbers: call .float()")
        if dtype is None:
            dtype, device = x.dtype, x.device
        if x.dtype != dtype and torch.float64 in (x.dtype, dtype):
            raise TypeError(f"{name} has dtype {x.dtype} and q {dtype}; all or none may be float64: convert {name}")
        if x.device != device:
            raise ValueError(f"{name} is on {x.device} and q on {device}; they must agree: move one of them")


def check_shapes(tensors: Mapping[str, Tensor], one_query: bool) -> int:
    """The number of heads H; raises ValueError for the first argument whose shape breaks a rule."""
    for name in ("q", "k", "v"):
        if tensors[name].ndim != 4:
            raise ValueError(f"{name} has shape {_shape(tensors[name])}; it must be [B, T, heads, channels]")
    (B, _, _, K), T, V = tensors["q"].shape, tensors["k"].shape[1], tensors["v"].shape[3]
    start, ends = (B, T), _ends(K, V)
    heads = {}
    for name, x in tensors.items():
        if name in ("A", "bonus"):
            axis = 3 if name == "A" else 2  # from the end
            heads[name] = x.shape[-axis] if x.ndim >= axis else 0
            continue
        shape = x.shape
        if shape[:2] != start or shape[3:] != ends[_channels(name, x)] or len(shape) < 3:
            if name != "q":
                raise ValueError(_wrong_shape(name, x, start, tensors))
            if not (one_query and shape[1] == 1):
                steps = f"q has {shape[1]} steps and k has {T}"
                raise ValueError(f"{steps}; they must agree (form='last_query' also takes one query)")
        heads[name] = shape[2]
    H = max(heads[name] for name in heads if name != "bonus")
    for name, rule, wanted in (("A", "heads, K, V", (heads.get("A"), K, V)), ("bonus", "H, K", (H, K))):
        if name in tensors and _shape(tensors[name]) not in (wanted, (B, *wanted)):
            found = f"{name} has shape {_shape(tensors[name])}"
            raise ValueError(f"{found}; it must be [{rule}] = {wanted} or, apart for each row, [B, {rule}]")
    for name, count in heads.items():
        if count == 0:
            raise ValueError(f"{name} has shape {_shape(tensors[name])}, without heads; it needs one or more")
        if H % count:
            raise ValueError(f"{name} has {count} heads and there are {H}; its number of heads must divide that")
    return H


def warn_layout(k: Tensor, H: int) -> None:
    """Warns the caller's caller of fewer tokens than heads; layers that know their layout do not ask."""
    if 1 < k.shape[1] < H and not torch.compiler.is_compiling():
        suspicion = f"k has shape {_shape(k)}, fewer tokens than the {H} heads"
        cure = "the order is [B, T, H, K]; if yours is [B, H, T, K], call .transpose(1, 2)"
        warnings.warn(f"{suspicion}: {cure}", LayoutWarning, stacklevel=4)  # of who called the public function


def _ends(K: int, V: int) -> dict[str, tuple[int, ...]]:
    """What follows the heads, by its channels."""
    return {"": (), "K": (K,), "V": (V,), "KV": (K, V)}


def _channels(name: str, x: Tensor) -> str:
    """What follows the heads; the delta rule's strengths may also be numbers."""
    return "" if name in ("beta", "erase") and x.ndim < 4 else _CHANNELS[name]


def _wrong_shape(name: str, x: Tensor, start: tuple[int, int], tensors: Mapping[str, Tensor]) -> str:
    shape, ends = _shape(x), _ends(tensors["q"].shape[3], tensors["v"].shape[3])
    wanted = ", ".join(map(str, (*start, "heads", *ends[_channels(name, x)])))
    hint = " or, for a fixed decay per head, [H]" if name == "g" else ""
    if name in ("beta", "erase"):
        hint = f", or one strength per channel of {'v' if name == 'beta' else 'k'} behind that"
    gates = ("g", "gk", "gv", "G")
    by_token = shape[:2] == start and len(shape) > 2
    fits = [f"{other}=" for other in gates if by_token and shape[3:] == ends[_CHANNELS[other]]]
    cure = f"; this is a shape of {' or '.join(fits)}" if name in gates and fits else ""
    return f"{name} has shape {shape}; beside q {_shape(tensors['q'])} and v it must be [{wanted}]{hint}{cure}"


def check_state(initial_state: Tensor, sequences: int, H: int, K: int, V: int) -> None:
    """Raises ValueError unless the state is [sequences, heads, K, V] with heads that divide H."""
    shape = _shape(initial_state)
    if len(shape) != 4 or (shape[0], *shape[2:]) != (sequences, K, V) or not shape[1] or H % shape[1]:
        raise ValueError(f"initial_state has shape {shape}; it must be [sequences, H, K, V] = {(sequences, H, K, V)}")


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError for NaN or infinity, log gates and rates above 0, and steps below 0; each is read once."""
    try:
        _check_each(tensors)
    except RuntimeError as error:  # what PyTorch raises where it is asked for values that are not there
        raise ValueError(_NO_CHECK) from error


@untraced(_NO_CHECK)
def _check_each(tensors: Mapping[str, Tensor]) -> None:
    for name, x in tensors.items():
        if not x.numel():
            continue
        least, most = torch.aminmax(x.detach())  # both are NaN where one entry is
        if name in ("g", "gk", "gv", "G", "A"):
            if not bool(most <= 0):
                raise ValueError(f"{name} holds NaN or a log gate above 0; gates lie in [0, 1]: pass their logarithms")
        elif not (bool(torch.isfinite(least)) and bool(torch.isfinite(most))):
            raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
        elif name == "dt" and bool(least < 0):
            raise ValueError("dt holds a step below 0; with rates A ≤ 0 it would make gates above 1")
        elif name in ("beta", "erase") and not (float(least) >= 0 and float(most) <= 2):
            rule = "it must lie in [0, 2], where a key of length 1 makes no error larger"
            found = f"{name} goes from {float(least):.4g} to {float(most):.4g}"
            raise ValueError(f"{found}; {rule}: pass a sigmoid, or twice one")
        elif name == "a·b" and not (float(least) >= -2 - _ROUNDING and float(most) <= _ROUNDING):
            rule = "it must lie in [-2, 0], where what the state holds for b does not grow"
            found = f"a·b goes from {float(least):.4g} to {float(most):.4g}"
            raise ValueError(f"{found}; {rule}: pass a = -κ and b = rate · κ with κ of length 1 and a rate in [0, 2]")


def borders(cu_seqlens: Tensor | Sequence[int] | None, B: int, T: int) -> tuple[int, ...]:
    """Borders of the packed sequences in every row of the batch.

    >>> borders(None, 2, 5), borders([0, 2, 5], 1, 5)
    ((0, 5), (0, 2, 5))
    """
    if cu_seqlens is None:
        return (0, T)
    try:
        given = _listed(cu_seqlens) if isinstance(cu_seqlens, Tensor) else cu_seqlens
        values = tuple(index(x) for x in given)
    except RuntimeError as error:
        raise ValueError(_NO_BORDERS) from error
    except TypeError:
        raise TypeError(f"cu_seqlens is {given!r}; it must be whole numbers that rise from 0 to T = {T}") from None
    if B != 1:
        raise ValueError(f"cu_seqlens came with a batch of {B}; packed sequences lie in one row: use B = 1")
    if len(values) < 2 or values[0] != 0 or values[-1] != T or any(b < a for a, b in pairwise(values)):
        raise ValueError(f"cu_seqlens is {list(values)}; it must rise from 0 to T = {T}")
    return values


@untraced(_NO_BORDERS)
def _listed(cu_seqlens: Tensor) -> Any:
    return cu_seqlens.tolist()


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
