"""The native kernels as PyTorch operators: `torch.ops.gladient.scan`, `last_query` and `step`.

Every tensor leads with the batch, so that vmap is a larger batch; rates A [B, heads, K, V] and the bonus [B, H, K] may
be expanded views, and states [B · sequences, H, K, V] hold the sequences of each row side by side.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from gladient.ops._function import BatchFunction, mapped, transformed
from gladient.ops.native.library import call

__all__ = ["CHUNK", "last_query", "scan", "step", "step_"]

CHUNK = 16  # tokens, C in problem.h
_INPUTS = ("q", "k", "v", "g", "gk", "gv", "G", "A", "dt", "bonus", "initial")
_LAST = _INPUTS[:6]
_HEADS = {name: f"h{name}" for name in _INPUTS[:9]}
_library = torch.library.Library("gladient", "DEF")

Sizes: TypeAlias = Sequence[Any]  # whole numbers, which are symbols while a tracer looks


def _arguments(names: Sequence[str]) -> str:
    return ", ".join(f"Tensor{'' if name in 'qkv' else '?'} {name}" for name in names)


_OPTIONS = "SymInt heads, float scale, bool before"
_library.define(f"scan({_arguments(_INPUTS)}, int[]? offsets, {_OPTIONS}, bool train) -> (Tensor, Tensor, Tensor)")
_library.define(
    f"scan_backward(Tensor? d_o, Tensor? d_final, Tensor checkpoints, {_arguments(_INPUTS)}, int[]? offsets, "
    f"{_OPTIONS}, bool[] needed) -> Tensor[]"
)
_library.define(f"last_query({_arguments(_LAST)}, float scale) -> Tensor")
_library.define(f"last_query_backward(Tensor d_o, {_arguments(_LAST)}, float scale, bool[] needed) -> Tensor[]")
_library.define(f"step({_arguments(_INPUTS)}, {_OPTIONS}) -> (Tensor, Tensor)")
_library.define(f"step_({_arguments(_INPUTS[:-1])}, Tensor(a!) initial, {_OPTIONS}) -> Tensor")

_scan_operator = torch.ops.gladient.scan.default
_last_query_operator = torch.ops.gladient.last_query.default
step = torch.ops.gladient.step.default
step_ = torch.ops.gladient.step_.default


def _named(inputs: Sequence[Tensor | None], names: Sequence[str] = _INPUTS) -> dict[str, Tensor]:
    """The tensors that are there as the kernels read them: contiguous, in one dtype; a shared row once."""
    dtype = torch.float64 if inputs[0].dtype == torch.float64 else torch.float32  # type: ignore[union-attr]
    found = {}
    for name, x in zip(names, inputs, strict=True):
        if x is None:
            continue
        if name in ("A", "bonus") and len(x) > 0 and x.stride(0) == 0:
            x = x[:1]
        found[name] = x if x.dtype is dtype and x.is_contiguous() else x.to(dtype).contiguous()
    return found


def _fields(tensors: dict[str, Tensor], heads: int) -> dict[str, int]:
    fields = {"H": heads, "K": tensors["k"].shape[3], "V": tensors["v"].shape[3], "threads": torch.get_num_threads()}
    for name, x in tensors.items():
        fields[name] = x.data_ptr()
        if name in ("A", "bonus") and len(x) > 1:
            fields[f"{name}_step"] = x[0].numel()
        if field := _HEADS.get(name):
            fields[field] = x.shape[1 if name == "A" else 2]
    return fields


def _by_sequence(tensors: dict[str, Tensor], sequences: int) -> dict[str, Tensor]:
    """Rates and bonus with a row for each sequence, unless all share one."""
    apart = {name: tensors[name] for name in ("A", "bonus") if len(tensors.get(name, ())) > 1}
    return tensors | {name: x.repeat_interleave(sequences, 0) for name, x in apart.items()}


def _offsets(borders: Sequence[int] | None, inputs: Sequence[Tensor | None]) -> Sizes:
    """Borders of the sequences of a row, which without any is one."""
    return (0, inputs[1].shape[1]) if borders is None else borders  # type: ignore[union-attr]


def _span(K: Any, V: Any) -> int:
    """Chunks between the states that are kept: large states cost more to keep than to compute again."""
    return 4 if K * V >= 1024 else 1


def _spans(offsets: Sizes, K: Any, V: Any) -> Any:
    """States that are kept for each row of the batch."""
    length = CHUNK * _span(K, V)
    return sum((stop - start + length - 1) // length for start, stop in pairwise(offsets))


def _run_scan(
    tensors: dict[str, Tensor], extra: dict[str, Tensor], offsets: Sequence[int], heads: int, scale: float, before: bool
) -> None:
    """Runs the kernel on the sequences of all rows, one after the other; backward where d_q … are among `extra`."""
    B, n = len(tensors["k"]), len(offsets) - 1
    span = _span(tensors["k"].shape[3], tensors["v"].shape[3])
    lengths = np.tile(np.diff(offsets), B)
    starts = [np.append(0, x.cumsum()) for x in (lengths, -(-lengths // (CHUNK * span)))]
    tensors = _by_sequence(tensors, n) if n > 1 else tensors
    fields = _fields(tensors, heads) | {name: x.data_ptr() for name, x in extra.items()}
    fields |= {"offsets": starts[0].ctypes.data, "span_offsets": starts[1].ctypes.data}
    kernel = "full" if "G" in tensors or "A" in tensors else "scan"
    backward = int("d_o" in extra or "d_final" in extra)
    call(kernel, tensors["q"].dtype, backward, N=B * n, span=span, scale=scale, before=int(before), **fields)


def _outputs(
    make: Any, tensors: dict[str, Tensor], offsets: Sizes, heads: Any, train: bool
) -> tuple[Tensor, Tensor, Tensor]:
    k, v = tensors["k"], tensors["v"]
    (B, T), K, V = k.shape[:2], k.shape[3], v.shape[3]
    spans, n = _spans(offsets, K, V) if train else 0, len(offsets) - 1
    shapes = (B, T, heads, V), (B * n, heads, K, V), (B, spans, heads, K, V)
    return tuple(make(shape, dtype=tensors["q"].dtype) for shape in shapes)


def _scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, borders, heads, scale, before, train = arguments
    tensors, offsets = _named(inputs), _offsets(borders, inputs)
    o, final, checkpoints = _outputs(torch.empty, tensors, offsets, heads, train)
    written = {"o": o, "final": final} | ({"checkpoints": checkpoints} if train else {})
    _run_scan(tensors, written, offsets, heads, scale, before)
    return o.to(inputs[2].dtype), final, checkpoints


def _fake_scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *inputs, borders, heads, _, _, train = arguments
    (q, k, v), offsets = inputs[:3], _offsets(borders, inputs)
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32

    like = {"q": q.new_empty(0, dtype=dtype), "k": k, "v": v}
    o, final, checkpoints = _outputs(q.new_empty, like, offsets, heads, train)
    return o.to(v.dtype), final, checkpoints


def _scan_backward(d_o: Tensor | None, d_final: Tensor | None, checkpoints: Tensor, *arguments: Any) -> list[Tensor]:
    *inputs, borders, heads, scale, before, needed = arguments
    tensors, offsets = _named(inputs), _offsets(borders, inputs)
    if not checkpoints.numel():
        checkpoints = _scan(*inputs, borders, heads, scale, before, True)[2]
    k, v = tensors["k"], tensors["v"]
    (B, T), n = k.shape[:2], len(offsets) - 1
    d_o = v.new_zeros(B, T, heads, v.shape[3]) if d_o is None else d_o.to(v.dtype).contiguous()
    extra = {"checkpoints": checkpoints, "d_o": d_o}
    if d_final is not None:
        extra["d_final"] = d_final.contiguous()
    wanted = {name: x for name, x, need in zip(_INPUTS, inputs, needed, strict=True) if need}
    gradients = {}
    for name, x in wanted.items():
        apart = {"A": (B * n, heads), "bonus": (B * n, heads), "initial": x.shape[:2]}.get(name, (B, T, heads))
        rest = x.shape[2 if name in ("A", "bonus", "initial") else 3 :]
        gradients[name] = torch.empty((*apart, *rest), dtype=v.dtype)
    _run_scan(tensors, extra | {f"d_{name}": d for name, d in gradients.items()}, offsets, heads, scale, before)
    return [_shared(name, gradients[name], x, n).to(x.dtype) for name, x in wanted.items()]


def _shared(name: str, gradient: Tensor, x: Tensor, sequences: int) -> Tensor:
    """A gradient summed over the sequences of a row and over the heads that share a head of x."""
    dim = 1 if name in ("A", "bonus", "initial") else 2
    if name in ("A", "bonus"):
        gradient = gradient.unflatten(0, (-1, sequences)).sum(1)
    if gradient.shape[dim] != x.shape[dim]:
        gradient = gradient.unflatten(dim, (x.shape[dim], -1)).sum(dim + 1)
    return gradient


def _fake_gradients(inputs: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor]:
    pairs = zip(inputs, needed, strict=True)
    return [x.new_empty(x.shape) for x, need in pairs if need and x is not None]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    ctx.options = inputs[len(_INPUTS) : -1]
    ctx.save_for_backward(*inputs[: len(_INPUTS)], output[2])
    ctx.set_materialize_grads(False)


def _derive(ctx: Any, d_o: Tensor | None, d_final: Tensor | None, _: Any) -> tuple[Any, ...]:
    *inputs, checkpoints = ctx.saved_tensors
    needed = [x is not None and need for x, need in zip(inputs, ctx.needs_input_grad, strict=False)]
    operator = _ScanBackward.apply if transformed() else torch.ops.gladient.scan_backward.default
    found = operator(d_o, d_final, checkpoints, *inputs, *ctx.options, needed)
    return _placed(found, needed, len(ctx.needs_input_grad))


def _placed(found: Sequence[Tensor], needed: Sequence[bool], total: int) -> tuple[Tensor | None, ...]:
    gradients = iter(found)
    return (*(next(gradients) if need else None for need in needed), *[None] * (total - len(needed)))


def _last_query(*arguments: Any) -> Tensor:
    *inputs, scale = arguments
    tensors = _named(inputs, _LAST)
    q, v = tensors["q"], tensors["v"]
    o = torch.empty((*q.shape[:3], v.shape[3]), dtype=q.dtype)
    _run_last_query(tensors, {"o": o}, scale)
    return o


def _run_last_query(tensors: dict[str, Tensor], extra: dict[str, Tensor], scale: float) -> None:
    """Runs the kernel; backward where d_o is among `extra`."""
    B, T = tensors["k"].shape[:2]
    if tensors["v"].shape[3] == 1 and "gv" not in tensors:  # with one value channel a scalar gate is a value gate
        tensors = {{"g": "gv"}.get(name, name): x for name, x in tensors.items()}
        extra = {{"d_g": "d_gv"}.get(name, name): x for name, x in extra.items()}
    fields = _fields(tensors, tensors["q"].shape[2]) | {name: x.data_ptr() for name, x in extra.items()}
    del fields["hq"]
    call("last_query", tensors["q"].dtype, N=B, T=T, scale=scale, **fields)


def _last_query_backward(d_o: Tensor, *arguments: Any) -> list[Tensor]:
    *inputs, scale, needed = arguments
    tensors = _named(inputs, _LAST)
    gradients = {name: torch.empty_like(tensors[name]) for name, need in zip(_LAST, needed, strict=True) if need}
    extra = {"d_o": d_o.contiguous()} | {f"d_{name}": d for name, d in gradients.items()}
    _run_last_query(tensors, extra, scale)
    return list(gradients.values())


def _keep_last(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.scale = inputs[-1]
    ctx.save_for_backward(*inputs[:-1])


def _derive_last(ctx: Any, d_o: Tensor) -> tuple[Any, ...]:
    inputs = ctx.saved_tensors
    needed = [x is not None and need for x, need in zip(inputs, ctx.needs_input_grad, strict=False)]
    operator = _LastQueryBackward.apply if transformed() else torch.ops.gladient.last_query_backward.default
    found = operator(d_o, *inputs, ctx.scale, needed)
    return _placed(found, needed, len(ctx.needs_input_grad))


def _step(*arguments: Any) -> tuple[Tensor, Tensor]:
    tensors = _named(arguments[: len(_INPUTS)])
    k, v = tensors["k"], tensors["v"]
    heads = arguments[len(_INPUTS)]
    final = torch.empty((len(k), heads, k.shape[3], v.shape[3]), dtype=v.dtype)
    return _run_step(tensors, final, arguments), final


def _step_(*arguments: Any) -> Tensor:
    tensors, initial = _named(arguments[: len(_INPUTS)]), arguments[len(_INPUTS) - 1]
    final = tensors["initial"]
    o = _run_step(tensors, final, arguments)
    if final is not initial:
        initial.copy_(final)
    return o


def _run_step(tensors: dict[str, Tensor], final: Tensor, arguments: Sequence[Any]) -> Tensor:
    heads, scale, before = arguments[len(_INPUTS) :]
    v = tensors["v"]
    o = torch.empty((len(v), 1, heads, v.shape[3]), dtype=v.dtype)
    fields = _fields(tensors, heads) | {"o": o.data_ptr(), "final": final.data_ptr()}
    call("step", v.dtype, N=len(v), scale=scale, before=int(before), **fields)
    return o.to(arguments[2].dtype)


def _fake_step(*arguments: Any) -> tuple[Tensor, Tensor]:
    o, final, _ = _fake_scan(*arguments[: len(_INPUTS)], None, *arguments[len(_INPUTS) :], False)
    return o, final


class _Scan(BatchFunction):
    """The operator inside the transforms of torch.func, where an operator's own derivative cannot be mapped by vmap."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _scan_operator(*arguments)

    setup_context = staticmethod(_keep)
    backward = staticmethod(_derive)


class _ScanBackward(BatchFunction):
    """Its derivative, likewise."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(torch.ops.gladient.scan_backward.default(*arguments))


class _LastQuery(BatchFunction):
    """The same for the last query."""

    @staticmethod
    def forward(*arguments: Any) -> Any:
        return _last_query_operator(*arguments)

    setup_context = staticmethod(_keep_last)
    backward = staticmethod(_derive_last)


class _LastQueryBackward(BatchFunction):
    """Its derivative, likewise."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(torch.ops.gladient.last_query_backward.default(*arguments))


def scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, final states and checkpoints: the operator `gladient::scan`, under every transform."""
    return (_Scan.apply if transformed() else _scan_operator)(*arguments)


def last_query(*arguments: Any) -> Tensor:
    """Outputs: the operator `gladient::last_query`, under every transform."""
    return (_LastQuery.apply if transformed() else _last_query_operator)(*arguments)


def _no_second(ctx: Any, *_: Any) -> Any:
    raise NotImplementedError("the native backend has first derivatives only; use form='recurrent' for higher ones")


def _register() -> None:
    size = len(_INPUTS)
    kernels: dict[str, tuple[Any, Any]] = {
        "scan": (_scan, _fake_scan),
        "scan_backward": (_scan_backward, lambda *x: _fake_gradients(x[3 : 3 + size], x[-1])),
        "last_query": (_last_query, lambda q, k, v, *_: q.new_empty(*q.shape[:3], v.shape[3])),
        "last_query_backward": (_last_query_backward, lambda d_o, *x: _fake_gradients(x[:-2], x[-1])),
        "step": (_step, _fake_step),
        "step_": (_step_, lambda *x: _fake_step(*x)[0]),
    }
    for name, (kernel, fake) in kernels.items():
        _library.impl(name, kernel, "CPU")
        torch.library.register_fake(f"gladient::{name}", fake, lib=_library)
        if name != "step_":
            operator = getattr(torch.ops.gladient, name).default
            torch.library.register_vmap(
                f"gladient::{name}", lambda info, in_dims, *x, f=operator: mapped(f, info, in_dims, x), lib=_library
            )
    derivatives: dict[str, tuple[Any, Any]] = {"scan": (_derive, _keep), "last_query": (_derive_last, _keep_last)}
    derivatives |= {f"{name}_backward": (_no_second, None) for name in derivatives}
    for name, (backward, keep) in derivatives.items():
        torch.library.register_autograd(f"gladient::{name}", backward, setup_context=keep, lib=_library)


_register()
