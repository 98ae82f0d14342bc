"""Chunks of tokens: all pairs inside a chunk, the state between chunks. Linear in T; the backward pass recomputes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops._function import BatchFunction
from gladient.ops.eager.parallel import from_state, within
from gladient.ops.eager.recurrent import recurrent
from gladient.ops.gates import Gates, to_heads, writes

__all__ = ["chunked", "best_chunk"]

_SEGMENT = 512  # tokens whose intermediates exist at the same time


def best_chunk(gates: Gates, K: int) -> int:
    """Tokens per chunk where `python -m benchmarks.forms` sees the least time.

    Pairs inside a chunk cost `chunk` channels a token, the state K² entries a chunk; with gates for each channel a pair
    costs an exponential for each.

    >>> best_chunk(Gates(), 128), best_chunk(Gates(gk=torch.zeros(1, 1, 1, 128)), 128)
    (64, 16)
    """
    if gates.G is not None:
        return 32
    return 16 if gates.gk is not None or gates.gv is not None or K < 64 else 32 if K < 128 else 64


def chunked(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T Hk K"],
    v: Float[Tensor, "B T Hv V"],
    gates: Gates,
    *,
    scale: float,
    initial_state: Float[Tensor, "B H K V"],
    chunk_size: int | None = None,
    recompute: bool = True,
) -> tuple[Float[Tensor, "B T H V"], Float[Tensor, "B H K V"]]:
    r"""The parallel form inside chunks of `chunk_size` tokens, the recurrence from chunk to chunk.

    Weights inside a chunk are sums of log gates pair by pair, never a division by a decayed product. Full gates run
    the plain recurrence inside their chunk. With `recompute` only inputs and one state per segment are kept for the
    backward pass; plain autograd else.

    >>> ones, half = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5).log()
    >>> o, state = chunked(ones, ones, ones, Gates(g=half), scale=1.0, initial_state=0 * ones[:, 0, :, :, None],
    ...                    chunk_size=2)
    >>> o.flatten().tolist(), state.item()
    ([1.0, 1.5, 1.75], 1.75)
    """
    H, T = q.shape[2], q.shape[1]
    q, k, v, gates = scale * q, to_heads(k, H), to_heads(v, H), gates.to_heads(H)
    chunk = min(chunk_size or best_chunk(gates, q.shape[3]), max(T, 1))
    length = max(_SEGMENT // chunk, 1) * chunk
    S, outputs = initial_state, []
    for start in range(0, T, length):
        part = slice(start, start + length)
        gate_parts = (None if x is None else x[:, part] for x in (gates.g, gates.gk, gates.gv, gates.G))
        o, S = (_Segment.apply if recompute else _segment)(chunk, S, q[:, part], k[:, part], v[:, part], *gate_parts)
        outputs.append(o)
    return (torch.cat(outputs, 1) if outputs else v[:, :0]), S


def _segment(
    chunk: int, S: Tensor, q: Tensor, k: Tensor, v: Tensor, *gate_tensors: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Whole chunks as one batch, then what is left as a chunk of its own."""
    T = q.shape[1]
    whole = T - T % chunk
    outputs = []
    for part, size in ((slice(0, whole), chunk), (slice(whole, T), T - whole)):
        if part.start < part.stop:
            gates = Gates(*(None if x is None else x[:, part] for x in gate_tensors))
            o, S = _chunks(size, S, q[:, part], k[:, part], v[:, part], gates)
            outputs.append(o)
    return torch.cat(outputs, 1), S


def _chunks(size: int, S: Tensor, q: Tensor, k: Tensor, v: Tensor, gates: Gates) -> tuple[Tensor, Tensor]:
    if gates.G is not None:
        return recurrent(q, k, v, gates, scale=1.0, initial_state=S)

    def fold(x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, size)).flatten(0, 1)

    B, n = q.shape[0], q.shape[1] // size
    folded_q, folded_k, folded_v, folded = fold(q), fold(k), fold(v), gates.each(fold)
    written = writes(folded_k, folded_v, folded).unflatten(0, (B, n)).unbind(1)
    decay = folded.decay()
    decays = decay.unflatten(0, (B, n)).unbind(1) if isinstance(decay, Tensor) else [decay] * n
    states = []
    for d, w in zip(decays, written, strict=True):
        states.append(S)
        S = d * S + w
    before = torch.stack(states, 1).flatten(0, 1)
    o = within(folded_q, folded_k, folded_v, folded) + from_state(folded_q, folded, before)
    return o.unflatten(0, (B, n)).flatten(1, 2), S


class _Segment(BatchFunction):
    """Forgets every intermediate of a segment and computes it again in the backward pass."""

    @staticmethod
    def forward(chunk: int, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        return _segment(chunk, *inputs)  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.chunk = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, ...]:
        return (None, *_SegmentGradient.apply(ctx.chunk, *upstream, *ctx.saved_tensors))


class _SegmentGradient(BatchFunction):
    @staticmethod
    def forward(chunk: int, d_o: Tensor, d_S: Tensor, *saved: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            inputs = [None if x is None else x.detach().requires_grad_() for x in saved]
            outputs = _segment(chunk, *inputs)  # type: ignore[arg-type]
        present = [x for x in inputs if x is not None]
        gradients = iter(torch.autograd.grad(outputs, present, (d_o, d_S)))
        return tuple(None if x is None else next(gradients) for x in inputs)
