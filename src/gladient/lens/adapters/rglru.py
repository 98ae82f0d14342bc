"""RG-LRU of RecurrentGemma: one gate per channel, exp(-8·r·softplus(λ)), and 0 at a document's first token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence
from gladient.seams import on_method
from gladient.seams.architectures import RGLRU

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    heard = emit.listener(lambda call, result: _read(call, result[0]), _write)
    with on_method(layer, RGLRU.scan, heard, replace=emit.replace):
        yield


def _write(_: Given, result: tuple[Tensor, Tensor], answer: Answer) -> tuple[Tensor, Tensor]:
    output, state = result
    return answer.put(output, answer.output[..., 0], 2), answer.put(state, answer.state[..., 0, 0], 1)


def _read(call: dict[str, Any], output: Tensor) -> Recurrence:
    """Every channel is a head of one number; its state is kept in the layer between calls."""
    x, state = call["hidden_states"].float(), call["recurrent_states"]
    ones = x.new_ones(()).expand(*x.shape, 1)
    gates = call["recurrent_gate"].float() * ~call["reset"]
    return Recurrence(
        q=ones,
        k=ones,
        v=x[..., None],
        output=output[..., None],
        positions=torch.arange(x.shape[1]),
        log_gates=gates.log(),
        initial_state=None if state is None else state.float()[..., None, None],
    )


ADAPTER = Adapter(name="recurrentgemma", modules=RGLRU.layers, attach=_attach)
"""RG-LRU (RecurrentGemma) in models of transformers."""
