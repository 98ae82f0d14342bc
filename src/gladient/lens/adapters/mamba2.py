"""Mamba-2 and the hybrids that share its scan: one scalar gate per head, exp(A·dt); queries C, keys B, values dt·x."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence, autocast_dtype
from gladient.ops.formulas import step_sizes
from gladient.seams import WRITTEN, on_function
from gladient.seams.architectures import MAMBA2

__all__ = ["ADAPTER"]


@contextmanager
def _attach(mixer: nn.Module, emit: Emit) -> Iterator[None]:
    scanned, updated = emit.listener(_read_scan, _write_scan), emit.listener(_read_update, _write_update)
    with (
        on_function(mixer, MAMBA2.scan, scanned, replace=emit.replace),
        on_function(mixer, MAMBA2.step, updated, changes=("state",), replace=emit.replace),
    ):
        yield


def _write_scan(_: Given, result: Any, answer: Answer) -> Any:
    output, state = result if isinstance(result, tuple) else (result, None)
    output = answer.put(output, answer.output, 2)
    return output if state is None else (output, answer.put(state, answer.state.mT, 1))


def _write_update(call: Given, result: Tensor, answer: Answer) -> Tensor:
    answer.overwrite(call[WRITTEN]["state"], answer.state.mT, 1)
    return answer.put(result, answer.output[:, 0], 1)


def _read_scan(call: dict[str, Any], result: Any) -> Recurrence:
    x, dt = call["hidden_states"], _step(call)
    dt = dt.clamp(*call["dt_limit"])
    output = result[0] if isinstance(result, tuple) else result
    return _recurrence(call, x, dt, call["A"], call["B"], call["C"], call["D"], call["initial_states"], output)


def _read_update(call: dict[str, Any], result: Tensor) -> Recurrence:
    """One token: every argument comes expanded over the head's channels, which share it."""
    x, dt, D = call["hidden_states"], _step(call)[..., 0], call["D"]
    tokens = (each[:, None] for each in (x, dt, call["B"], call["C"], result))
    x, dt, B, C, output = tokens
    return _recurrence(call, x, dt, call["A"][:, 0, 0], B, C, D if D is None else D[:, 0], call["state"], output)


def _step(call: dict[str, Any]) -> Tensor:
    dt, bias = call["dt"], call["dt_bias"]
    return step_sizes(dt, None if bias is None else bias.to(dt.dtype), call["dt_softplus"])


def _recurrence(
    call: dict[str, Any],
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    state: Tensor | None,
    output: Tensor,
) -> Recurrence:
    heads, T = x.shape[2], x.shape[1]
    gate = call.get("z")
    return Recurrence(
        q=_to_heads(C, heads),
        k=_to_heads(B, heads),
        v=x.float() * dt[..., None].float(),
        output=output.clone(),
        positions=torch.arange(T),
        log_gates=dt.float(),
        rate=A.float(),
        initial_state=None if state is None else state.mT.float(),
        skip=None if D is None else D[:, None] * x.float(),
        output_gate=None if gate is None else functional.silu(gate).view_as(x),
        products=autocast_dtype(x),
    )


def _to_heads(x: Tensor, heads: int) -> Tensor:
    """[B, T, groups, N] to [B, T, heads, N]; a view of a single group."""
    return x[:, :, :, None].expand(-1, -1, -1, heads // x.shape[2], -1).flatten(2, 3)


ADAPTER = Adapter(
    name="mamba2",
    modules=MAMBA2.layers,
    attach=_attach,
)
"""Mamba-2 in models of transformers."""
