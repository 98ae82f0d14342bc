"""Checks of the operator's arguments: shapes and dtypes always, values on request."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import index
from typing import Any

import torch
from torch import Tensor

__all__ = ["check_kinds", "check_shapes", "check_state", "check_values", "borders"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_kinds(tensors: Mapping[str, Any]) -> None:
    """Raises TypeError or ValueError unless all, q first, are real tensors of one precision on one device."""
    q = tensors["q"]
    for name, x in tensors.items():
        if x is None and name not in ("q", "k", "v"):
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} is {type(x).__name__}; it must be a torch.Tensor: wrap it in torch.as_tensor")
        if x.dtype not in _DTYPES:
            raise TypeError(f"{name} has dtype {x.dtype}; it must hold real floating-point numbers: call .float()")
        if (x.dtype == torch.float64) != (q.dtype == torch.float64):
            raise TypeError(f"{name} has dtype {x.dtype} and q {q.dtype}; all or none may be float64: convert {name}")
        if x.device != q.device:
            raise ValueError(f"{name} is on {x.device} and q on {q.device}; they must agree: move one of them")


def check_shapes(
    q: Tensor, k: Tensor, v: Tensor, gates: Mapping[str, Tensor | None], bonus: Tensor | None, one_query: bool
) -> None:
    """Raises ValueError for the first argument whose shape breaks a rule."""
    named = {"q": q, "k": k, "v": v, **{name: x for name, x in gates.items() if x is not None}}
    for name in ("q", "k", "v"):
        if named[name].ndim != 4:
            raise ValueError(f"{name} has shape {_shape(named[name])}; it must be [B, T, heads, channels]")
    (B, steps, H, K), T, V = q.shape, k.shape[1], v.shape[3]
    if steps != T and not (one_query and steps == 1):
        raise ValueError(f"q has {steps} steps and k has {T}; they must agree (form='last_query' also takes one query)")
    channels = {"k": (K,), "v": (V,), "g": (), "gk": (K,), "gv": (V,), "G": (K, V)}
    for name, rest in channels.items():
        if name not in named:
            continue
        x = named[name]
        if x.ndim != 3 + len(rest) or _shape(x)[:2] != (B, T) or _shape(x)[3:] != rest:
            wanted = ", ".join(map(str, (B, T, "heads", *rest)))
            hint = " or, for a fixed decay per head, [H]" if name == "g" else ""
            raise ValueError(f"{name} has shape {_shape(x)}; beside q {_shape(q)} and v it must be [{wanted}]{hint}")
        if x.shape[2] == 0 or H % x.shape[2]:
            raise ValueError(f"{name} has {x.shape[2]} heads and q has {H}; its number of heads must divide q's")
    if bonus is not None and _shape(bonus) not in ((H, K), (B, H, K)):
        raise ValueError(f"bonus has shape {_shape(bonus)}; it must be [H, K] = {(H, K)}")


def check_state(initial_state: Tensor, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the state is [sequences, H, K, V]."""
    if _shape(initial_state) != shape:
        raise ValueError(f"initial_state has shape {_shape(initial_state)}; it must be [sequences, H, K, V] = {shape}")


def check_values(values: Mapping[str, Tensor | None]) -> None:
    """Raises ValueError for NaN or infinity in q, k, v, and for log gates that are NaN or above 0."""
    for name, x in values.items():
        if x is None:
            continue
        if name in ("g", "gk", "gv", "G"):
            if not bool((x <= 0).all()):
                raise ValueError(f"{name} holds NaN or a log gate above 0; gates lie in [0, 1]: pass their logarithms")
        elif not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")


def borders(cu_seqlens: Tensor | Sequence[int] | None, B: int, T: int) -> tuple[int, ...]:
    """Borders of the packed sequences in every row of the batch.

    >>> borders(None, 2, 5), borders([0, 2, 5], 1, 5)
    ((0, 5), (0, 2, 5))
    """
    if cu_seqlens is None:
        return (0, T)
    given = cu_seqlens.tolist() if isinstance(cu_seqlens, Tensor) else cu_seqlens
    try:
        values = tuple(index(x) for x in given)
    except TypeError:
        raise TypeError(f"cu_seqlens is {given!r}; it must be whole numbers that rise from 0 to T = {T}") from None
    if B != 1:
        raise ValueError(f"cu_seqlens came with a batch of {B}; packed sequences lie in one row: use B = 1")
    if len(values) < 2 or values[0] != 0 or values[-1] != T or any(b < a for a, b in pairwise(values)):
        raise ValueError(f"cu_seqlens is {list(values)}; it must rise from 0 to T = {T}")
    return values


def _shape(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
