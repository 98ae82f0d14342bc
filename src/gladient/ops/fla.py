"""Adapter to flash-linear-attention's Triton kernels (CUDA), with the table of what they hold."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from gladient import _optional
from gladient.ops.call import Call
from gladient.ops.gates import to_heads

__all__ = ["TABLE", "Kernels", "arguments", "kernel", "not_held", "require", "run", "why_not"]


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
_GDN = Kernels("fla.ops.gated_delta_rule", "chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule")
_KDA = Kernels("fla.ops.kda", "chunk_kda", "fused_recurrent_kda")
_COMBA = Kernels("fla.ops.comba", "chunk_comba", "fused_recurrent_comba")
_DPLR = Kernels("fla.ops.generalized_delta_rule", "chunk_dplr_delta_rule", "fused_recurrent_dplr_delta_rule")
_GDN2 = Kernels("fla.ops.gdn2", "chunk_gdn2", "fused_recurrent_gdn2")

TABLE: dict[tuple[str, str, str], Kernels] = {
    ("plain", "none", "after"): _SIMPLE,
    ("plain", "scalar", "after"): _SIMPLE,
    ("plain", "key", "after"): _GLA,
    ("plain", "scalar×key", "after"): _GLA,
    ("plain", "value", "after"): _GLA_STEPS,
    ("plain", "scalar×value", "after"): _GLA_STEPS,
    ("plain", "key×value", "after"): _GLA_STEPS,
    ("plain", "scalar×key×value", "after"): _GLA_STEPS,
    ("plain", "scalar", "before"): _RWKV6,
    ("plain", "key", "before"): _RWKV6,
    ("plain", "scalar×key", "before"): _RWKV6,
    ("delta", "none", "after"): _GDN,
    ("delta", "scalar", "after"): _GDN,
    ("delta", "key", "after"): _KDA,
    ("delta", "scalar×key", "after"): _KDA,
    ("delta with erase", "none", "after"): _GDN2,
    ("delta with erase", "scalar", "after"): _GDN2,
    ("delta with erase", "key", "after"): _GDN2,
    ("delta with erase", "scalar×key", "after"): _GDN2,
    ("delta with erase_keys", "none", "after"): _COMBA,
    ("delta with erase_keys", "scalar", "after"): _COMBA,
    ("generalised delta", "none", "after"): _DPLR,
    ("generalised delta", "scalar", "after"): _DPLR,
    ("generalised delta", "key", "after"): _DPLR,
    ("generalised delta", "scalar×key", "after"): _DPLR,
}
"""The kernels of flash-linear-attention by write, gates and read."""
_SMALLEST_DOT = 16  # Triton's dot needs head dimensions of at least this
_MOST_KEYS = 256  # the kernels of the delta rule's chunks raise above it: they hold all rows of a state at once
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
    if not call.q.is_cuda:
        return f"q is on {call.q.device} and Triton kernels run on CUDA"
    lacking = not_held(call)
    if lacking is not None:
        return lacking
    try:
        require()
    except ImportError as error:
        return str(error)
    return None


def not_held(call: Call) -> str | None:
    """What of this call no kernel holds, wherever it runs; None if one holds all.

    >>> from gladient.ops.call import prepare
    >>> x = torch.zeros(1, 2, 1, 16)
    >>> not_held(prepare(x, x, x, beta=x[..., 0], read="before"))
    "no kernel for write 'delta', form 'chunked', gates 'none', read 'before'"
    """
    name, (K, V) = kernel(call), call.state_shape()[2:]
    if name is None:
        wanted = {"write": _write(call), "form": call.form, "gates": call.gates.family, "read": call.read}
        return "no kernel for " + ", ".join(f"{kind} {value!r}" for kind, value in wanted.items())
    if _write(call) != "plain" and call.form != "chunked" and call.differentiable():
        return f"{name} has no gradients; form='chunked' has them"
    if call.chunk_size is not None:
        return f"chunk_size={call.chunk_size} is for the eager backend; the kernels have chunks of their own"
    if call.q.dtype == torch.float64:
        return "the kernels compute in float32 at most and q is float64"
    if call.form == "chunked" and min(K, V) < _SMALLEST_DOT:
        return f"Triton needs K and V of at least {_SMALLEST_DOT} and they are {K} and {V}"
    if call.form == "chunked" and _write(call) != "plain" and K > _MOST_KEYS:
        return f"{name} holds K up to {_MOST_KEYS} and it is {K}"
    if call.bonus is not None and call.q.shape[0] > 1 and call.bonus.stride(0) != 0:
        return "the kernels take one bonus [H, K] for all rows"
    return None


def kernel(call: Call) -> str | None:
    """Name of the function that computes this call's family in its form, or None.

    >>> from gladient.ops.call import prepare
    >>> x = torch.zeros(1, 2, 1, 16)
    >>> kernel(prepare(x, x, x, gk=x))
    'chunk_gla'
    """
    row = TABLE.get(_key(call))
    if row is None or call.form not in ("chunked", "recurrent", "step"):
        return None
    return row.chunked if call.form == "chunked" else row.recurrent


def _key(call: Call) -> tuple[str, str, str]:
    return _write(call), call.gates.family, call.read


def _write(call: Call) -> str:
    if call.beta is None:
        return "plain" if call.a is None else "generalised delta"
    given = [name for name in ("erase", "erase_keys") if getattr(call, name) is not None]
    return " with ".join(("delta", *given[:1])) + "".join(f" and {name}" for name in given[1:])


def run(call: Call) -> tuple[Tensor, Tensor | None]:
    """Calls the kernel; `scale` is always among the options, as fla's own default is K^-1/2."""
    name = str(kernel(call))
    module = _optional.require(TABLE[_key(call)].module, needed_for="backend='fla'", install=_INSTALL)
    initial = None if call.initial_state is None else call.initial_state.float()
    options: dict[str, Any] = {"scale": call.scale, "initial_state": initial}
    options["output_final_state"] = call.wants_final()
    if len(call.offsets) > 2:
        options["cu_seqlens"] = torch.tensor(call.offsets, device=call.q.device)
    return getattr(module, name)(**arguments(call, name), **options)


def arguments(call: Call, name: str) -> dict[str, Tensor]:
    """Our tensors under the names that function `name` gives them."""
    H = call.heads
    q, k, v, gates = to_heads(call.q, H), to_heads(call.k, H), to_heads(call.v, H), call.gates.to_heads(H)
    strengths = {} if call.beta is None else _strengths(call)
    if "simple_gla" in name or "gated_delta_rule" in name or "comba" in name:
        return {"q": q, "k": k, "v": v, "g": q.new_zeros(q.shape[:3]) if gates.g is None else gates.g} | strengths
    # The kernels that are left know no scalar gate: it becomes part of every key channel's.
    key = gates.gk if gates.g is None else gates.g[..., None] + (torch.zeros_like(k) if gates.gk is None else gates.gk)
    if call.a is not None:
        a, b = (to_heads(cast(Tensor, x), H) for x in (call.a, call.b))
        return {"q": q, "k": k, "v": v, "a": a, "b": b, "gk": torch.zeros_like(k) if key is None else key}
    if strengths:
        return {"q": q, "k": k, "v": v, "g": torch.zeros_like(k) if key is None else key} | strengths
    if "rwkv6" in name:
        u = q.new_zeros(H, q.shape[3]) if call.bonus is None else call.bonus[0]
        return {"r": q, "k": k, "v": v, "w": torch.zeros_like(k) if key is None else key, "u": u}
    gv = {} if gates.gv is None else {"gv": gates.gv}
    gk = {} if key is None else {"g" if name == "chunk_gla" else "gk": key}
    return {"q": q, "k": k, "v": v, **gk, **gv}


def _strengths(call: Call) -> dict[str, Tensor]:
    """The delta rule's beta; Comba's with its keys p; Gated DeltaNet-2's b of key and w of value channels."""
    beta = to_heads(cast(Tensor, call.beta), call.heads)
    if call.erase_keys is not None:
        return {"beta": beta, "p": to_heads(call.erase_keys, call.heads)}
    if call.erase is None:
        return {"beta": beta}
    return {"b": _each_channel(to_heads(call.erase, call.heads), call.k), "w": _each_channel(beta, call.v)}


def _each_channel(strength: Tensor, x: Tensor) -> Tensor:
    return strength if strength.ndim == 4 else strength[..., None].expand(*strength.shape, x.shape[3])
