"""Packed sequences and reads before the write, the same for every form."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops.gates import Gates
from gladient.ops.last_query import last_query

__all__ = ["each_sequence", "read_before", "last_queries", "last_tokens"]


def each_sequence(
    form: Callable[..., tuple[Tensor, Tensor]],
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T Hk K"],
    v: Float[Tensor, "B T Hv V"],
    gates: Gates,
    *,
    initial_state: Float[Tensor, "B n H K V"],
    offsets: Sequence[int],
    **options: Any,
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B n H K V"]]:
    """Runs `form` on tokens offsets[i] to offsets[i + 1] of every row, one sequence after the other."""
    outputs, states = [], []
    for i, (start, stop) in enumerate(pairwise(offsets)):
        part = partial(_tokens, start=start, stop=stop)
        o, S = form(part(q), part(k), part(v), gates.each(part), initial_state=initial_state[:, i], **options)
        outputs.append(o)
        states.append(S)
    return _joined(outputs), torch.stack(states, 1)


def read_before(
    run: Callable[[Tensor], tuple[Tensor, Tensor]],
    q: Float[Tensor, "B T H K"],
    *,
    scale: float,
    initial_state: Float[Tensor, "B n H K V"],
    offsets: Sequence[int],
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B n H K V"]]:
    """A read of S_{t-1} by query t is a read after the write by query t, sent in one token earlier."""
    o, S = run(torch.cat([q[:, 1:], torch.zeros_like(q[:, :1])], 1))
    firsts = [(i, start) for i, (start, stop) in enumerate(pairwise(offsets)) if start < stop]
    if not firsts:
        return o, S
    sequences, starts = (torch.tensor(x, device=q.device) for x in zip(*firsts, strict=True))
    first = scale * torch.einsum("bnhk,bnhkv->bnhv", q[:, starts], initial_state[:, sequences])
    return torch.cat([o[:, :1], o[:, :-1]], 1).index_copy(1, starts, first), S


def last_queries(
    q: Float[Tensor, "B Tq H K"],
    k: Float[Tensor, "B T Hk K"],
    v: Float[Tensor, "B T Hv V"],
    gates: Gates,
    *,
    scale: float,
    initial_state: Float[Tensor, "B n H K V"] | None,
    offsets: Sequence[int],
    before: bool,
    output_final_state: bool,
    native: bool,
) -> tuple[Float[Tensor, "B m H V"], Float[Tensor, "B n H K V"] | None]:
    """The last output of every sequence, by the query of its last token; none for sequences without a query."""
    outputs, states = [], []
    for i, (start, stop) in enumerate(pairwise(offsets)):
        queries = q if q.shape[1] == 1 else q[:, max(stop - 1, start) : stop]
        query = queries if queries.shape[1] else q.new_zeros(q.shape[0], 1, *q.shape[2:])
        S = None if initial_state is None else initial_state[:, i]

        def run(stop: int, final: bool, start: int = start, query: Tensor = query, S: Any = S) -> Any:
            part = partial(_tokens, start=start, stop=stop)
            options: dict[str, Any] = {"initial_state": S, "output_final_state": final, "native": native}
            return last_query(query, part(k), part(v), gates.each(part), scale=scale, **options)

        o, state = run(max(stop - 1, start) if before else stop, output_final_state)
        if before and output_final_state:
            state = run(stop, True)[1]
        outputs.append(_tokens(o, 0, queries.shape[1]))
        states.append(state)
    return _joined(outputs), torch.stack(states, 1) if output_final_state else None


def _tokens(x: Tensor, start: int, stop: int) -> Tensor:
    """x[:, start:stop], without a view, one more step for autograd, where that is all of x."""
    return x if (start, stop) == (0, x.shape[1]) else x[:, start:stop]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def last_tokens(x: Float[Tensor, "B T H V"], offsets: Sequence[int], n: int) -> Float[Tensor, "B n H V"]:
    """What x holds at the last token of every sequence; of empty ones nothing or, if n counts them, zeros.

    >>> x = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)
    >>> last_tokens(x, (0, 0, 2), 1).flatten().tolist(), last_tokens(x, (0, 0, 2), 2).flatten().tolist()
    ([2.0], [0.0, 2.0])
    """
    lasts = [(i, stop - 1) for i, (start, stop) in enumerate(pairwise(offsets)) if start < stop]
    found = x[:, [last for _, last in lasts]]
    if len(lasts) == n:
        return found
    rows = torch.tensor([i for i, _ in lasts], dtype=torch.int64, device=x.device)
    return x.new_zeros(x.shape[0], n, *x.shape[2:]).index_copy(1, rows, found)
