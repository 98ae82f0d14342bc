"""The native backend: the kernels of this package on CPU cores, for every gate family, with their gradients."""

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gladient.ops._function import BatchFunction
from gladient.ops._library import library
from gladient.ops._memory import empty
from gladient.ops.gates import Gates

__all__ = ["scan", "last_query", "CHUNK"]

CHUNK = 16  # tokens, C in scan.cpp


def scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Gates,
    *,
    scale: float,
    initial_state: Tensor,
    offsets: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """All outputs and the final states of every sequence, each of them tokens offsets[n] to offsets[n + 1] of its row.

    Every gate family, full gates included; the backward pass starts again from a state kept every 16 or 64 tokens.

    Args:
        q: queries, [B, T, H, K]; k, v and gates as in `gated_linear_attention`, with as many heads or a divisor.
        k: keys.
        v: values.
        gates: log gates.
        scale: factor of every output.
        initial_state: [B, sequences, H, K, V].
        offsets: borders of the sequences that every row of the batch holds, from 0 to T.

    Returns:
        o: [B, T, H, V].
        final_state: [B, sequences, H, K, V].
    """
    if gates.G is not None:
        gates = Gates(G=gates.to_heads(q.shape[2]).combined())
    inputs = (q, k, v, gates.g, gates.gk, gates.gv, gates.G, initial_state)
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    o, final, _ = _Scan.apply(scale, tuple(offsets), train, *inputs)
    return o, final


_NUMBERS = {torch.float32: ("float", ctypes.c_float), torch.float64: ("double", ctypes.c_double)}
_INPUTS = ("q", "k", "v", "g", "gk", "gv")
_NAMES = (*_INPUTS, "G", "initial")
_HEADS = ("hk", "hv", "hg", "hgk", "hgv")
_SCAN = (
    "offsets",
    "span_offsets",
    *_NAMES,
    "o",
    "final",
    "checkpoints",
    "d_o",
    "d_final",
    *(f"d_{x}" for x in _NAMES),
)
_LAST = (*_INPUTS, "o", "d_o", *(f"d_{x}" for x in _INPUTS))


def _struct(sizes: Sequence[str], dtype: torch.dtype, pointers: Sequence[str]) -> type[ctypes.Structure]:
    """A struct of the kernels: whole numbers, the scale, addresses."""
    fields: list[tuple[str, Any]] = [(name, ctypes.c_int64) for name in sizes]
    fields += [("scale", _NUMBERS[dtype][1]), *((name, ctypes.c_void_p) for name in pointers)]
    return type("Problem", (ctypes.Structure,), {"_fields_": fields})


_SCANS = {dtype: _struct(("N", "H", *_HEADS, "K", "V", "span", "threads"), dtype, _SCAN) for dtype in _NUMBERS}
_LAST_QUERIES = {dtype: _struct(("N", "T", "H", *_HEADS, "K", "V", "threads"), dtype, _LAST) for dtype in _NUMBERS}


def _sizes(H: int, tensors: dict[str, Tensor]) -> dict[str, int]:
    heads = {f"h{x}": tensors[x].shape[2] if x in tensors else 1 for x in ("k", "v", "g", "gk", "gv")}
    channels = {"K": tensors["k"].shape[3], "V": tensors["v"].shape[3]}
    return {"H": H, "threads": torch.get_num_threads(), **heads, **channels}


def _addresses(tensors: dict[str, Tensor]) -> dict[str, int]:
    return {name: x.data_ptr() for name, x in tensors.items()}


def _scan(backward: bool, scale: float, sequences: int, tensors: dict[str, Tensor]) -> None:
    q = tensors["q"]
    span = _span(tensors["initial"])
    problem = _SCANS[q.dtype](N=sequences, span=span, scale=scale, **_sizes(q.shape[2], tensors), **_addresses(tensors))
    kernel = "full" if "G" in tensors else "scan"
    getattr(library(), f"{kernel}_{_NUMBERS[q.dtype][0]}")(ctypes.byref(problem), int(backward))


def last_query(scale: float, inputs: Sequence[Tensor | None], outputs: dict[str, Tensor]) -> None:
    """Fills `outputs`: o, or the gradients asked for (d_q …) beside an upstream d_o. q is [B, 1, H, K].

    No autograd here: `gladient.ops.last_query` has the function around it.
    """
    q = inputs[0]
    assert q is not None
    tensors = {name: x.contiguous() for name, x in zip(_INPUTS, inputs, strict=True) if x is not None} | outputs
    if tensors["v"].shape[3] == 1 and "gv" not in tensors:  # with one value channel a scalar gate is a value gate
        tensors = {{"g": "gv", "d_g": "d_gv"}.get(name, name): x for name, x in tensors.items()}
    B, T = tensors["k"].shape[:2]
    problem = _LAST_QUERIES[q.dtype](N=B, T=T, scale=scale, **_sizes(q.shape[2], tensors), **_addresses(tensors))
    getattr(library(), f"last_query_{_NUMBERS[q.dtype][0]}")(ctypes.byref(problem))


def _borders(offsets: Sequence[int], rows: int, tokens: int) -> dict[str, Tensor]:
    """Borders of all sequences of all rows, in tokens and in spans of `tokens`, each of which keeps one state."""
    lengths = np.tile(np.diff(offsets), rows)
    counts = {"offsets": lengths, "span_offsets": -(-lengths // tokens)}
    return {name: torch.from_numpy(np.append(0, x.cumsum())) for name, x in counts.items()}


def _span(state: Tensor) -> int:
    """Chunks between the states that are kept: large states cost more to keep than to compute again."""
    return 4 if state.shape[-2] * state.shape[-1] >= 1024 else 1


def _named(inputs: Sequence[Tensor | None]) -> dict[str, Tensor]:
    return {name: x.contiguous() for name, x in zip(_NAMES, inputs, strict=True) if x is not None}


def _forward(
    scale: float, offsets: Sequence[int], train: bool, inputs: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = _named(inputs)
    q, v, initial = tensors["q"], tensors["v"], tensors["initial"]
    rows = len(q)
    tokens = CHUNK * _span(initial)
    spans = rows * sum(-(-(stop - start) // tokens) for start, stop in pairwise(offsets)) if train else 0
    outputs = {
        "o": empty((*q.shape[:3], v.shape[3]), q.dtype),
        "final": empty(initial.shape, q.dtype),
        "checkpoints": empty((rows, spans // max(rows, 1), *initial.shape[2:]), q.dtype),
    }
    written = outputs if train else {name: x for name, x in outputs.items() if name != "checkpoints"}
    _scan(False, scale, rows * (len(offsets) - 1), tensors | _borders(offsets, rows, tokens) | written)
    return outputs["o"], outputs["final"], outputs["checkpoints"]


class _Scan(BatchFunction):
    @staticmethod
    def forward(
        scale: float, offsets: tuple[int, ...], train: bool, *inputs: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _forward(scale, offsets, train, inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.scale, ctx.offsets = inputs[:2]
        ctx.save_for_backward(*inputs[3:], output[2])
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, d_o: Tensor, d_final: Tensor, _: Any) -> tuple[Any, ...]:
        gradients = _ScanGradient.apply(ctx.scale, ctx.offsets, d_o, d_final, *ctx.saved_tensors)
        return (None, None, None, *gradients)


class _ScanGradient(BatchFunction):
    @staticmethod
    def forward(
        scale: float, offsets: tuple[int, ...], d_o: Tensor, d_final: Tensor, *saved: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        *inputs, kept = saved
        tensors, H = _named(inputs), d_o.shape[2]
        gradients = {
            name: empty(x.shape if name == "initial" else (*x.shape[:2], H, *x.shape[3:]), x.dtype)
            for name, x in tensors.items()
        }
        if kept is None or kept.numel() == 0:
            kept = _forward(scale, offsets, True, inputs)[2]
        upstream = {"checkpoints": kept, "d_o": d_o.contiguous(), "d_final": d_final.contiguous()}
        borders = _borders(offsets, len(d_o), CHUNK * _span(tensors["initial"]))
        rows, results = len(d_o), {f"d_{name}": x for name, x in gradients.items()}
        _scan(True, scale, rows * (len(offsets) - 1), tensors | borders | upstream | results)
        found = ((x, gradients.get(name)) for x, name in zip(inputs, _NAMES, strict=True))
        return tuple(None if x is None or d is None else _group(d, x) for x, d in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("the native backend has first derivatives only; use form='recurrent' for higher ones")


def _group(gradient: Tensor, x: Tensor) -> Tensor:
    """Sums a gradient over the heads that share a head of x."""
    if gradient.shape == x.shape:
        return gradient
    return gradient.unflatten(2, (x.shape[2], -1)).sum(3)
