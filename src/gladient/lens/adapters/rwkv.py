"""RWKV-4: a fixed decay per channel, exp(-e^w); input gates e^k; a bonus e^u for the current token; normalised."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit
from gladient.lens.recurrence import Recurrence
from gladient.seams import on_function
from gladient.seams.architectures import RWKV

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    with on_function(layer, RWKV.scan, lambda call, result: emit(_read(call, result[0]))):
        yield


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
