"""The delta rule's kernels as PyTorch operators: `torch.ops.gladient.delta`, `delta_step` and `delta_last`."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gladient.ops.native import plain
from gladient.ops.native.library import call
from gladient.ops.native.registry import (
    arguments,
    define,
    differentiable,
    fake_gradients,
    fields,
    named,
    over_heads,
)
from gladient.ops.native.sequences import Rule

__all__ = ["delta", "last_query", "step", "step_"]

_RULE = Rule(
    ("q", "k", "v", "m", "beta", "erase", "g", "gk", "initial"), ("checkpoints", "u"), delta=True, plain=plain.delta
)
_LAST = _RULE.inputs[:-1]

delta = _RULE.define("delta")
"""All tokens: outputs, final states, checkpoints, and what the tokens wrote."""
step: Any
"""One token: its output and the state after it."""
step_: Any
"""One token, into the state that was given: its output."""
step, step_ = _RULE.define_steps("delta_step")


def _last(*given: Any) -> tuple[Tensor, Tensor]:
    *inputs, heads, scale = given
    tensors = named(inputs, _LAST)
    q, v = tensors["q"], tensors["v"]
    o, final = (torch.empty((len(q), 1, heads, n), dtype=q.dtype) for n in (v.shape[3], q.shape[3]))
    _run_last(tensors, heads, scale, o=o, final=final)
    return o, final


def _fake_last(*given: Any) -> tuple[Tensor, Tensor]:
    q, _, v, *_, heads, _ = given
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    o, final = (q.new_empty((q.shape[0], 1, heads, n), dtype=dtype) for n in (v.shape[3], q.shape[3]))
    return o, final


def _last_backward(d_o: Tensor | None, d_final: Tensor | None, *given: Any) -> list[Tensor]:
    *inputs, heads, scale, needed = given
    tensors = named(inputs, _LAST)
    B, v = len(tensors["q"]), tensors["v"]
    extra = {"d_o": v.new_zeros(B, 1, heads, v.shape[3]) if d_o is None else d_o.to(v.dtype).contiguous()}
    if d_final is not None:
        extra["d_final"] = d_final.contiguous()
    wanted = {name: x for name, x, need in zip(_LAST, inputs, needed, strict=True) if need}
    found = {name: v.new_empty(*x.shape[:2], heads, *x.shape[3:]) for name, x in wanted.items()}
    _run_last(tensors, heads, scale, **extra, **{f"d_{name}": d for name, d in found.items()})
    return [over_heads(found[name], x, 2) for name, x in wanted.items()]


def _run_last(tensors: dict[str, Tensor], heads: int, scale: float, **extra: Tensor) -> None:
    """Runs the kernel; backward where d_o is among `extra`."""
    B, T = tensors["k"].shape[:2]
    offsets = np.array([0, T])
    sizes = fields(tensors, heads, **extra)
    call("delta_last", tensors["q"].dtype, N=B, scale=scale, offsets=offsets.ctypes.data, **sizes)


last_query = differentiable(
    define("delta_last", f"({arguments(_LAST)}, SymInt heads, float scale) -> (Tensor, Tensor)", _last, _fake_last),
    define(
        "delta_last_backward",
        f"(Tensor? d_o, Tensor? d_final, {arguments(_LAST)}, SymInt heads, float scale, bool[] needed) -> Tensor[]",
        _last_backward,
        lambda d_o, d_final, *x: fake_gradients(x[:-3], x[-1]),
    ),
    plain.delta_last,
    tensors=len(_LAST),
    options=2,
    upstream=2,
)
"""o [B, 1, H, V] from a state of zeros, and [B, 1, H, K] that reads the state before the first token."""
