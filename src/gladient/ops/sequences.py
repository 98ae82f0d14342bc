"""The last outputs of packed sequences, whichever backend computes them."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops.call import Call
from gladient.ops.gates import Gates, to_heads

__all__ = [
    "accumulation",
    "at_last_tokens",
    "each_last_query",
    "from_states",
    "joined",
    "last_queries",
    "own_writes",
    "strengthened",
    "tokens",
]

LastQuery: TypeAlias = Callable[[Tensor, Tensor, Tensor, Gates], Tensor]
FinalState: TypeAlias = Callable[[Tensor, Tensor, Gates, Tensor | None], Tensor]


def last_queries(call: Call, gates: Gates, read: LastQuery, final_state: FinalState) -> tuple[Tensor, Tensor | None]:
    """The last output of every sequence, by the query of its last token; none for sequences without a query.

    Args:
        call: what is to be computed.
        gates: the call's, as the functions take them.
        read: queries [B, 1, H, K], keys, values and gates to the outputs from a state of zeros, [B, 1, H, V].
        final_state: keys, values and gates of H heads and the state before them to the state after them, [B, H, K, V].
    """
    q, k, v = (accumulation(x) for x in (to_heads(call.q, call.heads), call.k, call.v))
    n, before = len(call.offsets) - 1, call.read == "before"
    initial = None if call.initial_state is None else accumulation(call.initial_state).unflatten(0, (k.shape[0], n))
    H = call.heads

    def after(k: Tensor, v: Tensor, gates: Gates, S: Tensor | None) -> Tensor:
        return final_state(to_heads(k, H), to_heads(v, H), gates.to_heads(H), S)

    outputs, states = [], []
    for i, (start, stop) in enumerate(pairwise(call.offsets)):
        queries = q if q.shape[1] == 1 else q[:, max(stop - 1, start) : stop]
        # A sequence without tokens may have no query: a zero stands in for it, and `outputs` leaves its result out.
        query = queries if queries.shape[1] else q.new_zeros(q.shape[0], 1, *q.shape[2:])
        S = None if initial is None else initial[:, i]

        def part(stop: int, start: int = start) -> tuple[Tensor, Tensor, Gates]:
            return tokens(k, start, stop), tokens(v, start, stop), gates.each(lambda x: tokens(x, start, stop))

        seen = part(max(stop - 1, start) if before else stop)
        whole = part(stop) if before else seen
        state = after(*whole, S) if call.wants_final() else None
        # Scores q·k weighed by token need gates of rows or columns; with a gate for each entry the state is formed.
        if gates.G is not None or gates.A is not None:
            reached = state if state is not None and not before else after(*seen, S)
            o = call.scale * from_states(query, reached[:, None])
        else:
            o = read(query, *seen)
            if S is not None:
                o = o + call.scale * from_states(query, (seen[2].to_heads(H).decay() * S)[:, None])
        outputs.append(tokens(o, 0, queries.shape[1]))
        states.append(state)
    o = joined(outputs)
    if call.bonus is not None:
        o = o + last_tokens(own_writes(call, q, k, v), call.offsets, o.shape[1])
    final = torch.stack(states, 1).flatten(0, 1) if call.wants_final() else None  # type: ignore[arg-type]
    return o.to(call.v.dtype), final


def each_last_query(
    call: Call, q: Tensor, read: Callable[[Tensor, Callable[[Any], Any]], tuple[Tensor, Tensor]]
) -> Float[Tensor, "B queries H V"]:
    """The delta rule's last output of every sequence, by the query of its last token; none without a query.

    Args:
        call: what is to be computed.
        q: queries.
        read: one query for each row, and the function that takes the tokens which it sees from a tensor [B, T, …] or
            gates, to outputs from a state of zeros, [B, 1, H, V], and to what reads the state before, [B, 1, H, K].
    """
    n, initial = len(call.offsets) - 1, call.initial_state
    states = [None] * n if initial is None else accumulation(initial).unflatten(0, (q.shape[0], n)).unbind(1)
    outputs = []
    for (start, stop), S in zip(pairwise(call.offsets), states, strict=True):
        last = max(stop - 1, start)
        query = q if q.shape[1] == 1 else q[:, last:stop]
        seen = last if call.read == "before" else stop
        if query.shape[1]:
            o, a = read(query, partial(_taken, start=start, stop=seen))
            outputs.append(o if S is None else o + from_states(a, S[:, None]))
    return joined(outputs) if outputs else call.v.new_zeros(call.v.shape[0], 0, call.heads, call.v.shape[3])


def _taken(x: Any, start: int, stop: int) -> Any:
    if isinstance(x, Gates):
        return x.each(lambda gate: tokens(gate, start, stop))
    return None if x is None else tokens(x, start, stop)


def strengthened(x: Tensor, strength: Tensor, heads: int) -> Tensor:
    """Keys or values [B, T, h, C] times the delta rule's strength, [B, T, h] or [B, T, h, C], with all heads."""
    x, strength = (to_heads(accumulation(y), heads) for y in (x, strength))
    return x * (strength if strength.ndim == 4 else strength[..., None])


def own_writes(call: Call, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "B T H V"]:
    r"""What the bonus adds to the outputs, $\mathrm{scale}\,(q_t^\top (u \odot k_t))\, v_t$."""
    assert call.bonus is not None
    weights = (q * accumulation(call.bonus)[:, None] * to_heads(k, call.heads)).sum(-1, keepdim=True)
    return call.scale * weights * to_heads(v, call.heads)


def from_states(q: Float[Tensor, "*rows K"], S: Float[Tensor, "*rows K V"]) -> Float[Tensor, "*rows V"]:
    """One query for each state: a sum that autocast does not round, forward or backward, as it would a product."""
    return (q[..., None] * S).sum(-2)


def accumulation(x: Tensor) -> Tensor:
    """Half precision accumulates in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def tokens(x: Tensor, start: int, stop: int) -> Tensor:
    """x[:, start:stop]; x itself where that is all of it, since a view is one more step for autograd."""
    return x if (start, stop) == (0, x.shape[1]) else x[:, start:stop]


def joined(parts: list[Any]) -> Tensor:
    """The parts one after the other along the tokens."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def at_last_tokens(call: Call, o: Float[Tensor, "B T H V"]) -> Float[Tensor, "B n H V"]:
    """What `last_queries` returns, out of all tokens' outputs; empty sequences read the state that was given."""
    spans = list(enumerate(pairwise(call.offsets)))
    found = o[:, [stop - 1 for _, (start, stop) in spans if start < stop]]
    empty = [i for i, (start, stop) in spans if start == stop]
    if call.q.shape[1] != 1 or not empty:
        return found
    q = accumulation(to_heads(call.q, call.heads))
    S = q.new_zeros(()).expand(call.state_shape()) if call.initial_state is None else accumulation(call.initial_state)
    first = call.scale * from_states(q, S.unflatten(0, (len(q), -1))[:, empty])
    # Those with tokens came first, the empty ones last: back into the order of the sequences.
    order = sorted(range(len(spans)), key=[*(i for i, _ in spans if i not in empty), *empty].__getitem__)
    return torch.cat([found, first.to(o.dtype)], 1)[:, order]


def last_tokens(x: Float[Tensor, "B T H V"], offsets: Sequence[int], n: int) -> Float[Tensor, "B n H V"]:
    """What x holds at the last token of every sequence; for empty ones nothing or, if n counts them, zeros.

    >>> x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    >>> last_tokens(x, (0, 0, 2), 1).flatten().tolist(), last_tokens(x, (0, 0, 2), 2).flatten().tolist()
    ([2.0], [0.0, 2.0])
    """
    lasts = [(i, stop - 1) for i, (start, stop) in enumerate(pairwise(offsets)) if start < stop]
    found = x[:, [last for _, last in lasts]] if len(lasts) != 1 else x[:, lasts[0][1] : lasts[0][1] + 1]
    if len(lasts) == n:
        return found
    rows = torch.tensor([i for i, _ in lasts], dtype=torch.int64, device=x.device)
    return x.new_zeros(x.shape[0], n, *x.shape[2:]).index_copy(1, rows, found)
