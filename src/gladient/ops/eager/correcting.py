"""What the rules share whose writes depend on the state: sequences, reads, last queries, and the choice of a form."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gladient.ops.call import Call
from gladient.ops.eager.chunked import best_chunk, in_segments
from gladient.ops.eager.sequences import each_sequence
from gladient.ops.gates import Gates, to_heads
from gladient.ops.sequences import accumulation, each_last_query

__all__ = ["Rule", "outputs"]


class Rule(NamedTuple):
    """The forms of a rule, each a function of q, of the tensors that its tokens have, and of gates.

    Attributes:
        recurrent: token by token.
        chunks: whole chunks, of their size, the state before, q times its factor, the tensors, and gates g and gk.
        last_query: one query, led back through the tokens.
    """

    recurrent: Callable[..., tuple[Tensor, Tensor]]
    chunks: Callable[..., tuple[Tensor, Tensor]]
    last_query: Callable[..., tuple[Tensor, Tensor]]


def outputs(
    rule: Rule, call: Call, form: str, recompute: bool, inputs: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor | None]:
    """Outputs in v's dtype, and the final state or None, from what the tokens have with all heads, k first."""
    q = accumulation(to_heads(call.q, call.heads))
    gates, zero = call.gates.each(accumulation), q.new_zeros(())
    state = zero.expand(call.state_shape()) if call.initial_state is None else accumulation(call.initial_state)
    state = state.unflatten(0, (q.shape[0], len(call.offsets) - 1))
    run: Callable[..., Any] = partial(_chunked, rule.chunks, chunk_size=call.chunk_size, recompute=recompute)
    if form in ("recurrent", "step") or isinstance(inputs[0].shape[1], torch.SymInt):  # an open number of chunks
        run = rule.recurrent
    elif form == "exact":
        run = partial(_chunked, partial(_token_by_token, rule))

    def scan(q: Tensor) -> tuple[Tensor, Tensor]:
        options = {"read": call.read, "scale": call.scale, "initial_state": state, "offsets": call.offsets}
        return each_sequence(run, (q, *inputs), gates, **options)

    if form == "last_query":
        o = each_last_query(
            call, q, lambda query, part: rule.last_query(query, *map(part, (*inputs, gates)), scale=call.scale)
        )
        if not call.wants_final():
            return o.to(call.v.dtype), None
        _, final = scan(torch.zeros_like(inputs[0]))  # a query that is led back never forms a state
    else:
        o, final = scan(q)
    return o.to(call.v.dtype), final.flatten(0, 1)


def _chunked(
    chunks: Callable[..., tuple[Tensor, Tensor]],
    q: Tensor,
    *given: Any,
    scale: float,
    initial_state: Tensor,
    chunk_size: int | None = None,
    recompute: bool = True,
) -> tuple[Tensor, Tensor]:
    *inputs, gates = given
    gates = gates.to_heads(q.shape[2])
    size = min(chunk_size or best_chunk(gates, q.shape[3]), max(q.shape[1], 1))
    return in_segments(chunks, size, initial_state, (scale * q, *inputs, gates.g, gates.gk), recompute)


def _token_by_token(rule: Rule, size: int, S: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    """The recurrence inside of each chunk, of which still only inputs and a few states are kept for derivatives."""
    *inputs, g, gk = given
    return rule.recurrent(*inputs, Gates(g, gk), scale=1.0, initial_state=S)
