"""The native kernels as PyTorch operators: `torch.ops.gladient.scan`, `last_query` and `step`.

Rates A [B, heads, K, V] and the bonus [B, H, K] may be expanded views; a state has a row for each sequence.
"""

from typing import Any

from torch import Tensor

from gladient.ops.native import plain
from gladient.ops.native.library import call, empty
from gladient.ops.native.registry import arguments, define, differentiable, fake_gradients, fields, named
from gladient.ops.native.sequences import CHUNK, Rule

__all__ = ["CHUNK", "LAST", "last_query", "scan", "step", "step_"]


_INPUTS = ("q", "k", "v", "g", "gk", "gv", "G", "A", "dt", "bonus", "initial")
LAST = ("q", "k", "v", "g", "gk", "gv")
"""What the kernel of last queries reads, in the order of its struct."""
_RULE = Rule(_INPUTS, ("checkpoints",), kernel="scan", plain=plain.scan)

scan = _RULE.define("scan")
"""All tokens: outputs, final states and checkpoints."""
step: Any
"""One token: its output and the state after it."""
step_: Any
"""One token, into the state that was given: its output."""
step, step_ = _RULE.define_steps("step")


def _last_query(*given: Any) -> Tensor:
    *inputs, scale = given
    tensors = named(inputs, LAST)
    q, v = tensors["q"], tensors["v"]
    o = empty((*q.shape[:3], v.shape[3]), q.dtype)
    _run_last_query(tensors, {"o": o}, scale)
    return o


def _run_last_query(tensors: dict[str, Tensor], extra: dict[str, Tensor], scale: float) -> None:
    """Runs the kernel; backward where d_o is among `extra`."""
    B, T = tensors["k"].shape[:2]
    # With one value channel a scalar gate is a value gate, which the kernel takes for all heads at once, in lanes.
    if tensors["v"].shape[3] == 1 and "gv" not in tensors:
        tensors = {{"g": "gv"}.get(name, name): x for name, x in tensors.items()}
        extra = {{"d_g": "d_gv"}.get(name, name): x for name, x in extra.items()}
    given = fields(tensors, tensors["q"].shape[2], **extra)
    del given["hq"]  # here queries have all heads
    call("last_query", tensors["q"].dtype, N=B, T=T, scale=scale, **given)


def _last_query_backward(d_o: Tensor, *given: Any) -> list[Tensor]:
    *inputs, scale, needed = given
    tensors = named(inputs, LAST)
    wanted = {name: tensors[name] for name, need in zip(LAST, needed, strict=True) if need}
    gradients = {name: empty(x.shape, x.dtype) for name, x in wanted.items()}
    extra = {"d_o": d_o.contiguous()} | {f"d_{name}": d for name, d in gradients.items()}
    _run_last_query(tensors, extra, scale)
    return list(gradients.values())


last_query = differentiable(
    define(
        "last_query",
        f"({arguments(LAST)}, float scale) -> Tensor",
        _last_query,
        lambda q, k, v, *_: q.new_empty(*q.shape[:3], v.shape[3]),
    ),
    define(
        "last_query_backward",
        f"(Tensor d_o, {arguments(LAST)}, float scale, bool[] needed) -> Tensor[]",
        _last_query_backward,
        lambda d_o, *x: fake_gradients(x[:-2], x[-1]),
    ),
    plain.last_query,
    tensors=len(LAST),
    options=1,
)
"""The last output alone."""
