"""The public operators: they check their arguments, pick a backend, and run it."""

import math
from collections.abc import Hashable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gladient.ops import eager, fla, native
from gladient.ops.call import Backend, Call, Form, Read, prepare
from gladient.ops.check import check_option, warn_layout
from gladient.ops.native.steps import Query, Step, likeness, repeated
from gladient.ops.watched import visible

__all__ = [
    "gated_linear_attention",
    "gated_delta_rule",
    "generalized_delta_rule",
    "operate",
    "run",
    "BACKENDS",
    "first_willing",
    "heard_by_none",
    "known_step",
]

_MOST_KNOWN = 1024  # a model has a few kinds of calls; a service whose batches grow and shrink has many
_known: dict[Hashable, Step | Query | None] = {}  # what was checked, of calls of one token or one query

# The first that is willing runs: fla asks for CUDA, native for CPU cores and a library, eager for nothing.
BACKENDS: dict[str, ModuleType] = {"fla": fla, "native": native, "eager": eager}


def gated_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    g: Tensor | None = None,
    gk: Tensor | None = None,
    gv: Tensor | None = None,
    G: Tensor | None = None,
    A: Tensor | None = None,
    dt: Tensor | None = None,
    scale: float | None = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    form: Form = "auto",
    backend: Backend = "auto",
    chunk_size: int | None = None,
    read: Read = "after",
    bonus: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    check_values: bool = False,
    inplace: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Gated linear attention, $S_t = G_t \odot S_{t-1} + k_t v_t^\top$, $o_t = \mathrm{scale}\; S_t^\top q_t$.

    The log gate of state entry (k, v) is $g_t + gk_t[k] + gv_t[v] + G_t[k, v] + A[k, v]\,dt_t[v]$; absent families are
    gates of 1. Convention: the write is not gated at its own step; `scale` is 1 unless given (not $K^{-1/2}$). With
    `read="before"` the output reads $S_{t-1}$, to which `bonus` u adds the current token: RWKV-6,
    $o_t = \mathrm{scale}\,(S_{t-1} + (u \odot k_t) v_t^\top)^\top q_t$.
    H is the most heads that a tensor has; each of the others has a divisor h of them, and head i uses its i // (H / h).

    Args:
        q: queries, [B, T, h, K]; [B, 1, h, K] is enough for `form="last_query"`.
        k: keys, [B, T, h, K].
        v: values, [B, T, h, V].
        g: scalar log gates, [B, T, h], or a fixed decay per head, [H]. Log gates are to be ≤ 0, which is not checked
            unless you ask with `check_values`: one above 0 multiplies the state up. -inf forgets exactly.
        gk: log gates per key channel, [B, T, h, K].
        gv: log gates per value channel, [B, T, h, V].
        G: log gates per entry of the state, [B, T, h, K, V].
        A: rates ≤ 0, [h, K, V] or, apart for each row, [B, h, K, V]: Mamba's; with `dt` it makes the log gates A · dt.
        dt: step sizes ≥ 0, [B, T, h, V].
        scale: factor of every output; None for $K^{-1/2}$.
        initial_state: the state before the first token, [B, h, K, V] ([sequences, h, K, V] with `cu_seqlens`).
        output_final_state: whether to return the state after the last token.
        form: "recurrent", "parallel", "chunked", "last_query", "step" or "auto"; see docs/operators.md.
        backend: "eager" (plain PyTorch), "native" (this package's C++ kernels), "fla" (Triton) or "auto".
        chunk_size: tokens per chunk of `form="chunked"` in the eager backend, which alone has a choice; None takes the
            measured best.
        read: whether outputs read the state "after" or "before" the token's own decay and write.
        bonus: u, weight of the token's own write in a read before it, [H, K] or, apart for each row, [B, H, K].
        cu_seqlens: borders 0 … T of sequences packed in one row (B = 1).
        check_values: whether to look for NaN, infinities, log gates above 0 and steps below 0: each input is read once.
        inplace: whether a step writes its final state into `initial_state` and returns that; without gradients.

    Returns:
        o: outputs in v's dtype, [B, T, H, V]; for `form="last_query"` [B, 1, H, V], one per packed sequence, of which
            those without tokens have none unless q is a single query for all.
        final_state: [B, H, K, V], or None unless `output_final_state`; float32 for half precision inputs.

    Raises:
        ValueError: if a shape, head count, form, backend or value breaks its rule.
        TypeError: if a type or dtype does; float64 goes with float64 alone.
        ImportError: if `backend="fla"` and flash-linear-attention, Triton or a CUDA device is missing.
        RuntimeError: if the named backend cannot run this, as `native` where there is no C++ compiler.

    Warns:
        LayoutWarning: if there are fewer tokens than heads, as in head-first tensors.

    Source: arXiv 2504.04308, section 2; layout and head grouping of flash-linear-attention.

    >>> import torch
    >>> q = k = torch.ones(1, 3, 1, 2)
    >>> v = torch.ones(1, 3, 1, 1)
    >>> half = torch.full((1, 3, 1), 0.5).log()
    >>> o, state = gated_linear_attention(q, k, v, g=half, output_final_state=True)
    >>> o.flatten().tolist(), state.flatten().tolist()
    ([2.0, 3.0, 3.5], [1.75, 1.75])
    """
    given = {
        "q": q, "k": k, "v": v, "g": g, "gk": gk, "gv": gv, "G": G, "A": A, "dt": dt, "scale": scale,
        "initial_state": initial_state, "output_final_state": output_final_state, "form": form,
        "chunk_size": chunk_size, "read": read, "bonus": bonus, "cu_seqlens": cu_seqlens,
        "check_values": check_values, "inplace": inplace,
    }  # fmt: skip
    return run(given, backend, known_layout=False)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    *,
    g: Tensor | None = None,
    gk: Tensor | None = None,
    erase: Tensor | None = None,
    erase_keys: Tensor | None = None,
    scale: float | None = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    form: Form = "auto",
    backend: Backend = "auto",
    chunk_size: int | None = None,
    read: Read = "after",
    cu_seqlens: Tensor | Sequence[int] | None = None,
    check_values: bool = False,
    inplace: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""The gated delta rule: a state that is corrected by its own error at every token.

    $$S' = D_t S_{t-1}, \qquad S_t = S' + k_t \left(\beta_t v_t - S'^\top (e_t m_t)\right)^\top, \qquad
      o_t = \mathrm{scale}\; S_t^\top q_t$$

    $D_t$ is the gate exp(g) or Diag(exp(gk)), 1 if there is none, $e_t$ the erase strength, $\beta_t$ if not given, and
    $m_t$ the erase key, $k_t$ if not given: one step of gradient descent with step size β on the error
    $|S'^\top k_t - v_t|^2 / 2$ of the decayed state.
    Without gates it is DeltaNet, with g Gated DeltaNet, with gk Kimi's KDA, with `gk`, `erase` per channel of k and
    `beta` per channel of v Gated DeltaNet-2, with g and `erase_keys` Comba.
    Convention: decay first, then the error against the decayed state; `scale` is 1 unless given, and keys and queries
    are taken as they are: where a model normalises them, normalise them before.

    Args:
        q: queries, [B, T, h, K]; [B, 1, h, K] is enough for `form="last_query"`. Head groups are those of
            `gated_linear_attention`.
        k: keys, [B, T, h, K].
        v: values, [B, T, h, V].
        beta: write strengths, [B, T, h], or [B, T, h, V], one per channel of v, beside `erase`. For keys of length 1
            they lie in [0, 2]: 1 replaces what the state holds for the key, and outside of that range errors grow (for
            any key: where β |k|² is outside). This is not checked unless you ask with `check_values`.
        g: scalar log gates ≤ 0, [B, T, h], or a fixed decay per head, [H].
        gk: log gates per key channel, [B, T, h, K].
        erase: erase strengths, [B, T, h], or [B, T, h, K], one per channel of k; None takes beta.
        erase_keys: what the decayed state is read with to erase, [B, T, h, K]; None takes k. Errors do not grow where
            e |k| |m| is at most 2 and m points along k; no rule is checked for others.
        scale: factor of every output; None for $K^{-1/2}$.
        initial_state: the state before the first token, [B, h, K, V] ([sequences, h, K, V] with `cu_seqlens`).
        output_final_state: whether to return the state after the last token.
        form: "recurrent", "chunked" (the WY representation), "last_query", "step" or "auto".
        backend: "eager", "native", "fla" or "auto".
        chunk_size: tokens per chunk of `form="chunked"` in the eager backend.
        read: whether outputs read the state "after" or "before" the token's own decay and write.
        cu_seqlens: borders 0 … T of sequences packed in one row (B = 1).
        inplace: whether a step writes its final state into `initial_state` and returns that; without gradients.
        check_values: whether to look for NaN, infinities, log gates above 0 and strengths outside of [0, 2].

    Returns:
        o: outputs in v's dtype, [B, T, H, V]; for `form="last_query"` [B, 1, H, V], one per packed sequence.
        final_state: [B, H, K, V], or None unless `output_final_state`; float32 for half precision inputs.

    Raises:
        ValueError, TypeError, RuntimeError: as `gated_linear_attention`; a `beta` per channel needs `erase`.

    Source: Yang et al., arXiv 2406.06484 (DeltaNet) and 2412.06464 (Gated DeltaNet); Kimi Team, arXiv 2510.26692 (KDA);
    Hatamizadeh et al., arXiv 2605.22791 (Gated DeltaNet-2); Hu et al., arXiv 2506.02475 (Comba).

    >>> import torch
    >>> key = torch.ones(1, 3, 1, 1)
    >>> v = torch.tensor([4.0, 8.0, 8.0]).view(1, 3, 1, 1)
    >>> o, state = gated_delta_rule(key, key, v, torch.full((1, 3, 1), 0.5), output_final_state=True)
    >>> o.flatten().tolist(), state.item()
    ([2.0, 5.0, 6.5], 6.5)
    """
    if not isinstance(beta, Tensor):
        raise TypeError(f"beta is {type(beta).__name__}; it must be a torch.Tensor of write strengths, [B, T, heads]")
    given = {
        "q": q,
        "k": k,
        "v": v,
        "g": g,
        "gk": gk,
        "beta": beta,
        "erase": erase,
        "erase_keys": erase_keys,
        "scale": scale,
        "initial_state": initial_state,
        "output_final_state": output_final_state,
        "form": form,
        "chunk_size": chunk_size,
        "read": read,
        "cu_seqlens": cu_seqlens,
        "check_values": check_values,
        "inplace": inplace,
    }
    return run(given, backend, known_layout=False)


def generalized_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    g: Tensor | None = None,
    gk: Tensor | None = None,
    scale: float | None = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    form: Form = "auto",
    backend: Backend = "auto",
    chunk_size: int | None = None,
    read: Read = "after",
    cu_seqlens: Tensor | Sequence[int] | None = None,
    check_values: bool = False,
    inplace: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""The generalised delta rule (DPLR): transitions that are a diagonal plus one of rank 1.

    $$S_t = D_t S_{t-1} + b_t \left(S_{t-1}^\top a_t\right)^\top + k_t v_t^\top, \qquad
      o_t = \mathrm{scale}\; S_t^\top q_t$$

    $D_t$ is the gate exp(g) or Diag(exp(gk)), 1 if there is none. RWKV-7 reads a key κ of length 1 and erases along
    rates · κ: `a=-kappa, b=rate * kappa`. The gated delta rule is `a=-D (erase * k), b=k, v=beta * v`.
    Convention: the state is read **before** its decay, where `gated_delta_rule` reads it after; so a gate of 0 divides
    nothing. `scale` is 1 unless given.

    Args:
        q: queries, [B, T, h, K]; [B, 1, h, K] is enough for `form="last_query"`. Head groups are those of
            `gated_linear_attention`.
        k: keys, [B, T, h, K].
        v: values, [B, T, h, V].
        a: what the state is read with, [B, T, h, K].
        b: where that is written, [B, T, h, K]. Without a gate a token leaves 1 + a·b of what the state holds for b:
            with a·b outside of [-2, 0] errors grow. This is not checked unless you ask with `check_values`.
        g: scalar log gates ≤ 0, [B, T, h], or a fixed decay per head, [H].
        gk: log gates per key channel, [B, T, h, K].
        scale: factor of every output; None for $K^{-1/2}$.
        initial_state: the state before the first token, [B, h, K, V] ([sequences, h, K, V] with `cu_seqlens`).
        output_final_state: whether to return the state after the last token.
        form: "recurrent", "chunked", "last_query", "step" or "auto".
        backend: "eager", "native", "fla" or "auto".
        chunk_size: tokens per chunk of `form="chunked"` in the eager backend.
        read: whether outputs read the state "after" or "before" the token's own decay and write.
        cu_seqlens: borders 0 … T of sequences packed in one row (B = 1).
        check_values: whether to look for NaN, infinities, log gates above 0 and a·b outside of [-2, 0].
        inplace: whether a step writes its final state into `initial_state` and returns that; without gradients.

    Returns:
        o: outputs in v's dtype, [B, T, H, V]; for `form="last_query"` [B, 1, H, V], one per packed sequence.
        final_state: [B, H, K, V], or None unless `output_final_state`; float32 for half precision inputs.

    Raises:
        ValueError, TypeError, ImportError, RuntimeError: as `gated_linear_attention`.

    Source: Peng et al., arXiv 2503.14456 (RWKV-7), and flash-linear-attention for the name; the chunked form without
    quotients is derived.

    >>> import torch
    >>> one = torch.ones(1, 3, 1, 1)
    >>> o, state = generalized_delta_rule(one, one, 4 * one, -one, one / 2, output_final_state=True)
    >>> o.flatten().tolist(), state.item()
    ([4.0, 6.0, 7.0], 7.0)
    """
    for name, x in (("a", a), ("b", b)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} is {type(x).__name__}; it must be a torch.Tensor, [B, T, heads, K]")
    given = {
        "q": q,
        "k": k,
        "v": v,
        "a": a,
        "b": b,
        "g": g,
        "gk": gk,
        "scale": scale,
        "initial_state": initial_state,
        "output_final_state": output_final_state,
        "form": form,
        "chunk_size": chunk_size,
        "read": read,
        "cu_seqlens": cu_seqlens,
        "check_values": check_values,
        "inplace": inplace,
    }
    return run(given, backend, known_layout=False)


def operate(
    q: Tensor, k: Tensor, v: Tensor, *, backend: Backend = "auto", **options: Any
) -> tuple[Tensor, Tensor | None]:
    """What the public operators do, a delta rule if `beta` or `a` is given, for callers that know their layout.

    A prompt may have fewer tokens than a layer has heads, so that a `LayoutWarning` would be a false alarm.
    """
    return run({"q": q, "k": k, "v": v, **options}, backend, known_layout=True)


def run(given: dict[str, Any], backend: Backend, known_layout: bool) -> tuple[Tensor, Tensor | None]:
    """The arguments by name, checked and computed; a small call like one before goes straight to the kernel."""
    alike = likeness(given, backend) if heard_by_none() else None
    if alike is not None and (known := _known.get(alike)) and (repetition := known(given)):
        o, final = repetition
        return o, final if given.get("output_final_state") else None
    call = prepare(**given)
    if not known_layout:
        warn_layout(call.k, call.heads)
    found = run_call(call, backend, given.get("initial_state"))
    if alike is not None and alike not in _known and first_willing(call, backend) == "native":
        if len(_known) == _MOST_KNOWN:
            _known.clear()
        _known[alike] = repeated(call, given)
    return found


def known_step(given: dict[str, Any], backend: Backend) -> Step | None:
    """How the kernel computes these arguments of one token, if such were checked and nobody listens to calls."""
    step = _known.get(likeness(given, backend)) if heard_by_none() else None
    return step if isinstance(step, Step) else None


def heard_by_none() -> bool:
    """Whether `run_call` is as it is here; else someone listens to all calls."""
    return run_call is _run_call


def run_call(call: Call, backend: str, initial_state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """All of them end here: the call, and the state as it was given, which holds the final one if it asks so."""
    o, final = BACKENDS[first_willing(call, backend)].run(call)
    if _spoilt(call, o if final is None else final):
        o, final = _mended(call, o, final)
    if call.inplace and final is not initial_state:
        final = initial_state.copy_(final)  # type: ignore[union-attr]
    return o, final if call.output_final_state else None


def _spoilt(call: Call, found: Tensor) -> bool:
    """Whether an infinity or NaN that a gate of 0 should have dropped may be in the state or the last outputs.

    A form that multiplies it by that gate gets 0 · inf = NaN, which no later token removes: the last state tells. One
    step alone is not asked: it may have overwritten the state that `_mended` would need, and it drops it by itself.
    """
    single = call.form == "step" and len(call.offsets) == 2 and not call.differentiable()
    if single or call.gates.family == "none" or not visible(found):
        return False
    # The sum first: it reads one state, `forget` all gates. A sum of finite numbers that overflows costs that reading.
    return not math.isfinite(found.detach().sum().item()) and call.gates.forget


def _mended(call: Call, o: Tensor, final: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The results with what is not finite replaced by the recurrence's."""
    found = eager.exact(call)
    if call.differentiable() or call.has_tangents():
        return found  # all of it: a choice between both would send derivatives back through the NaN, and 0 · NaN is NaN
    pairs = zip((o, final), found, strict=True)
    o, final = (x if x is None or y is None else torch.where(x.isfinite(), x, y) for x, y in pairs)  # type: ignore[assignment]
    return o, final


def first_willing(call: Call, backend: str) -> str:
    """The backend that runs: the one that is named, else the first that holds the call and is there."""
    if backend == "auto":
        return next(name for name, module in BACKENDS.items() if module.why_not(call) is None)
    check_option("backend", backend, Backend)
    if backend == "fla":
        fla.require()
    obstacle = BACKENDS[backend].why_not(call, named=True)
    if obstacle:
        raise RuntimeError(f"backend={backend!r} cannot run this: {obstacle}; use backend='auto'")
    return backend


_run_call = run_call
