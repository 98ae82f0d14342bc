"""Chunks of tokens: all pairs inside a chunk, the state between chunks. Linear in T; the backward pass recomputes."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.ops.eager.parallel import from_state, within
from gladient.ops.eager.recurrent import recurrent
from gladient.ops.function import recomputed
from gladient.ops.gates import Gates, to_heads, writes

__all__ = ["chunked", "best_chunk", "chunk_decays", "fold", "in_segments"]

# Tokens whose intermediates exist at the same time, in the backward pass too, however long the sequence. A state is
# kept for each segment. At K = V = 64 with key gates 64 to 512 tokens take the same time, 4096 a third more.
_SEGMENT = 512

Chunks: TypeAlias = Callable[..., tuple[Tensor, Tensor]]


def best_chunk(gates: Gates, K: int) -> int:
    """Tokens per chunk where `python -m benchmarks.forms` sees the least time.

    A token costs `chunk` pairs of K + V channels each, and its share of the state, K V / chunk entries: longer chunks
    for larger states. With gates for each channel a pair costs an exponential for each of them, so chunks are short.

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
    H = q.shape[2]
    gates = gates.to_heads(H)
    chunk = min(chunk_size or best_chunk(gates, q.shape[3]), max(q.shape[1], 1))
    inputs = (scale * q, to_heads(k, H), to_heads(v, H), gates.g, gates.gk, gates.gv, gates.G)
    return in_segments(_chunks, chunk, initial_state, inputs, recompute)


def in_segments(
    chunks: Chunks, size: int, S: Tensor, inputs: Sequence[Tensor | None], recompute: bool
) -> tuple[Tensor, Tensor]:
    """Runs `chunks(size, S, *inputs)` on a few whole chunks at a time, from the first token to the last.

    The inputs are [B, T, …], q first and v third.
    """
    length, outputs = max(_SEGMENT // size, 1) * size, []
    run = partial(_segment, chunks, size)
    for start in range(0, inputs[0].shape[1], length):  # type: ignore[union-attr]
        part = _part(inputs, start, start + length)
        o, S = recomputed(run, S, *part) if recompute else run(S, *part)
        outputs.append(o)
    return (torch.cat(outputs, 1) if outputs else inputs[2][:, :0]), S  # type: ignore[index]


def fold(x: Float[Tensor, "B T *rest"], size: int) -> Float[Tensor, "Bn size *rest"]:
    """Chunks as rows of the batch."""
    return x.unflatten(1, (-1, size)).flatten(0, 1)


def chunk_decays(folded: Gates, B: int, n: int) -> Sequence[Tensor | float]:
    """What each of n chunks leaves of the state before it, from the gates of B · n folded chunks."""
    decay = folded.decay()
    return decay.unflatten(0, (B, n)).unbind(1) if isinstance(decay, Tensor) else [decay] * n


def _part(inputs: Sequence[Tensor | None], start: int, stop: int) -> list[Tensor | None]:
    return [None if x is None else x[:, start:stop] for x in inputs]


def _segment(chunks: Chunks, size: int, S: Tensor, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    """Whole chunks as one batch, then what is left as a chunk of its own."""
    T = inputs[0].shape[1]  # type: ignore[union-attr]
    whole = T - T % size
    outputs = []
    for start, stop, length in ((0, whole, size), (whole, T, T - whole)):
        if start < stop:
            o, S = chunks(length, S, *_part(inputs, start, stop))
            outputs.append(o)
    return torch.cat(outputs, 1), S


def _chunks(
    size: int, S: Tensor, q: Tensor, k: Tensor, v: Tensor, *gate_tensors: Tensor | None
) -> tuple[Tensor, Tensor]:
    gates = Gates(*gate_tensors)
    if gates.G is not None:
        return recurrent(q, k, v, gates, scale=1.0, initial_state=S)
    B, n = q.shape[0], q.shape[1] // size
    folded_q, folded_k, folded_v = (fold(x, size) for x in (q, k, v))
    folded = gates.each(lambda gate: fold(gate, size))
    written = writes(folded_k, folded_v, folded).unflatten(0, (B, n)).unbind(1)
    states = []
    for d, w in zip(chunk_decays(folded, B, n), written, strict=True):
        states.append(S)
        S = d * S + w
    before = torch.stack(states, 1).flatten(0, 1)
    o = within(folded_q, folded_k, folded_v, folded) + from_state(folded_q, folded, before)
    return o.unflatten(0, (B, n)).flatten(1, 2), S
