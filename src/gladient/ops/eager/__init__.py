"""The eager backend: plain PyTorch on any device, one form per file."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gladient._autocast import casts, unrounded
from gladient.ops._sequences import accumulation, last_queries, own_writes
from gladient.ops.call import Call
from gladient.ops.eager import delta
from gladient.ops.eager.chunked import chunked
from gladient.ops.eager.last_query import final_state, last_query
from gladient.ops.eager.parallel import parallel
from gladient.ops.eager.recurrent import recurrent
from gladient.ops.eager.sequences import each_sequence, read_before
from gladient.ops.gates import to_heads

__all__ = ["form", "run", "why_not"]

_FORMS: dict[str, Callable[..., Any]] = {"recurrent": recurrent, "parallel": parallel, "chunked": chunked}
_FORMS["step"] = recurrent


def why_not(call: Call, named: bool = False) -> str | None:
    """None: it holds every call."""
    return None


def form(call: Call) -> str:
    """The form that runs: the call's, or what is faster where the caller named none."""
    return "parallel" if call.form == "chunked" and not call.chosen and _short(call) else call.form


def run(call: Call) -> tuple[Tensor, Tensor | None]:
    """Outputs in v's dtype, and the final state or None, computed outside of the user's autocast region."""
    cast = casts(call.q.device.type)
    with unrounded(call.q.device.type):
        # a tracer and tangents ask for plain autograd, whose backward pass a region would round
        return _run(call, form(call), cast or not (torch.compiler.is_compiling() or call.has_tangents), cast)


def _run(call: Call, runs: str, recompute: bool, cast: bool) -> tuple[Tensor, Tensor | None]:
    H, sequences = call.heads, len(call.offsets) - 1
    if call.beta is not None:
        return delta.run(call, runs, recompute)
    gates = call.gates.each(accumulation).materialised(H)
    if runs == "last_query":
        read = partial(last_query, scale=call.scale, recompute=recompute)
        return last_queries(call, gates, read, partial(final_state, recompute=cast))
    q, k, v = (accumulation(x) for x in (to_heads(call.q, H), call.k, call.v))
    zero = q.new_zeros(()).expand(call.state_shape)
    initial = zero if call.initial_state is None else accumulation(call.initial_state)
    shared: dict[str, Any] = {"scale": call.scale, "initial_state": initial.unflatten(0, (k.shape[0], sequences))}
    shared["offsets"] = call.offsets
    more: dict[str, Any] = {}
    if runs == "chunked":
        more = {"chunk_size": call.chunk_size, "recompute": recompute}
    elif runs == "parallel" and cast:  # all tokens as one chunk are the same sums, and compute their gradients apart
        runs, more = "chunked", {"chunk_size": max(k.shape[1], 1)}

    def outputs(q: Tensor) -> tuple[Tensor, Tensor]:
        return each_sequence(_FORMS[runs], (q, k, v), gates, **shared, **more)

    o, final = read_before(outputs, q, **shared) if call.read == "before" else outputs(q)
    if call.bonus is not None:
        o = o + own_writes(call, q, k, v)
    return o.to(call.v.dtype), final.flatten(0, 1) if call.wants_final else None


def _short(call: Call) -> bool:
    """Whether all pairs at once beat chunks, which compute them twice: see `python -m benchmarks.forms`."""
    (B, T), K, gates = call.k.shape[:2], call.k.shape[3], call.gates
    if gates.G is not None or gates.A is not None or call.chunk_size is not None or call.beta is not None:
        return False
    if gates.gk is not None or gates.gv is not None:
        return T <= 16
    in_cache = B * call.heads * T * T <= 1 << 19
    return T <= 64 and (in_cache or T <= 2 * K)
