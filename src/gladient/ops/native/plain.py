"""The kernels' functions in plain PyTorch: what the derivatives of their gradients are taken of."""

from typing import Any

from torch import Tensor

from gladient.ops import eager
from gladient.ops.call import Call
from gladient.ops.eager import delta as eager_delta
from gladient.ops.eager import generalized
from gladient.ops.eager.correcting import outputs
from gladient.ops.eager.last_query import last_query as eager_last_query
from gladient.ops.gates import Gates, to_heads
from gladient.ops.sequences import accumulation, strengthened

__all__ = ["delta", "delta_last", "general", "general_last", "last_query", "scan"]


def scan(*given: Any) -> tuple[Tensor, Tensor | None]:
    """Outputs and final states, of the operator's inputs and options."""
    q, k, v, *gates, bonus, initial, borders, heads, scale, before = given
    return eager.run(_call(q, k, v, Gates(*gates), bonus, initial, borders, heads, scale, before))


def delta(*given: Any) -> tuple[Tensor, Tensor | None]:
    """Outputs and final states, of the operator's inputs and options."""
    q, k, v, m, beta, erase, g, gk, initial, borders, heads, scale, before = given
    call = _call(q, k, v, Gates(g, gk), None, initial, borders, heads, scale, before)
    return outputs(eager_delta.RULE, call, "chunked", True, _corrected(k, v, m, beta, erase, heads))


def general(*given: Any) -> tuple[Tensor, Tensor | None]:
    """Outputs and final states, of the operator's inputs and options."""
    q, k, v, a, b, g, gk, initial, borders, heads, scale, before = given
    call = _call(q, k, v, Gates(g, gk), None, initial, borders, heads, scale, before)
    return outputs(generalized.RULE, call, "chunked", True, _with_heads(heads, k, v, a, b))


def last_query(*given: Any) -> tuple[Tensor]:
    """The last output, of the operator's inputs and its scale."""
    q, k, v, *gates, scale = given
    return (eager_last_query(q, k, v, Gates(*gates), scale=scale, recompute=False),)


def delta_last(*given: Any) -> tuple[Tensor, Tensor]:
    """The last output from a state of zeros, and what reads the state before the first token."""
    q, k, v, m, beta, erase, g, gk, heads, scale = given
    inputs = (*_with_heads(heads, q), *_corrected(k, v, m, beta, erase, heads))
    return eager_delta.RULE.last_query(*inputs, Gates(g, gk).each(accumulation), scale=scale)


def general_last(*given: Any) -> tuple[Tensor, Tensor]:
    """The last output from a state of zeros, and what reads the state before the first token."""
    q, k, v, a, b, g, gk, heads, scale = given
    inputs = _with_heads(heads, q, k, v, a, b)
    return generalized.RULE.last_query(*inputs, Gates(g, gk).each(accumulation), scale=scale)


def _call(*given: Any) -> Call:
    q, k, v, gates, bonus, initial, borders, heads, scale, before = given
    return Call(
        q=q, k=k, v=v, gates=gates, beta=None, erase=None, erase_keys=None, a=None, b=None, bonus=bonus,
        initial_state=initial, heads=heads, offsets=tuple(borders or (0, k.shape[1])), scale=scale, form="chunked",
        chosen=True, read="before" if before else "after", chunk_size=None, output_final_state=True, inplace=False,
    )  # fmt: skip


def _with_heads(heads: int, *given: Tensor) -> tuple[Tensor, ...]:
    return tuple(accumulation(to_heads(x, heads)) for x in given)


def _corrected(
    k: Tensor, v: Tensor, m: Tensor | None, beta: Tensor | None, erase: Tensor | None, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values and erasing keys of all heads, times strengths that are not multiplied in yet."""
    one = k.new_ones(()).expand(*k.shape[:2], 1)
    w = strengthened(v, one if beta is None else beta, heads)
    m = strengthened(k if m is None else m, one if erase is None else erase, heads)
    return accumulation(to_heads(k, heads)), w, m
