"""Only the last query's output, with the read-out contracted first: O(T (K + V)) work and no state at all."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from gladient.ops.gates import Gates, exclusive_prefix_sum, exclusive_suffix_sum, to_heads

__all__ = ["last_query"]


def last_query(
    q: Float[Tensor, "B Tq H K"],
    k: Float[Tensor, "B T Hk K"],
    v: Float[Tensor, "B T Hv V"],
    gates: Gates,
    *,
    scale: float,
    initial_state: Float[Tensor, "B H K V"] | None,
    output_final_state: bool = False,
) -> tuple[Float[Tensor, "B 1 H V"], Float[Tensor, "B H K V"] | None]:
    r"""$o_T = \sum_t \omega_t s_t\, v_t$ with $s_t = q_T^\top k_t$ and token weights $\omega_t = \prod_{i>t} g_i$.

    Key gates weigh the channels inside $s_t$, value gates the channels of $v_t$; no K×V state is ever formed.
    Only the last query in q counts.

    >>> ones = torch.ones(1, 3, 1, 1)
    >>> g = torch.full((1, 3, 1), 0.5).log()
    >>> last_query(ones, ones, ones, Gates(g=g), scale=1.0, initial_state=None)[0].item()
    1.75
    """
    H = q.shape[2]
    query = q[:, -1] * scale if scale != 1.0 else q[:, -1]
    g, gk, gv = (None if gate is None else to_heads(gate, H) for gate in (gates.g, gates.gk, gates.gv))
    if gk is not None:
        k = to_heads(k, H)
    if gv is not None:
        v = to_heads(v, H)
    o = _LastQuery.apply(query, k, v, g, gk, gv)[0]
    decay = _whole_sequence(g, gk, gv)
    if initial_state is not None:
        o = o + torch.einsum("bhk,bhkv->bhv", query, decay * initial_state)
    state = _final_state(k, v, g, gk, gv, H) if output_final_state else None
    if state is not None and initial_state is not None:
        state = state + decay * initial_state
    return o[:, None], state


def _whole_sequence(g: Tensor | None, gk: Tensor | None, gv: Tensor | None) -> Tensor | float:
    """Π_t G_t, broadcastable to the state."""
    decay: Tensor | float = 1.0
    if g is not None:
        decay = decay * g.sum(1).exp()[:, :, None, None]
    if gk is not None:
        decay = decay * gk.sum(1).exp()[:, :, :, None]
    if gv is not None:
        decay = decay * gv.sum(1).exp()[:, :, None, :]
    return decay


def _final_state(k: Tensor, v: Tensor, g: Tensor | None, gk: Tensor | None, gv: Tensor | None, H: int) -> Tensor:
    k, v = to_heads(k, H), to_heads(v, H)
    if gk is not None:
        k = k * _weights(gk)
    if g is not None:
        k = k * _weights(g)[..., None]
    if gv is not None:
        v = v * _weights(gv)
    return torch.einsum("bthk,bthv->bhkv", k, v)


def _weights(log_gates: Tensor) -> Tensor:
    """Token weights ω_t = Π_{i > t} g_i of log gates [B, T, …], differentiable."""
    T = log_gates.shape[1]
    shifted = torch.cat([log_gates[:, 1:], torch.zeros_like(log_gates[:, :1])], 1) if T else log_gates
    return shifted.flip(1).cumsum(1).flip(1).exp()


class _LastQuery(torch.autograd.Function):
    """The gradient of every log gate is the exclusive prefix sum of what each token gave to the output."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, gk: Tensor | None, gv: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        w, wk, wv = (None if gate is None else exclusive_suffix_sum(gate).exp_() for gate in (g, gk, gv))
        p = _scores(q, k if wk is None else k * wk)
        if w is not None:
            p *= w
        return _read_out(p, v if wv is None else v * wv), p, w, wk, wv

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.save_for_backward(*inputs[:3], *output[1:])
        ctx.mark_non_differentiable(*(x for x in output[1:] if x is not None))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        q, k, v, p, w, wk, wv = ctx.saved_tensors
        need_q, need_k, need_v, need_g, need_gk, need_gv = ctx.needs_input_grad
        d_q = d_k = d_v = d_g = d_gk = d_gv = None
        if wv is None:
            c = _dot(v, grad)
            d_v = _outer(p, grad, v.shape[2]) if need_v else None
        else:
            u = (wv * v).mul_(grad[:, None])
            c = u.sum(-1)
            d_v = (p[..., None] * wv).mul_(grad[:, None]) if need_v else None
            d_gv = exclusive_prefix_sum(u.mul_(p[..., None])) if need_gv else None
        if need_g:
            d_g = exclusive_prefix_sum(p * c)
        if not (need_q or need_k or need_gk):
            return d_q, d_k, d_v, d_g, d_gk, d_gv
        d_s = c if w is None else c.mul_(w)
        if wk is None:
            d_q = _read_out(d_s, k) if need_q else None
            d_k = _outer(d_s, q, k.shape[2]) if need_k else None
        else:
            e = (wk * k).mul_(d_s[..., None])
            d_q = e.sum(1) if need_q else None
            d_k = (wk * d_s[..., None]).mul_(q[:, None]) if need_k else None
            d_gk = exclusive_prefix_sum(e.mul_(q[:, None])) if need_gk else None
        return d_q, d_k, d_v, d_g, d_gk, d_gv


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """s_t = q·k_t for q [B, H, K] and k [B, T, h, K] with h dividing H: [B, T, H]."""
    h, H = k.shape[2], q.shape[1]
    if h == 1:
        return torch.bmm(k[:, :, 0], q.transpose(1, 2))
    if k.shape[3] == 1 and h == H:
        return k[..., 0] * q[:, None, :, 0]
    parts = [torch.bmm(k[:, :, i], q_i.transpose(1, 2)) for i, q_i in enumerate(q.split(H // h, 1))]
    return torch.cat(parts, 2)


def _read_out(p: Tensor, v: Tensor) -> Tensor:
    """Σ_t p_t v_t for p [B, T, H] and v [B, T, h, V] with h dividing H: [B, H, V]."""
    h, H = v.shape[2], p.shape[2]
    if h == 1:
        return torch.bmm(p.transpose(1, 2), v[:, :, 0])
    if h == H:
        return (p[..., None] * v).sum(1)
    parts = [torch.bmm(p_i.transpose(1, 2), v[:, :, i]) for i, p_i in enumerate(p.split(H // h, 2))]
    return torch.cat(parts, 1)


def _dot(v: Tensor, grad: Tensor) -> Tensor:
    """v_t·grad for v [B, T, h, V] and grad [B, H, V]: the scores' formula."""
    return _scores(grad, v)


def _outer(p: Tensor, x: Tensor, heads: int) -> Tensor:
    """p_t xᵀ for p [B, T, H] and x [B, H, D], summed over the H / heads members of each group: [B, T, heads, D]."""
    B, T, H = p.shape
    if heads == H:
        return p[..., None] * x[:, None]
    if heads == 1:
        return torch.bmm(p, x)[:, :, None]
    pairs = zip(p.split(H // heads, 2), x.split(H // heads, 1), strict=True)
    return torch.stack([torch.bmm(p_i, x_i) for p_i, x_i in pairs], 2)
