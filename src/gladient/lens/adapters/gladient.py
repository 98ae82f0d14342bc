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
from gladient.ops.dispatch import accumulation
from gladient.ops.gates import Gates, to_heads

__all__ = ["ADAPTER"]


@contextmanager
def _attach(layer: nn.Module, emit: Emit) -> Iterator[None]:
    waiting: list[tuple[dict[str, Any], Tensor]] = []

    def operated(call: dict[str, Any], result: tuple[Tensor, Tensor | None]) -> None:
        if getattr(layer, "u", None) is None:
            emit(_read(call, result[0]))
        else:
            waiting.append((call, result[0]))

    def added(call: dict[str, Any], own: Tensor) -> None:
        """The layer adds its bonus itself: one for all rows of the batch, unless they are of different members."""
        operator, output = waiting.pop()
        whole = len(call["tokens"]) == 1
        emit(_read(operator, output + own, **({"bonus": call["u"].flatten(0, 1)} if whole else {"skip": own})))

    with (
        on_method(layer, "_operate", lambda call, result: None),  # others run the layer past its forward
        on_function(layer, "gated_linear_attention", operated),
        on_method(layer, "_bonus", added),
    ):
        yield


def _read(
    call: dict[str, Any], output: Tensor, *, bonus: Tensor | None = None, skip: Tensor | None = None
) -> Recurrence:
    H, V, T = call["q"].shape[2], call["v"].shape[3], call["k"].shape[1]
    gates = Gates(*(call[name] for name in ("g", "gk", "gv", "G"))).each(accumulation).to_heads(H).combined()
    apart = V if gates is not None and gates.shape[4] > 1 else 1  # value channels that are heads
    q, k = (_repeat(to_heads(accumulation(call[name]), H), apart) for name in ("q", "k"))
    state = call["initial_state"]
    return Recurrence(
        q=call["scale"] * q,
        k=k,
        v=_split(to_heads(accumulation(call["v"]), H), apart),
        output=_split(output, apart),
        positions=torch.arange(T)[T - q.shape[1] :],
        log_gates=None if gates is None else _log_gates(gates),
        read=call["read"],
        bonus=None if bonus is None else accumulation(bonus).repeat_interleave(apart, 0),
        initial_state=None if state is None else _split(accumulation(state).movedim(2, 1), apart).movedim(1, 2),
        skip=None if skip is None else _split(skip, apart),
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
