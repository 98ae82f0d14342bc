"""Small calls that are alike, of one token or one query: the first is checked, the others go straight to the kernel."""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gladient.ops.call import Call
from gladient.ops.native.library import Prepared, empty, prepared
from gladient.ops.native.operators import LAST
from gladient.ops.native.registry import fields
from gladient.ops.watched import TENSORS, followed, plain

__all__ = ["Query", "Step", "likeness", "repeated"]

_OPTIONS = frozenset({bool, int, float, str})


def likeness(given: Mapping[str, Any], backend: str) -> Hashable | None:
    """What other calls share with this one if they are computed alike; None where none may be.

    Shapes, dtypes and options, for plain tensors in memory whose values no tracer, transform or derivative follows: of
    one token into a state, or of one query after several.
    """
    q, k, state = given["q"], given["k"], given.get("initial_state")
    if type(k) is not Tensor or k.ndim != 4 or type(q) not in TENSORS or q.ndim != 4 or q.shape[1] != 1 or followed():
        return None
    if (k.shape[1] == 1) == (state is None) or given.get("cu_seqlens") is not None or given.get("check_values"):
        return None
    recording = torch.is_grad_enabled()
    parts: list[Hashable] = [backend, torch.get_num_threads()]
    for name, x in given.items():
        if x is None:
            continue
        if type(x) in TENSORS:
            if not plain(x, recording):
                return None
            parts += name, x.shape, x.dtype
        elif type(x) in _OPTIONS:
            parts += name, x
        else:  # a tensor of another kind, or what the checks refuse
            return None
    return tuple(parts)


@dataclass(frozen=True)
class Step:
    """How the kernel computes calls of one token like one that was checked.

    Args:
        kernel: takes the addresses of the tensors.
        layout: name, place of the address, shape and dtype of every tensor that is given.
        like: as empty as the output.
        inplace: whether the state is overwritten.
    """

    kernel: Prepared
    layout: tuple[tuple[str, int, torch.Size, torch.dtype], ...]
    like: Tensor
    inplace: bool

    def __call__(self, given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The output and the state after it, of arguments by name whose likeness is that of the checked ones."""
        addresses = [0] * self.kernel.length
        for name, place, _, _ in self.layout:
            addresses[place] = given[name].data_ptr()
        return self.run(addresses, given["initial_state"])

    def run(self, addresses: list[int], initial: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the addresses of all that is given, zeros elsewhere."""
        o, final = torch.empty_like(self.like), initial if self.inplace else torch.empty_like(initial)
        addresses[-2], addresses[-1] = o.data_ptr(), final.data_ptr()  # the last ones of problem.h that a step has
        self.kernel.run(addresses)
        if self.inplace:
            torch.autograd.graph.increment_version(initial)  # so that a backward pass that saved it raises
        return o, final


@dataclass(frozen=True)
class Query:
    """The same for the last query of whole sequences.

    Args:
        kernel: takes the addresses of the tensors.
        shape: the output's shape; its dtype is that of the queries.
        gated: whether a gate of 0 may have to drop an infinity.
    """

    kernel: Prepared
    shape: tuple[int, ...]
    gated: bool

    def __call__(self, given: Mapping[str, Any]) -> tuple[Tensor, None] | None:
        """The output; None where what is not finite in it has to be looked at."""
        o = empty(self.shape, given["q"].dtype)
        self.kernel.run([*(0 if (x := given.get(name)) is None else x.data_ptr() for name in LAST), o.data_ptr()])
        return None if self.gated and not math.isfinite(o.sum().item()) else (o, None)


def repeated(call: Call, given: Mapping[str, Any]) -> Step | Query | None:
    """How the kernel computes calls like this checked one; None if they take more than the kernel."""
    return _query(call) if call.form == "last_query" else _step(call, given)


def _query(call: Call) -> Query | None:
    gates, q, v = call.gates, call.q, call.v
    tensors = zip(LAST, (q, call.k, v, gates.g, gates.gk, gates.gv), strict=True)
    there = {name: x for name, x in tensors if x is not None}
    if (
        len(there) != len(call.tensors())  # a state, rates or another rule
        or any(x.dtype != v.dtype or not x.numel() or not x.is_contiguous() for x in there.values())
        or v.dtype not in (torch.float32, torch.float64)
        or call.wants_final()
        or call.read == "before"
        or q.shape[2] != call.heads
        or v.shape[1] < call.heads  # of which every call warns
        or v.shape[3] == 1  # whose scalar gates the kernel takes under another name
    ):
        return None
    sizes = fields(there, call.heads) | {"N": len(v), "T": v.shape[1], "scale": call.scale}
    del sizes["hq"]  # here queries have all heads
    kernel = prepared("last_query", v.dtype, (*LAST, "o"), **sizes)
    return Query(kernel, (*q.shape[:3], v.shape[3]), gates.family != "none")


def _step(call: Call, given: Mapping[str, Any]) -> Step | None:
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
    kernel = prepared("step", v.dtype, (*sources, "o", "final"), **fields(tensors | rows, call.heads), **sizes)
    layout = [(sources[name], kernel.places[name], x.shape, x.dtype) for name, x in tensors.items()]
    return Step(kernel, tuple(layout), v.new_empty(len(v), 1, call.heads, v.shape[3]), call.inplace)
