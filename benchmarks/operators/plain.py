"""What one would write in plain PyTorch, eager and compiled: chunks that never divide by a decayed product, turns."""

import torch
from torch import Tensor

__all__ = ["delta_chunk", "last_query", "rotate", "scalar_chunk", "key_chunk", "safe_chunk"]

_SCALAR, _KEY, _BLOCK, _EAGER = 64, 32, 8, 16  # tokens


def last_query(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Scalar gates, the last output: every token's weight is the product of the later gates."""
    weights = (g.sum(1, keepdim=True) - g.cumsum(1)).exp() * (q * k).sum(-1)
    return (weights[..., None] * v).sum(1, keepdim=True)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Adjacent channels turned by the sums of all angles so far; the last pairs stay."""
    phase = angles.double().cumsum(1)
    c, s = phase.cos().to(x.dtype), phase.sin().to(x.dtype)
    turned, still = x.split([2 * angles.shape[3], x.shape[3] - 2 * angles.shape[3]], 3)
    a, b = turned[..., 0::2], turned[..., 1::2]
    return torch.cat([torch.stack([a * c - b * s, a * s + b * c], 4).flatten(3), still], 3)


def scalar_chunk(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """Scalar gates: all pairs inside chunks of 64, one state after the other between them; q and k by group or head."""
    size = min(_SCALAR, k.shape[1])
    q, k, v, g = (_chunks(x, size) for x in (q, k, v, g))  # [B, chunks, H, 64, …]
    A = g.cumsum(3)
    weights = (A[..., :, None] - A[..., None, :]).masked_fill(_later(size), -torch.inf).exp()
    last = A[..., -1:]
    writes = (k * (last - A).exp()[..., None]).transpose(3, 4) @ v
    states = _carried(writes, last[..., None].exp())
    o = (q @ k.transpose(3, 4) * weights) @ v + (q * A.exp()[..., None]) @ states
    return o.transpose(2, 3).flatten(1, 2)


def key_chunk(q: Tensor, k: Tensor, v: Tensor, gk: Tensor) -> Tensor:
    """Gates per key: chunks of 32, inside them pairs of blocks of 8 tokens, and all pairs of tokens inside a block.

    A later block reads an earlier one through the product of all gates between them, so every factor is at most 1.
    """
    q, k, v, gk = (_chunks(x, _KEY) for x in (q, k, v, gk))
    A = gk.cumsum(3)
    rows, ends = [], A[..., _BLOCK - 1 :: _BLOCK, :]
    for i in range(_KEY // _BLOCK):
        here, start = slice(i * _BLOCK, (i + 1) * _BLOCK), ends[..., i - 1, None, :]
        pairs = A[..., here, None, :] - A[..., None, here, :]
        weights = pairs.masked_fill(_later(_BLOCK)[..., None], -torch.inf).exp()
        own = (q[..., here, None, :] * k[..., None, here, :] * weights).sum(-1)
        blocks = [own, own.new_zeros(*own.shape[:-1], _KEY - (i + 1) * _BLOCK)]
        if i:
            before = slice(0, i * _BLOCK)
            keys = k[..., before, :] * (start - A[..., before, :]).exp()
            blocks.insert(0, (q[..., here, :] * (A[..., here, :] - start).exp()) @ keys.transpose(3, 4))
        rows.append(torch.cat(blocks, -1))
    last = A[..., -1:, :]
    writes = (k * (last - A).exp()).transpose(3, 4) @ v
    states = _carried(writes, last.exp().transpose(3, 4))
    return (torch.cat(rows, -2) @ v + (q * A.exp()) @ states).transpose(2, 3).flatten(1, 2)


def safe_chunk(q: Tensor, k: Tensor, v: Tensor, gk: Tensor) -> Tensor:
    """Gates per key, the shortest way: weights pair by pair inside chunks of 16."""
    q, k, v, gk = (_chunks(x, _EAGER) for x in (q, k, v, gk))
    A = gk.cumsum(3)
    pairs = A[..., :, None, :] - A[..., None, :, :]
    weights = pairs.masked_fill(_later(_EAGER)[..., None], -torch.inf).exp()
    scores = (q[..., :, None, :] * k[..., None, :, :] * weights).sum(-1)
    last = A[..., -1:, :]
    states = _carried((k * (last - A).exp()).transpose(3, 4) @ v, last.exp().transpose(3, 4))
    return (scores @ v + (q * A.exp()) @ states).transpose(2, 3).flatten(1, 2)


def delta_chunk(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
    """The gated delta rule with scalar gates, in chunks of 64: one triangular system each, then state after state."""
    q, k, v, g, beta = (_chunks(x, _SCALAR) for x in (q, k, v, g, beta))
    A = g.cumsum(3)
    weights = (A[..., :, None] - A[..., None, :]).masked_fill(_later(_SCALAR), -torch.inf).exp()
    error_keys = k * beta[..., None]
    right = torch.cat([v * beta[..., None], error_keys * A.exp()[..., None]], -1)
    system = error_keys @ k.transpose(3, 4) * weights
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    free, bound = solved.split([v.shape[4], k.shape[4]], -1)
    last = A[..., -1:]
    keys, reads, pairs = k * (last - A).exp()[..., None], q * A.exp()[..., None], q @ k.transpose(3, 4) * weights
    S, outputs = v.new_zeros(*k.shape[:1], k.shape[2], k.shape[4], v.shape[4]), []
    for n in range(k.shape[1]):
        u = free[:, n] - bound[:, n] @ S
        outputs.append(reads[:, n] @ S + pairs[:, n] @ u)
        S = last[:, n, ..., None].exp() * S + keys[:, n].transpose(2, 3) @ u
    return torch.stack(outputs, 1).transpose(2, 3).flatten(1, 2)


def _chunks(x: Tensor, size: int) -> Tensor:
    """Tokens in chunks, heads before them: [B, chunks, H, size, …]."""
    return x.unflatten(1, (-1, size)).transpose(2, 3)


def _later(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu(1)


def _carried(writes: Tensor, decays: Tensor) -> Tensor:
    """The state before every chunk."""
    S, states = torch.zeros_like(writes[:, 0]), []
    for write, decay in zip(writes.unbind(1), decays.unbind(1), strict=True):
        states.append(S)
        S = decay * S + write
    return torch.stack(states, 1)
