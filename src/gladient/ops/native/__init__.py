"""The native backend: this package's C++ kernels on CPU cores, for every gate family, with their gradients."""

from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gladient.ops import eager
from gladient.ops.call import Call
from gladient.ops.gates import Gates
from gladient.ops.native import delta, general, operators
from gladient.ops.native.build import library, why_unavailable
from gladient.ops.native.convolution import convolution
from gladient.ops.native.norm import norm
from gladient.ops.native.registry import keeps
from gladient.ops.native.single import convolution_step, selective_step
from gladient.ops.native.token_query import FEWEST_TOKENS, MOST_VALUES, token_query
from gladient.ops.sequences import accumulation, each_last_query, last_queries, strengthened
from gladient.ops.tracing import constant
from gladient.ops.watched import recorded, transformed, unwatched

__all__ = [
    "FEWEST_TOKENS", "MOST_VALUES", "convolution", "convolution_step", "norm", "run", "selective_step", "serves",
    "token_query", "unwatched", "why_not",
]  # fmt: skip


@constant  # no tracer follows the search for a compiler
def _obstacle() -> str | None:
    return why_unavailable()


def why_not(call: Call, named: bool = False) -> str | None:
    """None if the kernels hold this call and are there, else the reason why not.

    Unless the caller named this backend, it also declines what the eager backend does faster.
    """
    if call.q.device.type != "cpu":
        return f"q is on {call.q.device} and the native kernels run on the CPU"
    if call.form in ("recurrent", "parallel"):
        return f"form {call.form!r} is plain PyTorch; the native kernels serve 'chunked', 'last_query' and 'step'"
    if call.chunk_size is not None:
        return (
            f"chunk_size={call.chunk_size} is for the eager backend; the kernels' chunks have {operators.CHUNK} tokens"
        )
    if call.has_tangents():
        return "forward-mode derivatives are taken, which the eager backend has"
    obstacle = _obstacle()
    if obstacle is None and not named and call.form == "last_query" and _narrow_vectors() and _products_alone(call):
        return "on vectors of this width eager's matrix products are faster for a last query without gates per channel"
    return obstacle


def serves(*tensors: Tensor | None) -> bool:
    """Whether the kernels that stand around a scan take these as they are, in one precision, with their gradients."""
    x, *others = (x for x in tensors if x is not None)
    return (
        all(y.device.type == "cpu" and y.dtype is x.dtype for y in (x, *others))
        and x.dtype in (torch.float32, torch.float64)
        and not transformed()
        and forward_ad._current_level < 0
        and _obstacle() is None
    )


@constant
def _narrow_vectors() -> bool:
    """Whether vectors are narrower than those of AVX-512."""
    return library().vector_bytes() < 64


def _products_alone(call: Call) -> bool:
    """Whether all work is matrix products, of more than 16 columns: narrower ones run at a fraction of the speed."""
    if call.beta is not None or call.a is not None:
        return False
    gates = call.gates
    widest = max(call.k.shape[3], call.v.shape[3])
    return widest > 16 and gates.gk is None and gates.gv is None and gates.G is None and gates.A is None


def run(call: Call) -> tuple[Tensor, Tensor | None]:
    """Outputs in v's dtype, and the final state or None."""
    if 0 in (call.k.shape[0], call.k.shape[3], call.v.shape[3]):  # the kernels take a first row and channel for granted
        return eager.run(call)
    if call.beta is not None:
        return _run_rule(call, delta, _corrected(call))
    if call.a is not None:
        return _run_rule(call, general, (call.k, call.v, call.a, call.b))
    if call.form == "last_query":
        return last_queries(
            call, call.gates.each(accumulation), lambda *x: _last_query(*x, scale=call.scale), _final_state
        )
    gates = _held_gates(call.gates, call.heads)
    inputs = (call.q, call.k, call.v, *(gates.g, gates.gk, gates.gv, gates.G, gates.A, gates.dt), call.bonus)
    options = (call.heads, call.scale, call.read == "before")
    train, packed = call.differentiable(), len(call.offsets) > 2
    if call.form == "step" and not (train or packed):
        if call.inplace:
            return operators.step_(*inputs, call.initial_state, *options), call.initial_state
        return operators.step(*inputs, call.initial_state, *options)
    borders = call.offsets if packed else None
    o, final, _ = operators.scan(*inputs, call.initial_state, borders, *options, train and keeps())
    return o, final


def _corrected(call: Call) -> tuple[Tensor | None, ...]:
    """What the delta rule's operators take of the tokens, but queries and gates."""
    v, m, beta = call.v, call.erase_keys, call.beta
    erase: Tensor | None = call.erasing()[1]
    if beta is not None and beta.ndim == 4:  # the kernels hold one for each token and head alone
        v, beta = strengthened(v, beta, call.heads), None
    if erase is not None and erase.ndim == 4:
        m, erase = strengthened(*call.erasing(), call.heads), None
    return call.k, v, m, beta, erase


def _run_rule(call: Call, rule: ModuleType, inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor | None]:
    """A delta rule by its operators."""
    inputs = (*inputs, call.gates.g, call.gates.gk)
    options, before, train = (call.heads, call.scale), call.read == "before", call.differentiable()
    packed, final = len(call.offsets) > 2, call.initial_state
    borders = call.offsets if packed else None

    def scan(q: Tensor) -> tuple[Tensor, Tensor]:
        o, final, *_ = rule.scan(q, *inputs, call.initial_state, borders, *options, before, train and keeps())
        return o, final

    if call.form == "last_query":
        o = each_last_query(call, call.q, lambda query, part: rule.last_query(query, *map(part, inputs), *options))
        # Led back through the tokens, a query never forms a state: a scan without queries does.
        final = scan(torch.zeros_like(call.k))[1] if call.wants_final() else None
    elif call.form != "step" or train or packed:
        o, final = scan(call.q)
    elif call.inplace:
        o = rule.step_(call.q, *inputs, call.initial_state, *options, before)
    else:
        o, final = rule.step(call.q, *inputs, call.initial_state, *options, before)
    return o.to(call.v.dtype), final


def _held_gates(gates: Gates, heads: int) -> Gates:
    """Gates as the kernels hold them: full gates or rates alone, or the others; a mixture becomes full gates."""
    if gates.family in ("full", "rates") or (gates.G is None and gates.A is None):
        return gates
    return Gates(G=gates.materialised(heads).to_heads(heads).combined())


def _last_query(q: Tensor, k: Tensor, v: Tensor, gates: Gates, *, scale: float) -> Tensor:
    return operators.last_query(q, k, v, gates.g, gates.gk, gates.gv, scale)


def _final_state(k: Tensor, v: Tensor, gates: Gates, initial_state: Tensor | None) -> Tensor:
    """By a scan whose queries, a zero repeated, cost one row."""
    gates, q = _held_gates(gates, k.shape[2]), k.new_zeros(()).expand(*k.shape[:2], 1, k.shape[3])
    inputs = (q, k, v, gates.g, gates.gk, gates.gv, gates.G, gates.A, gates.dt, None, initial_state)
    return operators.scan(*inputs, None, k.shape[2], 1.0, False, recorded(*inputs))[1]
