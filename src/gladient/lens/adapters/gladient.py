"""This package's own layers, as their operator is called: every gate family, whole sequences and the last query.

Gates of value channels make every value channel a head of its own, with values of one number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gladient.lens._adapter import Adapter, Emit
from gladient.lens._recurrence import Recurrence
from gladient.lens._seams import on_function, on_method
from gladient.ops._sequences import accumulation
from gladient.ops.gates import Gates, to_heads

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    with (
        on_method(layer, "scan", _ignore),  # models run the layer past its forward
        on_method(layer, "read_last", _ignore),
        on_method(layer, "written", _ignore),
        on_function(layer, "gated_linear_attention", lambda call, result: emit(_read(call, result[0]))),
    ):
        yield


def _ignore(call: dict[str, Any], result: Any) -> None:
    """Hears nothing: the seam is there so that the layer counts as running."""


def _read(call: dict[str, Any], output: Tensor) -> Recurrence:
    H, V, T, Q = call["q"].shape[2], call["v"].shape[3], call["k"].shape[1], call["q"].shape[1]
    gates = Gates(**{name: call[name] for name in ("g", "gk", "gv", "G", "A", "dt")})
    log_gates = gates.each(accumulation).to_heads(H).combined()
    apart = V if log_gates is not None and log_gates.shape[4] > 1 else 1  # value channels that are heads
    q, k, v = (to_heads(accumulation(call[name]), H) for name in ("q", "k", "v"))
    q, state, bonus, skip = call["scale"] * q, call["initial_state"], call["bonus"], None
    if bonus is not None and bonus.ndim == 3:  # rows of several members: what it adds, as a record has one for all
        own = (q * accumulation(bonus)[:, None] * k[:, T - Q :]).sum(3, keepdim=True)
        bonus, skip = None, _split(own * v[:, T - Q :], apart)
    return Recurrence(
        q=_repeat(q, apart),
        k=_repeat(k, apart),
        v=_split(v, apart),
        output=_split(output, apart),
        positions=torch.arange(T - Q, T),
        log_gates=None if log_gates is None else _log_gates(log_gates),
        read=call["read"],
        bonus=None if bonus is None else accumulation(bonus).repeat_interleave(apart, 0),
        initial_state=None if state is None else _split(accumulation(state).movedim(2, 1), apart).movedim(1, 2),
        skip=skip,
    )


def _log_gates(gates: Tensor) -> Tensor:
    """[B, T, H, K or 1, V or 1] to [B, T, H·V, K], or [B, T, H·V] where key channels share them."""
    gates = gates.mT.flatten(2, 3)
    return gates[..., 0] if gates.shape[3] == 1 else gates


def _repeat(x: Tensor, times: int) -> Tensor:
    """[B, T, H, K] to [B, T, H·times, K]."""
    return x[:, :, :, None].expand(-1, -1, -1, times, -1).flatten(2, 3)


def _split(x: Tensor, parts: int) -> Tensor:
    """[B, T, H, V] to [B, T, H·parts, V / parts]."""
    return x.unflatten(3, (parts, -1)).flatten(2, 3)


ADAPTER = Adapter(name="gladient", modules=("GatedLinearAttention",), attach=_attach, package="gladient")
