"""The eager backend: plain PyTorch on any device, one form per file."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gladient._autocast import casts, unrounded
from gladient.ops.call import Call
from gladient.ops.eager import delta, generalized
from gladient.ops.eager.chunked import chunked
from gladient.ops.eager.last_query import final_state, last_query
from gladient.ops.eager.parallel import parallel
from gladient.ops.eager.recurrent import recurrent
from gladient.ops.eager.sequences import each_sequence
from gladient.ops.gates import Gates, to_heads
from gladient.ops.sequences import accumulation, at_last_tokens, last_queries, own_writes

__all__ = ["exact", "form", "run", "why_not"]

_FORMS: dict[str, Callable[..., Any]] = {"recurrent": recurrent, "parallel": parallel, "chunked": chunked}
_FORMS["step"] = recurrent


def why_not(call: Call, named: bool = False) -> str | None:
    """None: it holds every call."""
    return None


def form(call: Call) -> str:
    """The form that runs: the call's, or what is faster where the caller named none."""
    rows, length = (isinstance(n, torch.SymInt) for n in call.k.shape[:2])
    by_channel = call.gates.gk is not None or call.gates.gv is not None
    if length and (call.form == "chunked" or (call.form == "parallel" and by_channel)):
        return "recurrent"  # the others loop in Python, as often as the example that is exported is long
    if rows or length:
        return call.form  # the choice below depends on the sizes, and the program is to hold for others too
    return "parallel" if call.form == "chunked" and not call.chosen and _short(call) else call.form


def run(call: Call) -> tuple[Tensor, Tensor | None]:
    """Outputs in v's dtype, and the final state; of a last query None unless it is wanted. Autocast changes neither."""
    cast = casts(call.q.device.type)
    with unrounded(call.q.device.type):
        # a tracer and tangents ask for plain autograd, whose backward pass a region would round
        return _run(call, form(call), cast or not (torch.compiler.is_compiling() or call.has_tangents()), cast)


def exact(call: Call) -> tuple[Tensor, Tensor | None]:
    """The same token by token, which alone drops what a gate of 0 forgets where it is infinite or NaN."""
    if call.form == "last_query":
        q = call.q.expand(-1, call.k.shape[1], -1, -1)
        o, final = exact(call._replace(q=q, form="chunked"))
        return at_last_tokens(call, o), final
    with unrounded(call.q.device.type):
        if (rule := _rule(call)) is not None:
            return rule.run(call, "exact", True)
        gates = call.gates.each(accumulation).to_heads(call.heads).combined()
        return _run(call._replace(gates=Gates(G=gates)), "chunked", True, True)


def _run(call: Call, runs: str, recompute: bool, cast: bool) -> tuple[Tensor, Tensor | None]:
    H, sequences = call.heads, len(call.offsets) - 1
    if (rule := _rule(call)) is not None:
        return rule.run(call, runs, recompute)
    gates = call.gates.each(accumulation).materialised(H)
    if runs == "last_query":
        read = partial(last_query, scale=call.scale, recompute=recompute)
        return last_queries(call, gates, read, partial(final_state, recompute=cast))
    q, k, v = (accumulation(x) for x in (to_heads(call.q, H), call.k, call.v))
    zero = q.new_zeros(()).expand(call.state_shape())
    initial = zero if call.initial_state is None else accumulation(call.initial_state)
    more: dict[str, Any] = {}
    if runs == "chunked":
        more = {"chunk_size": call.chunk_size, "recompute": recompute}
    elif runs == "parallel" and cast:  # all tokens as one chunk are the same sums, and compute their gradients apart
        runs, more = "chunked", {"chunk_size": max(k.shape[1], 1)}
    o, final = each_sequence(
        partial(_FORMS[runs], **more),
        (q, k, v),
        gates,
        read=call.read,
        scale=call.scale,
        initial_state=initial.unflatten(0, (k.shape[0], sequences)),
        offsets=call.offsets,
    )
    if call.bonus is not None:
        o = o + own_writes(call, q, k, v)
    return o.to(call.v.dtype), final.flatten(0, 1)


def _rule(call: Call) -> ModuleType | None:
    """What computes writes that depend on the state; None for writes that do not."""
    return delta if call.beta is not None else generalized if call.a is not None else None


def _short(call: Call) -> bool:
    """Whether all pairs at once beat chunks, which compute them twice for gradients.

    The bounds are those of `python -m benchmarks.forms`, whose last line tells how far they are from the fastest form.
    """
    (B, T), K, gates = call.k.shape[:2], call.k.shape[3], call.gates
    if gates.G is not None or gates.A is not None or call.chunk_size is not None or _rule(call) is not None:
        return False
    if gates.gk is not None or gates.gv is not None:
        return T <= 16  # a single chunk of `best_chunk`: nothing for chunks to save
    in_cache = B * call.heads * T * T <= 1 << 19  # the weights of all pairs: 2 MiB in float32, an L2 cache
    return T <= 64 and (in_cache or T <= 2 * K)  # else no more pairs than numbers in keys and values
