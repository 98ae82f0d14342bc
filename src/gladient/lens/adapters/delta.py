"""The gated delta rule: one scalar gate per head and a write that corrects what the state recalls of its key."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence, autocast_dtype
from gladient.ops.formulas import unit
from gladient.seams import on_function
from gladient.seams.architectures import DELTA, Architecture

__all__ = ["ADAPTER", "attach_delta"]


def attach_delta(architecture: Architecture) -> Callable[[nn.Module, Emit], AbstractContextManager[None]]:
    """The `attach` of layers that call its two functions: for many tokens, and for one with a cache."""

    @contextmanager
    def attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
        heard = emit.listener(lambda call, result: _read(call, result[0]), _write)
        with (
            on_function(layer, architecture.scan, heard, replace=emit.replace),
            on_function(layer, architecture.step, heard, replace=emit.replace),
        ):
            yield

    return attach


def _write(_: Given, result: tuple[Tensor, Tensor | None], answer: Answer) -> tuple[Tensor, Tensor | None]:
    output, state = result
    return answer.put(output, answer.output, 2), None if state is None else answer.put(state, answer.state, 1)


def _read(call: Given, output: Tensor) -> Recurrence:
    """Both functions take the same arguments; they compute in float32 and divide queries by √K, after normalising."""
    q, k, v, state = (call[name] for name in ("query", "key", "value", "initial_state"))
    q, k = q.float(), k.float()
    if call["use_qk_l2norm_in_kernel"]:
        q, k = unit(q), unit(k)
    shared = v.shape[2] // k.shape[2]  # value heads that read one key head
    return Recurrence(
        q=(q * q.shape[3] ** -0.5).repeat_interleave(shared, 2),
        k=k.repeat_interleave(shared, 2),
        v=v.float(),
        output=output,
        positions=torch.arange(v.shape[1]),
        log_gates=call["g"].float(),
        beta=call["beta"].float(),
        initial_state=None if state is None else state.float(),
        products=autocast_dtype(v),
    )


ADAPTER = Adapter(
    name="gated delta rule",
    modules=DELTA.layers,
    attach=attach_delta(DELTA),
)
"""The gated delta rule in models of transformers."""
