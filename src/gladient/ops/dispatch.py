"""The public operator: checks its arguments, picks form and backend, and runs them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gladient.ops import fla, native
from gladient.ops._check import borders, check_kinds, check_shapes, check_state
from gladient.ops._check import check_values as check_all_values
from gladient.ops._library import why_unavailable
from gladient.ops._sequences import each_sequence, last_queries, last_tokens, read_before
from gladient.ops.chunked import chunked
from gladient.ops.gates import Gates, to_heads
from gladient.ops.last_query import last_query
from gladient.ops.parallel import parallel
from gladient.ops.recurrent import recurrent, step

__all__ = ["gated_linear_attention", "choose", "Choice", "FORMS", "BACKENDS"]

FORMS: dict[str, Callable[..., Any]] = {
    "recurrent": recurrent,
    "parallel": parallel,
    "chunked": chunked,
    "last_query": last_query,
    "step": step,
}
BACKENDS = ("torch", "native", "fla")


@dataclass(frozen=True)
class Choice:
    """What runs: a form, a backend, and why."""

    form: str
    backend: str
    reason: str


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
    scale: float = 1.0,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    form: str = "auto",
    backend: str = "auto",
    chunk_size: int | None = None,
    read: str = "after",
    bonus: Tensor | None = None,
    cu_seqlens: Tensor | Sequence[int] | None = None,
    check_values: bool = False,
) -> tuple[Tensor, Tensor | None]:
    r"""Gated linear attention, $S_t = G_t \odot S_{t-1} + k_t v_t^\top$, $o_t = \mathrm{scale}\; S_t^\top q_t$.

    The log gate of state entry (k, v) is $g_t + gk_t[k] + gv_t[v] + G_t[k, v]$; absent families are gates of 1.
    Convention: the write is not gated at its own step; `scale` is 1 unless given (not $K^{-1/2}$). With
    `read="before"` the output reads $S_{t-1}$, to which `bonus` u adds the current token: RWKV-6,
    $o_t = \mathrm{scale}\,(S_{t-1} + (u \odot k_t) v_t^\top)^\top q_t$.
    k, v and gates may each have fewer heads h than q, with h dividing H: head i of q uses head i // (H / h).

    Args:
        q: queries, [B, T, H, K]; [B, 1, H, K] is enough for `form="last_query"`.
        k: keys, [B, T, h, K].
        v: values, [B, T, h, V].
        g: scalar log gates ≤ 0, [B, T, h], or a fixed decay per head, [H]; -inf forgets exactly.
        gk: log gates per key channel, [B, T, h, K].
        gv: log gates per value channel, [B, T, h, V].
        G: log gates per entry of the state, [B, T, h, K, V].
        scale: factor of every output.
        initial_state: the state before the first token, [B, H, K, V] ([sequences, H, K, V] with `cu_seqlens`).
        output_final_state: whether to return the state after the last token.
        form: "recurrent", "parallel", "chunked", "last_query", "step" or "auto"; see docs/operators.md.
        backend: "torch", "native" (this package's C++ kernels), "fla" (Triton) or "auto".
        chunk_size: tokens per chunk of `form="chunked"` in torch; None takes the measured best.
        read: whether outputs read the state "after" or "before" the token's own decay and write.
        bonus: u, weight of the token's own write in a read before it, [H, K].
        cu_seqlens: borders 0 … T of sequences packed in one row (B = 1).
        check_values: whether to look for NaN, infinities and log gates above 0, which costs a pass over the inputs.

    Returns:
        o: outputs in v's dtype, [B, T, H, V]; for `form="last_query"` [B, 1, H, V], one per packed sequence, of which
            those without tokens have none unless q is a single query for all.
        final_state: [B, H, K, V], or None unless `output_final_state`; float32 for half precision inputs.

    Raises:
        ValueError: if a shape, head count, form, backend or value breaks its rule.
        TypeError: if a type or dtype does; float64 goes with float64 alone.
        ImportError: if `backend="fla"` and flash-linear-attention, Triton or a CUDA device is missing.
        RuntimeError: if `backend="native"` and there is no C++ compiler.

    Source: arXiv 2504.04308, section 2; layout and head grouping of flash-linear-attention.

    >>> q = k = torch.ones(1, 3, 1, 2)
    >>> v = torch.ones(1, 3, 1, 1)
    >>> half = torch.full((1, 3, 1), 0.5).log()
    >>> o, state = gated_linear_attention(q, k, v, g=half, output_final_state=True)
    >>> o.flatten().tolist(), state.flatten().tolist()
    ([2.0, 3.0, 3.5], [1.75, 1.75])
    """
    if A is not None:
        G = Gates(A=A, dt=dt).combined()
    check_kinds(
        {"q": q, "k": k, "v": v, "g": g, "gk": gk, "gv": gv, "G": G, "initial_state": initial_state, "bonus": bonus}
    )
    if g is not None and g.ndim == 1 and k.ndim == 4:
        g = g[None, None].expand(k.shape[0], k.shape[1], -1)
    gate_tensors = {"g": g, "gk": gk, "gv": gv, "G": G}
    if isinstance(scale, Tensor):
        raise TypeError("scale is a Tensor and would get no gradient; pass a number, or multiply q by it")
    _check_options(form, backend, read, bonus, chunk_size)
    check_shapes(q, k, v, gate_tensors, bonus, one_query=form in ("auto", "last_query"))
    if check_values:
        check_all_values({"q": q, "k": k, "v": v, **gate_tensors, "initial_state": initial_state, "bonus": bonus})
    B, T, H, K, V = *k.shape[:2], *q.shape[2:], v.shape[3]
    offsets = borders(cu_seqlens, B, T)
    sequences = len(offsets) - 1
    if initial_state is not None:
        check_state(initial_state, (B * sequences, H, K, V))
    choice = choose(q, k, v, Gates(**gate_tensors), form=form, backend=backend, read=read)
    if choice.backend == "fla":
        options: dict[str, Any] = {"form": choice.form, "read": read, "bonus": bonus, "cu_seqlens": cu_seqlens}
        options |= {"scale": scale, "initial_state": initial_state, "output_final_state": output_final_state}
        return fla.run(q, k, v, Gates(**gate_tensors), **options)
    dtype = v.dtype
    q, k, v = accumulation(q), accumulation(k), accumulation(v)
    gates = Gates(**gate_tensors).each(accumulation)
    if initial_state is None and choice.form == "last_query":
        S = None
    else:
        zero = q.new_zeros(()).expand(B * sequences, H, K, V)
        S = (zero if initial_state is None else accumulation(initial_state)).unflatten(0, (B, sequences))
    o, final = _run(choice, q, k, v, gates, S, offsets, read, scale, chunk_size, output_final_state)
    if bonus is not None:
        bonus = bonus[:, None] if bonus.ndim == 3 else bonus
        own = scale * (q * accumulation(bonus) * to_heads(k, H)).sum(-1, keepdim=True) * to_heads(v, H)
        o = o + (last_tokens(own, offsets, o.shape[1]) if choice.form == "last_query" else own)
    return o.to(dtype), final.flatten(0, 1) if output_final_state and final is not None else None


def accumulation(x: Tensor) -> Tensor:
    """Half precision accumulates in float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _run(
    choice: Choice,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Gates,
    S: Tensor | None,
    offsets: Sequence[int],
    read: str,
    scale: float,
    chunk_size: int | None,
    output_final_state: bool,
) -> tuple[Tensor, Tensor | None]:
    shared: dict[str, Any] = {"scale": scale, "initial_state": S, "offsets": offsets}
    before = read == "before"
    if choice.form == "last_query":
        options: dict[str, Any] = {"before": before, "native": choice.backend == "native"}
        options["output_final_state"] = output_final_state
        return last_queries(q, k, v, gates, **shared, **options)
    size: dict[str, Any] = {"chunk_size": chunk_size} if choice.form == "chunked" else {}

    def run(q: Tensor) -> tuple[Tensor, Tensor]:
        if choice.backend == "native":
            return native.scan(q, k, v, gates, **shared)
        return each_sequence(FORMS[choice.form], q, k, v, gates, **shared, **size)

    return read_before(run, q, **shared) if before else run(q)


def choose(
    q: Tensor, k: Tensor, v: Tensor, gates: Gates, *, form: str = "auto", backend: str = "auto", read: str = "after"
) -> Choice:
    """The form and backend that run for these arguments, and why.

    >>> q = torch.ones(1, 1, 1, 4)
    >>> choose(q, q, q, Gates()).form
    'step'
    """
    asked = form
    if form == "auto":
        one_query, T = q.shape[1] == 1, k.shape[1]
        form = "step" if one_query and T == 1 else "last_query" if one_query else "chunked"
    why = "asked for" if asked != "auto" else f"{q.shape[1]} queries for {k.shape[1]} tokens"
    _check_form(form, k.shape[1], gates)
    if backend == "fla":
        fla.require()
    obstacle = fla.why_not(q, v, gates, form, read)
    if backend == "fla" and obstacle:
        raise ValueError(f"backend='fla' cannot run this: {obstacle}; use backend='auto'")
    if backend == "fla" or (backend == "auto" and q.is_cuda and not obstacle):
        return Choice(form, "fla", f"{why}; flash-linear-attention has it as {fla.kernel(gates, form, read)}")
    obstacle = f"not fla: {obstacle}" if q.is_cuda and backend == "auto" else _why_not_native(q, gates, form)
    if backend == "native" and obstacle:
        raise RuntimeError(f"backend='native' cannot run this: {obstacle}")
    if backend == "torch" or obstacle:
        short = asked == "auto" and form == "chunked" and _short(q, k, gates)
        why += ", few enough to keep all pairs" if short else ""
        reason = "backend asked for" if backend == "torch" else obstacle
        return Choice("parallel" if short else form, "torch", f"{why}; {reason}")
    return Choice(form, "native", f"{why}; native kernels hold every family on the CPU")


def _short(q: Tensor, k: Tensor, gates: Gates) -> bool:
    """Whether all pairs at once beat chunks, which compute them twice: see `python -m benchmarks.forms`."""
    (B, T), (H, K) = k.shape[:2], q.shape[2:]
    if gates.G is not None:
        return False
    if gates.gk is not None or gates.gv is not None:
        return T <= 16
    in_cache = B * H * T * T <= 1 << 19
    return T <= 64 and (in_cache or T <= 2 * K)


def _why_not_native(q: Tensor, gates: Gates, form: str) -> str | None:
    if form not in ("chunked", "last_query"):
        return f"form {form!r} is plain torch; the native kernels serve 'chunked' and 'last_query'"
    if q.device.type != "cpu":
        return f"q is on {q.device} and the native kernels run on the CPU"
    if form == "last_query" and gates.G is not None:
        return "the native last_query holds no full gates"
    return why_unavailable()


def _check_form(form: str, T: int, gates: Gates) -> None:
    if form == "step" and T != 1:
        raise ValueError(f"form='step' takes one token and got {T}; use form='auto' for a sequence")
    if form == "parallel" and gates.G is not None:
        raise ValueError("form='parallel' does not hold full gates G; use 'chunked', 'recurrent' or 'last_query'")


def _check_options(form: str, backend: str, read: str, bonus: Tensor | None, chunk_size: int | None) -> None:
    allowed = {"form": (form, ("auto", *FORMS)), "backend": (backend, ("auto", *BACKENDS))}
    allowed["read"] = (read, ("after", "before"))
    for name, (value, choices) in allowed.items():
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    if bonus is not None and read != "before":
        raise ValueError("bonus came with read='after', which holds the current token already; use read='before'")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise ValueError(f"chunk_size is {chunk_size!r}; it must be a whole number of tokens ≥ 1, or None")
