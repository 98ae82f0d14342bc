"""RWKV-4: a fixed decay per channel, exp(-e^w); input gates e^k; a bonus e^u for the current token; normalised."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence
from gladient.seams import on_function
from gladient.seams.architectures import RWKV

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    heard = emit.listener(lambda call, result: _read(call, result[0]), _write)
    with on_function(layer, RWKV.scan, heard, replace=emit.replace):
        yield


def _write(_: Given, result: tuple[Tensor, list[Tensor] | None], answer: Answer) -> tuple[Tensor, list[Tensor] | None]:
    (output, states), found = result, answer.linear
    assert found.total is not None
    assert found.log_scale is not None
    ours = (found.state[..., 0, 0], found.total[..., 0], found.log_scale)
    after = states and [answer.put(*pair, 1) for pair in zip(states, ours, strict=True)]
    return answer.put(output, answer.output[..., 0], 2), after


def _read(call: dict[str, Any], output: Tensor) -> Recurrence:
    """Every channel is a head of one number; the state is (sum of values, sum of weights, log of their scale)."""
    key, value = call["key"].float(), call["value"].float()
    ones = key.new_ones(()).expand(*key.shape, 1)
    numerator, denominator, scale = (None, None, None) if call["state"] is None else map(Tensor.float, call["state"])
    return Recurrence(
        q=ones,
        k=ones,
        v=value[..., None],
        output=output[..., None],
        positions=torch.arange(key.shape[1]),
        log_gates=ones[..., 0],
        rate=-call["time_decay"].exp().float(),
        log_write=key,
        read="before",
        bonus=call["time_first"].float().exp()[:, None],
        normalise="sum",
        initial_state=None if numerator is None else numerator[..., None, None],
        initial_normaliser=None if denominator is None else denominator[..., None],
        initial_log_scale=scale,
    )


ADAPTER = Adapter(name="rwkv4", modules=RWKV.layers, attach=_attach)
"""RWKV-4 in models of transformers."""
