"""flash-linear-attention's layers, as they call their kernels; imports none of them.

Rows of a padded batch reach the kernels packed one after the other; the record has them as rows again, aligned right.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.operands import packed, unpacked
from gladient.lens.recurrence import Recurrence
from gladient.ops.formulas import unit
from gladient.seams import SeamError, on_function

__all__ = ["ADAPTER"]

_EPS = 1e-10  # added to the normaliser of linear attention


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    """Some releases lack some of the kernels; a layer that runs another one is noticed."""
    heard, missing = 0, ""
    with ExitStack() as seams:
        for name, read in _KERNELS.items():
            try:
                heard_by = emit.listener(partial(_of_output, read), _write)
                seams.enter_context(on_function(layer, name, heard_by, replace=emit.replace))
                heard += 1
            except SeamError as error:
                missing = str(error)
        if not heard:
            raise SeamError(missing)
        yield


def _of_output(read: Callable[[Given, Tensor], Recurrence], call: Given, result: Any) -> Recurrence:
    return read(call, result[0])


def _write(call: Given, result: Any, answer: Answer) -> Any:
    """HGRN has channels where the others have heads; normalised linear attention keeps two states."""
    output, state, *rest = result
    ours, last, total = packed(answer.output, call.get("cu_seqlens")), answer.state, answer.linear.total
    output = answer.put(output, ours if output.ndim == 4 else ours[..., 0], 2)
    if isinstance(state, tuple):
        keys = state[1] if total is None else answer.put(state[1], total[:, None], 2)
        return output, (answer.put(state[0], last, 1), keys), *rest
    if state is not None:
        last = last[..., 0, 0] if state.ndim == 2 else last.mT if call.get("state_v_first") else last
        state = answer.put(state, last, 1)
    return output, state, *rest


def _read(call: Given, output: Tensor, **special: Any) -> Recurrence:
    """Queries r or q, scaled by 1 / √K unless told otherwise; log gates g or gk, w in RWKV-6, whose bonus is u."""
    row = partial(_rows, call)
    q, k, v = (row(x) for x in (call["r"] if "r" in call else call["q"], call["k"], call["v"]))
    scale, state, bonus = call.get("scale"), call.get("initial_state"), call.get("u")
    log_gates = next((call[name] for name in ("gk", "g", "w") if call.get(name) is not None), None)
    found: Given = {
        "q": q * (q.shape[3] ** -0.5 if scale is None else scale),
        "k": k,
        "v": v,
        "output": unpacked(output, call.get("cu_seqlens")),
        "positions": torch.arange(q.shape[1]),
        "log_gates": None if log_gates is None else row(log_gates),
        "read": "after" if bonus is None else "before",
        "bonus": None if bonus is None else bonus.float(),
        "initial_state": None if state is None else state.mT.float() if call.get("state_v_first") else state.float(),
    }
    return Recurrence(**found | special)


def _rows(call: Given, x: Tensor) -> Tensor:
    return unpacked(x.float(), call.get("cu_seqlens"))


def _read_retention(call: Given, output: Tensor) -> Recurrence:
    """RetNet: the kernels hold the log decays of its heads, log(1 - 2^(-5-h))."""
    q = _rows(call, call["q"])
    decays = torch.log1p(-torch.exp2(-5.0 - torch.arange(q.shape[2], device=q.device, dtype=torch.float32)))
    return _read(call, output, log_gates=q.new_ones(()).expand(q.shape[:3]), rate=decays)


def _read_linear(call: Given, output: Tensor) -> Recurrence:
    """No gates; if normalised, the state comes with the sum of the keys before."""
    given, normalised = call["initial_state"], call["normalize"]
    state, keys = given if isinstance(given, tuple) else (given, None)
    return _read(
        call | {"initial_state": state},
        output,
        normalise="sum" if normalised else "none",
        eps=_EPS if normalised else 0.0,
        initial_normaliser=keys[:, 0].float() if normalised and keys is not None else None,
    )


def _read_hgrn(call: Given, output: Tensor) -> Recurrence:
    """HGRN: every channel is a head of one number."""
    x, state = _rows(call, call["x"]), call["initial_state"]
    ones = x.new_ones(()).expand(*x.shape, 1)
    return Recurrence(
        q=ones,
        k=ones,
        v=x[..., None],
        output=unpacked(output, call.get("cu_seqlens"))[..., None],
        positions=torch.arange(x.shape[1]),
        log_gates=_rows(call, call["g"]),
        initial_state=None if state is None else state.float()[..., None, None],
    )


def _read_delta(call: Given, output: Tensor) -> Recurrence:
    """DeltaNet, Gated DeltaNet and KDA: the kernel may have norms, gates and steps to do; q and k may share heads."""
    q, k, v, beta = (call[name].float() for name in ("q", "k", "v", "beta"))
    if call.get("use_qk_l2norm_in_kernel"):
        q, k = unit(q), unit(k)
    if call.get("use_beta_sigmoid_in_kernel"):
        beta = beta.sigmoid() * (2 if call.get("allow_neg_eigval") else 1)
    shared = v.shape[2] // q.shape[2]
    operands = {"q": q.repeat_interleave(shared, 2), "k": k.repeat_interleave(shared, 2), "g": _delta_gates(call)}
    return _read(call | operands, output, beta=_rows(call, beta))


def _delta_gates(call: Given) -> Tensor | None:
    g, A, bias = call.get("g"), call.get("A_log"), call.get("dt_bias")
    if g is None or not call.get("use_gate_in_kernel"):
        return g
    g = g.float() if bias is None else g.float() + bias.float().view(g.shape[2:])
    rate = g.new_ones(()) if A is None else A.float().exp().view(-1, *[1] * (g.ndim - 3))
    bound = call.get("lower_bound")
    return -rate * functional.softplus(g) if bound is None else bound * torch.sigmoid(rate * g)


def _read_rwkv7(call: Given, output: Tensor) -> Recurrence:
    """RWKV-7 erases what the state before the decay holds for kk."""
    erased, where = (-call["a"], call["b"]) if "b" in call else (call["kk"], call["kk"] * call["a"])
    return _read(call, output, **_erasing(call, erased, where), erase_read="before")


def _read_gdn2(call: Given, output: Tensor) -> Recurrence:
    """Gated DeltaNet-2: strengths of channels, b to erase and w to write."""
    q, k = call["q"].float(), call["k"].float()
    if call["use_qk_l2norm_in_kernel"]:
        q, k = unit(q), unit(k)
    written = call | {"q": q, "k": k, "v": call["w"].float() * call["v"].float()}
    return _read(written, output, **_erasing(call, call["b"].float() * k, k))


def _read_comba(call: Given, output: Tensor) -> Recurrence:
    """Comba erases what the decayed state holds for keys p of its own; several heads of values may share these keys."""
    given = (call["q"], call["k"], call["k"] if call["p"] is None else call["p"])
    q, k, p = (x.float().repeat_interleave(call["v"].shape[2] // x.shape[2], 2) for x in given)
    if call.get("use_qk_l2norm_in_kernel"):
        q, k, p = unit(q), unit(k), unit(p)
    beta = call["beta"].float()
    erased = {"beta": _rows(call, beta), "erase_query": _rows(call, beta[..., None] * p)}
    return _read(call | {"q": q, "k": k}, output, **erased)


def _erasing(call: Given, query: Tensor, key: Tensor) -> Given:
    return {
        "beta": _rows(call, torch.ones_like(query[..., 0])),
        "erase_query": _rows(call, query),
        "erase_key": _rows(call, key),
    }


_KERNELS: dict[str, Callable[[Given, Tensor], Recurrence]] = {
    **dict.fromkeys(("chunk_gla", "fused_chunk_gla", "fused_recurrent_gla"), _read),
    **dict.fromkeys(("chunk_simple_gla", "fused_recurrent_simple_gla"), _read),
    **dict.fromkeys(("chunk_rwkv6", "fused_recurrent_rwkv6"), _read),
    **dict.fromkeys(
        ("chunk_retention", "fused_chunk_retention", "fused_recurrent_retention", "parallel_retention"), _read_retention
    ),
    **dict.fromkeys(("chunk_linear_attn", "fused_chunk_linear_attn", "fused_recurrent_linear_attn"), _read_linear),
    **dict.fromkeys(("chunk_hgrn", "fused_recurrent_hgrn"), _read_hgrn),
    **dict.fromkeys(("chunk_delta_rule", "fused_recurrent_delta_rule"), _read_delta),
    **dict.fromkeys(("chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule"), _read_delta),
    **dict.fromkeys(("chunk_kda", "fused_recurrent_kda"), _read_delta),
    **dict.fromkeys(("chunk_comba", "fused_recurrent_comba"), _read_comba),
    **dict.fromkeys(("chunk_gdn2", "fused_recurrent_gdn2"), _read_gdn2),
    **dict.fromkeys(("chunk_rwkv7", "fused_mul_recurrent_rwkv7"), _read_rwkv7),
}

ADAPTER = Adapter(
    name="fla",
    modules=(
        "Comba",
        "DeltaNet",
        "GatedDeltaNet",
        "GatedDeltaNet2",
        "GatedLinearAttention",
        "HGRN2Attention",
        "HGRNAttention",
        "KimiDeltaAttention",
        "LinearAttention",
        "MultiScaleRetention",
        "RWKV6Attention",
        "RWKV7Attention",
        "RodimusAttention",
        "SimpleGatedLinearAttention",
        "YOCOGatedRetention",
    ),
    attach=_attach,
    package="fla",
)
"""The layers of flash-linear-attention."""
