"""Adapter to flash-linear-attention's Triton kernels (CUDA), with the table of what they hold."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gladient import _optional
from gladient.ops.call import Call
from gladient.ops.gates import to_heads

__all__ = ["TABLE", "Kernels", "arguments", "kernel", "require", "run", "why_not"]


@dataclass(frozen=True)
class Kernels:
    """The functions of one module of fla that compute one family: whole sequences in chunks, and token by token."""

    module: str
    chunked: str | None
    recurrent: str | None


_SIMPLE = Kernels("fla.ops.simple_gla", "chunk_simple_gla", "fused_recurrent_simple_gla")
_GLA = Kernels("fla.ops.gla", "chunk_gla", "fused_recurrent_gla")
_GLA_STEPS = Kernels("fla.ops.gla", None, "fused_recurrent_gla")
_RWKV6 = Kernels("fla.ops.rwkv6", "chunk_rwkv6", "fused_recurrent_rwkv6")

TABLE: dict[tuple[str, str], Kernels] = {
    ("none", "after"): _SIMPLE,
    ("scalar", "after"): _SIMPLE,
    ("key", "after"): _GLA,
    ("scalar×key", "after"): _GLA,
    ("value", "after"): _GLA_STEPS,
    ("scalar×value", "after"): _GLA_STEPS,
    ("key×value", "after"): _GLA_STEPS,
    ("scalar×key×value", "after"): _GLA_STEPS,
    ("scalar", "before"): _RWKV6,
    ("key", "before"): _RWKV6,
    ("scalar×key", "before"): _RWKV6,
}
_SMALLEST_DOT = 16  # Triton's dot needs head dimensions of at least this
_INSTALL = "pip install 'gladient[gpu]'"


def require() -> None:
    """Raises ImportError unless flash-linear-attention, Triton and a CUDA device are there."""
    for module in ("triton", "fla"):
        if not _optional.have(module):
            _optional.require(module, needed_for="backend='fla'", install=_INSTALL)
    if not torch.cuda.is_available():
        raise ImportError("backend='fla' needs a CUDA device and torch sees none; use backend='auto' on this machine")


def why_not(call: Call, named: bool = False) -> str | None:
    """None if a kernel of fla holds this call, else the reason why not."""
    q, v = call.q, call.v
    if not q.is_cuda:
        return f"q is on {q.device} and Triton kernels run on CUDA"
    if kernel(call) is None:
        rule = "" if call.beta is None else "the delta rule, "
        return f"no kernel for {rule}form {call.form!r}, gates {call.gates.family!r}, read {call.read!r}"
    if call.chunk_size is not None:
        return f"chunk_size={call.chunk_size} is for the eager backend; the kernels have chunks of their own"
    if q.dtype == torch.float64:
        return "the kernels compute in float32 at most and q is float64"
    if call.form == "chunked" and min(q.shape[3], v.shape[3]) < _SMALLEST_DOT:
        return f"Triton needs K and V of at least {_SMALLEST_DOT} and they are {q.shape[3]} and {v.shape[3]}"
    if call.bonus is not None and len(q) > 1 and call.bonus.stride(0) != 0:
        return "the kernels take one bonus [H, K] for all rows"
    try:
        require()
    except ImportError as error:
        return str(error)
    return None


def kernel(call: Call) -> str | None:
    """Name of the function that computes this call's family in its form, or None.

    >>> from gladient.ops.call import prepare
    >>> x = torch.zeros(1, 2, 1, 16)
    >>> kernel(prepare(x, x, x, gk=x))
    'chunk_gla'
    """
    row = TABLE.get((call.gates.family, call.read))
    if row is None or call.beta is not None or call.form not in ("chunked", "recurrent", "step"):
        return None
    return row.chunked if call.form == "chunked" else row.recurrent


def run(call: Call) -> tuple[Tensor, Tensor | None]:
    """Calls the kernel; `scale` is always among the options, as fla's own default is K^-1/2."""
    name = str(kernel(call))
    module = _optional.require(TABLE[call.gates.family, call.read].module, needed_for="backend='fla'", install=_INSTALL)
    options: dict[str, Any] = {"scale": call.scale, "initial_state": call.initial_state}
    options["output_final_state"] = call.output_final_state or call.inplace
    if len(call.offsets) > 2:
        options["cu_seqlens"] = torch.tensor(call.offsets, device=call.q.device)
    return getattr(module, name)(**arguments(call, name), **options)


def arguments(call: Call, name: str) -> dict[str, Tensor]:
    """Our tensors under the names that function `name` gives them."""
    H = call.heads
    q, k, v, gates = to_heads(call.q, H), to_heads(call.k, H), to_heads(call.v, H), call.gates.to_heads(H)
    if "simple_gla" in name:
        return {"q": q, "k": k, "v": v, "g": q.new_zeros(q.shape[:3]) if gates.g is None else gates.g}
    key = gates.gk if gates.g is None else gates.g[..., None] + (torch.zeros_like(k) if gates.gk is None else gates.gk)
    if "rwkv6" in name:
        u = q.new_zeros(H, q.shape[3]) if call.bonus is None else call.bonus[0]
        return {"r": q, "k": k, "v": v, "w": torch.zeros_like(k) if key is None else key, "u": u}
    gv = {} if gates.gv is None else {"gv": gates.gv}
    gk = {} if key is None else {"g" if name == "chunk_gla" else "gk": key}
    return {"q": q, "k": k, "v": v, **gk, **gv}
