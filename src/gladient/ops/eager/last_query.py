"""Only the last query's output, with the read-out contracted first: O(T (K + V)) work and no state at all."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._autocast import unrounded
from gladient.ops.function import BatchFunction, Pullback, recomputed, row_blocks
from gladient.ops.gates import Gates, exclusive_prefix_sum, exclusive_suffix_sum, to_heads, writes

__all__ = ["final_state", "last_query"]


def last_query(
    q: Float[Tensor, "B 1 H K"],
    k: Float[Tensor, "B T Hk K"],
    v: Float[Tensor, "B T Hv V"],
    gates: Gates,
    *,
    scale: float,
    recompute: bool = True,
) -> Float[Tensor, "B 1 H V"]:
    r"""$o_T = \sum_t \omega_t s_t\, v_t$ with $s_t = q_T^\top k_t$ and token weights $\omega_t = \prod_{i>t} g_i$.

    Key gates weigh the channels inside $s_t$, value gates the channels of $v_t$; no K×V state is ever formed. With
    `recompute` the backward pass keeps nothing but the inputs; plain autograd else.

    >>> ones = torch.ones(1, 3, 1, 1)
    >>> g = torch.full((1, 3, 1), 0.5).log()
    >>> last_query(ones[:, :1], ones, ones, Gates(g=g), scale=1.0).item()
    1.75
    """
    H = q.shape[2]
    gates = gates.to_heads(H)
    k = k if gates.gk is None else to_heads(k, H)
    v = v if gates.gv is None else to_heads(v, H)
    inputs = (q, k, v, gates.g, gates.gk, gates.gv)
    if not recompute:
        (o,) = _LastQuery.plain(scale, *inputs)
    elif torch.compiler.is_compiling():
        (o,) = recomputed(partial(_LastQuery.plain, scale), *inputs)
    else:
        (o,) = _LastQuery.apply(scale, *inputs)
    return o


def final_state(
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    gates: Gates,
    initial_state: Tensor | None,
    *,
    recompute: bool = False,
) -> Float[Tensor, "B H K V"]:
    """The state after all tokens."""
    inputs = (k, v, gates.g, gates.gk, gates.gv, gates.G, initial_state)
    return (recomputed(_final_state, *inputs) if recompute else _final_state(*inputs))[0]


def _final_state(k: Tensor, v: Tensor, *given: Tensor | None) -> tuple[Tensor]:
    *gate_tensors, initial_state = given
    gates = Gates(*gate_tensors)
    written = writes(k, v, gates)
    return (written if initial_state is None else gates.decay() * initial_state + written,)


class _LastQuery(BatchFunction):
    """Keeps nothing but its inputs: the backward pass forms the weights again, block by block, in cache."""

    @staticmethod
    def forward(scale: float, *inputs: Any) -> tuple[Tensor]:
        q, _, v = inputs[:3]
        o = q.new_empty(*q.shape[:3], v.shape[3])
        for rows in _blocks(*inputs):
            o[rows, 0] = _Block(scale, *_take(inputs, rows)).output()
        return (o,)

    @staticmethod
    def plain(scale: float, *inputs: Any) -> tuple[Tensor]:
        """All rows at once."""
        return (_Block(scale, *inputs).output()[:, None],)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """By blocks of rows; higher derivatives by all rows at once."""
        scale, *inputs = ctx.run.arguments(ctx.saved_tensors)
        return None, *_LastQueryGradient.apply(grad, scale, ctx.needs_input_grad[1:], *inputs)


class _LastQueryGradient(BatchFunction):
    @staticmethod
    def forward(grad: Tensor, scale: float, needed: tuple[bool, ...], *inputs: Any) -> tuple[Tensor | None, ...]:
        wanted = [x if need else None for x, need in zip(inputs, needed, strict=True)]
        gradients = [None if x is None else torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in wanted]
        with unrounded(grad.device.type):
            for rows in _blocks(*inputs):
                _Block(scale, *_take(inputs, rows)).gradients(grad[rows, 0], *_take(gradients, rows))
        return tuple(gradients)

    @staticmethod
    def plain(grad: Tensor, scale: float, needed: tuple[bool, ...], *inputs: Any) -> tuple[Tensor | None, ...]:
        """All of them at once."""
        found = Pullback(partial(_LastQuery.plain, scale), 1)(grad, *inputs)
        return tuple(x if need else None for x, need in zip(found, needed, strict=True))


def _take(tensors: Sequence[Tensor | None], rows: slice) -> Iterator[Any]:
    return (None if x is None else x[rows] for x in tensors)


def _blocks(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, gk: Tensor | None, gv: Tensor | None) -> Iterator[slice]:
    T, H, K, V = k.shape[1], q.shape[2], k.shape[3], v.shape[3]
    # A row's largest temporary: scores, or weighted keys or values where there are any beside the inputs.
    return row_blocks(len(q), T * H * max(1, K if gk is not None else 1, V if v.shape[2] > 1 or gv is not None else 1))


class _Block:
    """A few rows of the batch, with the weights and weighted scores that forward and backward share."""

    def __init__(
        self, scale: float, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, gk: Tensor | None, gv: Tensor | None
    ) -> None:
        self.scale, self.q, self.k, self.v = scale, scale * q[:, 0], k, v
        self.w, self.wk, self.wv = (None if x is None else exclusive_suffix_sum(x).exp_() for x in (g, gk, gv))
        self.weighted_k = k if self.wk is None else k * self.wk
        self.weighted_v = v if self.wv is None else v * self.wv
        self.p = _contract(self.q, self.weighted_k)
        if self.w is not None:
            self.p = self.p * self.w  # not in place: under vmap the gates alone may be mapped

    def output(self) -> Tensor:
        return _accumulate(self.p, self.weighted_v)

    def gradients(
        self,
        grad: Tensor,
        d_q: Tensor | None,
        d_k: Tensor | None,
        d_v: Tensor | None,
        d_g: Tensor | None,
        d_gk: Tensor | None,
        d_gv: Tensor | None,
    ) -> None:
        """Writes the gradients asked for; that of a log gate is what all earlier tokens gave to the output."""
        if d_v is not None or d_gv is not None:
            _weighted_outer(self.p, self.wv, grad, self.v, d_v, d_gv)
        if d_q is None and d_k is None and d_g is None and d_gk is None:
            return
        c = _contract(grad, self.weighted_v)
        # dL/dlog g_t: ω_i holds g_t for every i < t, and dL/dlog ω_i = ω_i s_i · (grad · v_i) = p_i c_i.
        if d_g is not None:
            exclusive_prefix_sum(self.p * c, out=d_g)
        if self.w is not None:
            c *= self.w
        if d_q is not None:
            torch.mul(_accumulate(c, self.weighted_k), self.scale, out=d_q[:, 0])
        if d_k is not None or d_gk is not None:
            _weighted_outer(c, self.wk, self.q, self.k, d_k, d_gk)


def _weighted_outer(
    p: Tensor, weights: Tensor | None, x: Tensor, y: Tensor, d_y: Tensor | None, d_log: Tensor | None
) -> None:
    """d_y_t = p_t weights_t ⊙ x, summed over the heads that share y; d_log = exclusive prefix sum of y ⊙ d_y."""
    heads, H = y.shape[2], p.shape[2]
    if weights is None and d_y is not None and heads < H:
        for i, (p_i, x_i) in enumerate(zip(p.split(H // heads, 2), x.split(H // heads, 1), strict=True)):
            d_y[:, :, i] = torch.bmm(p_i, x_i)
        return
    d = torch.mul(p[..., None], x[:, None] if weights is None else weights, out=d_y)
    if weights is not None:
        d *= x[:, None]
    if d_log is not None:
        exclusive_prefix_sum(d * y, out=d_log)


def _contract(x: Tensor, y: Tensor) -> Tensor:
    """x·y_t for x [B, H, D] and y [B, T, h, D] with h dividing H: [B, T, H]."""
    h, H, D = y.shape[2], x.shape[1], y.shape[3]
    if h == 1:
        return torch.bmm(y[:, :, 0], x.transpose(1, 2))
    if h == H:
        products = y * x[:, None]
        # Sums over channels as a product with ones: half the time of `sum` at 8 channels, the same at 64.
        return products[..., 0] if D == 1 else torch.mv(products.flatten(0, 2), x.new_ones(D)).view(y.shape[:3])
    return torch.cat([torch.bmm(y[:, :, i], x_i.transpose(1, 2)) for i, x_i in enumerate(x.split(H // h, 1))], 2)


def _accumulate(p: Tensor, y: Tensor) -> Tensor:
    """Σ_t p_t y_t for p [B, T, H] and y [B, T, h, D] with h dividing H: [B, H, D]."""
    h, H = y.shape[2], p.shape[2]
    if h == 1:
        return torch.bmm(p.transpose(1, 2), y[:, :, 0])
    if h == H:
        return (p[..., None] * y).sum(1)
    return torch.cat([torch.bmm(p_i.transpose(1, 2), y[:, :, i]) for i, p_i in enumerate(p.split(H // h, 2))], 1)
