"""The public operator: checks its arguments, picks the form, and runs it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gladient.ops.gates import Gates
from gladient.ops.last_query import last_query
from gladient.ops.recurrent import recurrent

__all__ = ["gated_linear_attention", "FORMS"]

FORMS: dict[str, Callable[..., Any]] = {"recurrent": recurrent, "last_query": last_query}


def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor | None = None,
    gk: Tensor | None = None,
    gv: Tensor | None = None,
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    form: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    r"""Gated linear attention, $S_t = G_t \odot S_{t-1} + k_t v_t^\top$, $o_t = \mathrm{scale}\; S_t^\top q_t$.

    The log gate of state entry (k, v) is $\log G_t[k, v] = g_t + gk_t[k] + gv_t[v]$; absent families are gates of 1.
    Convention: the write is not gated at its own step; `scale` is 1 unless given (not $K^{-1/2}$).
    k, v and the gates may each have fewer heads h than q, with h dividing H: head i of q uses head i // (H / h).

    Args:
        q: queries, [B, T, H, K]; [B, 1, H, K] is enough for `form="last_query"`.
        k: keys, [B, T, h, K].
        v: values, [B, T, h, V].
        g: scalar log gates ≤ 0, [B, T, h], or a fixed decay per head, [H]; -inf forgets exactly.
        gk: log gates per key channel, [B, T, h, K].
        gv: log gates per value channel, [B, T, h, V].
        scale: factor of every output.
        initial_state: the state before the first token, [B, H, K, V]; zero if None.
        output_final_state: whether to return the state after the last token.
        form: "recurrent" (the reference), "last_query" (the last output only, O(T (K + V)) work) or "auto".

    Returns:
        o: outputs in v's dtype, [B, T, H, V], or [B, 1, H, V] for `form="last_query"`.
        final_state: [B, H, K, V], or None unless `output_final_state`.

    Raises:
        ValueError: if a shape, head count, dtype or form breaks its rule.

    Source: arXiv 2504.04308, equation (GLA); layout and head grouping of flash-linear-attention.

    >>> q = k = torch.ones(1, 3, 1, 2)
    >>> v = torch.ones(1, 3, 1, 1)
    >>> half = torch.full((1, 3, 1), 0.5).log()
    >>> o, state = gated_linear_attention(q, k, v, g=half, output_final_state=True)
    >>> o.flatten().tolist(), state.flatten().tolist()
    ([2.0, 3.0, 3.5], [1.75, 1.75])
    """
    if form == "auto":
        form = "recurrent"
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; it must be one of {', '.join(['auto', *FORMS])}")
    g = _check(q, k, v, g, gk, gv, initial_state, form)
    dtype = v.dtype
    q, k, v, g, gk, gv, initial_state = (_accumulation(x) for x in (q, k, v, g, gk, gv, initial_state))  # type: ignore[assignment]
    gates = Gates(g, gk, gv)
    if form == "last_query":
        o, state = last_query(
            q, k, v, gates, scale=scale, initial_state=initial_state, output_final_state=output_final_state
        )
    else:
        if initial_state is None:
            initial_state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
        o, state = recurrent(q, k, v, gates, scale=scale, initial_state=initial_state)
    return o.to(dtype), state if output_final_state else None


def _accumulation(x: Tensor | None) -> Tensor | None:
    """Half precision accumulates in float32."""
    return x.float() if x is not None and x.dtype in (torch.float16, torch.bfloat16) else x


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor | None,
    gk: Tensor | None,
    gv: Tensor | None,
    initial_state: Tensor | None,
    form: str,
) -> Tensor | None:
    """Raises on shapes that break a rule; returns g as [B, T, h]."""
    for name, x in {"q": q, "k": k, "v": v}.items():
        if x.ndim != 4:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; it must be [B, T, heads, channels]: add what is missing"
            )
    (B, Tq, H, K), T, V = q.shape, k.shape[1], v.shape[3]
    if Tq != T and not (form == "last_query" and Tq == 1):
        raise ValueError(f"q has {Tq} steps and k has {T}; they must agree (form='last_query' also takes one query)")
    if g is not None and g.ndim == 1:
        g = g[None, None].expand(B, T, -1)
    wanted = {"k": (k, K), "v": (v, V), "g": (g, None), "gk": (gk, K), "gv": (gv, V)}
    for name, (x, channels) in wanted.items():
        if x is None:
            continue
        rest = () if channels is None else (channels,)
        if x.ndim != 3 + len(rest) or tuple(x.shape[:2]) != (B, T) or tuple(x.shape[3:]) != rest:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; with q and k it must be {[B, T, 'heads', *rest]}")
        if x.shape[2] == 0 or H % x.shape[2]:
            raise ValueError(f"{name} has {x.shape[2]} heads and q has {H}; the first must divide the second")
    if initial_state is not None and tuple(initial_state.shape) != (B, H, K, V):
        raise ValueError(
            f"initial_state has shape {tuple(initial_state.shape)}; it must be [B, H, K, V] = {[B, H, K, V]}"
        )
    return g
