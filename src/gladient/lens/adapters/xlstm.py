"""xLSTM's mLSTM: scalar forget gates σ(f) and input gates e^i per head, both soft-capped by the layer; normalised."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence
from gladient.seams import SeamError, on_forward
from gladient.seams.architectures import XLSTM

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    (part,) = XLSTM.parts
    backend = getattr(layer, part, None)
    if backend is None:
        raise SeamError(f"{type(layer).__name__} has no {part}")
    heard = emit.listener(lambda call, result: _read(call, result, backend.config.eps), _write)
    with on_forward(backend, heard, replace=emit.replace):
        yield


def _write(_: Given, result: Any, answer: Answer) -> Any:
    output, states = result if isinstance(result, tuple) else (result, None)
    output, found = answer.put(output, answer.output.transpose(1, 2), 1), answer.linear
    if states is None:
        return output
    assert found.total is not None
    assert found.log_scale is not None
    ours = (found.state, found.total, found.log_scale[..., None])
    return output, tuple(answer.put(*pair, 1) for pair in zip(states, ours, strict=True))


def _read(call: dict[str, Any], result: Any, eps: float) -> Recurrence:
    """Operands come heads first; the state is (C, n, m), without one m starts at 0, not at -inf."""
    output = result[0] if isinstance(result, tuple) else result
    q, k, v = (call[name].transpose(1, 2) for name in ("query", "key", "value"))
    C, n, m = call["c_initial"], call["n_initial"], call["m_initial"]
    return Recurrence(
        q=q.float() * q.shape[3] ** -0.5,
        k=k.float(),
        v=v.float(),
        output=output.transpose(1, 2),
        positions=torch.arange(q.shape[1]),
        log_gates=functional.logsigmoid(call["fgate"].mT).float(),
        log_write=call["igate"].mT.float(),
        initial_state=_float(C),
        normalise="mlstm",
        initial_normaliser=_float(n),
        initial_log_scale=None if m is None else m[..., 0].float(),
        eps=eps,
    )


def _float(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float()


ADAPTER = Adapter(name="xlstm", modules=XLSTM.layers, attach=_attach)
"""xLSTM in models of transformers."""
