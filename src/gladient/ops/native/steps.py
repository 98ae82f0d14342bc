"""Decoding: of calls of one token that are alike, the first is checked, and the others go straight to the kernel."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gladient.ops.call import Call
from gladient.ops.native.library import prepared
from gladient.ops.native.registry import fields

__all__ = ["Step", "likeness", "repeated"]

Step: TypeAlias = Callable[[Mapping[str, Any]], tuple[Tensor, Tensor]]
"""The output and the state after it, of the arguments of the public function by name."""

_PLAIN = (bool, int, float, str)


def likeness(given: Mapping[str, Any], backend: str) -> Hashable | None:
    """What other calls of one token share with this one if they are computed alike; None where none may be.

    Shapes, dtypes and options, for plain tensors in memory whose values no tracer, transform or derivative follows.
    """
    k = given["k"]
    if torch.compiler.is_compiling() or type(k) is not Tensor or k.ndim != 4 or k.shape[1] != 1:
        return None
    if given.get("initial_state") is None or given.get("cu_seqlens") is not None or given.get("check_values"):
        return None
    if torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack():
        return None
    if torch._C._len_torch_function_stack() or torch.jit.is_tracing() or forward_ad._current_level >= 0:
        return None
    recording, parts = torch.is_grad_enabled(), [backend, torch.get_num_threads()]
    for name, x in given.items():
        if x is None:
            continue
        kind = type(x)
        if kind is Tensor or kind is nn.Parameter:
            if not (x.is_cpu and x.is_contiguous()) or x.is_neg() or (recording and x.requires_grad):
                return None
            parts += name, x.shape, x.dtype
        elif kind in _PLAIN:
            parts += name, x
        else:  # a tensor of another kind, or what the checks refuse
            return None
    return tuple(parts)


def repeated(call: Call, given: Mapping[str, Any]) -> Step | None:
    """How the kernel computes calls like this checked one; None if they take more than the kernel."""
    sources = {name: name for name in ("q", "k", "v", "g", "gk", "gv", "G", "A", "dt", "bonus", "a", "b", "beta")}
    sources |= {"m": "erase_keys", "erase": "beta" if call.erase is None else "erase", "initial": "initial_state"}
    sources = {name: public for name, public in sources.items() if given.get(public) is not None}
    tensors = {name: given[public] for name, public in sources.items()}
    gates, v, state = call.gates, call.v, call.initial_state
    if (
        state is not tensors["initial"]  # its heads were repeated
        or v.dtype not in (torch.float32, torch.float64)
        or any(x.dtype != v.dtype or not x.numel() for x in tensors.values())
        or any(x is not None and x.ndim == 4 for x in (call.beta, call.erase))
        or any(x.ndim == 4 for x in (tensors.get("A"),) if x is not None)
        or tensors.get("bonus", v[0, 0]).ndim > 2
        or tensors.get("g", v[0]).ndim == 1
        or (gates.family not in ("full", "rates") and (gates.G is not None or gates.A is not None))
    ):
        return None
    # for the sizes: those that have no tokens have rows there
    rows = {name: tensors[name][None] for name in ("A", "bonus") if name in tensors}
    sizes = {"N": len(v), "scale": call.scale, "before": call.read == "before", "delta": call.beta is not None}
    run = prepared("step", v.dtype, (*sources, "o", "final"), **fields(tensors | rows, call.heads), **sizes)
    shape, names, inplace = (len(v), 1, call.heads, v.shape[3]), tuple(sources.values()), call.inplace

    def step(given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        initial = given["initial_state"]
        o, final = torch.empty(shape, dtype=v.dtype), initial if inplace else torch.empty_like(initial)
        run(*[given[name].data_ptr() for name in names], o.data_ptr(), final.data_ptr())
        if inplace:
            torch.autograd.graph.increment_version(initial)  # so that a backward pass that saved it raises
        return o, final

    return step
