"""RWKV-7 of the package rwkv7-hf: a gate for each key channel, beside a delta rule that erases by keys of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence, autocast_dtype
from gladient.seams import on_function

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    heard = emit.listener(lambda call, result: _read(call, result[0]), _write)
    with on_function(layer, "rwkv7_recurrent", heard, replace=emit.replace):
        yield


def _write(_: Given, result: tuple[Tensor, Tensor], answer: Answer) -> tuple[Tensor, Tensor]:
    output, state = result
    return answer.put(output, answer.output, 2), answer.put(state, answer.state, 1)


def _read(call: dict[str, Any], output: Tensor) -> Recurrence:
    """Padding leaves the state as it is and puts out 0; what is read to erase is read before the decay."""
    mask = call["attention_mask"]
    seen = None if mask is None else mask.to(output.device)[..., None, None]

    def row(x: Tensor) -> Tensor:
        return x.float() if seen is None else x.float() * seen

    k, value = row(call["key"]), call["value"]
    half = value.dtype in (torch.float16, torch.bfloat16)
    return Recurrence(
        q=row(call["receptance"]),
        k=k,
        v=row(value),
        output=output,
        positions=torch.arange(k.shape[1]),
        log_gates=row(call["decay"].float().log()),
        beta=k.new_ones(()).expand(k.shape[:3]),
        erase_query=-row(call["a"]),
        erase_key=row(call["b"]),
        erase_read="before",
        initial_state=call["initial_state"].float(),
        products=value.dtype if half else autocast_dtype(value),
    )


ADAPTER = Adapter(name="rwkv7", modules=("RWKV7TimeMix",), attach=_attach)
"""RWKV-7's time mixing in plain PyTorch, also where its file lies beside a model."""
