"""Mamba and the hybrids that share its scan: a gate for every channel and state, exp(A·dt); queries C, keys B."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient.lens.adapter import Adapter, Emit
from gladient.lens.recurrence import Recurrence
from gladient.ops.formulas import step_sizes
from gladient.seams import on_enter, on_function
from gladient.seams.architectures import MAMBA

__all__ = ["ADAPTER"]

_OVER_CHANNELS = ("v", "output", "log_gates", "skip", "output_gate")


@contextmanager
def _attach(mixer: nn.Module, emit: Emit) -> Iterator[None]:
    """Zamba scans its heads one after the other: their calls make one record."""
    parts: list[Recurrence] = []  # what the forward has scanned so far

    def collect(part: Recurrence) -> None:
        parts.append(part)
        if len(parts) == getattr(mixer, "n_mamba_heads", 1):
            emit(_side_by_side(parts))
            parts.clear()

    with (
        on_enter(mixer, lambda _: parts.clear()),  # an exception may have left some
        on_function(mixer, MAMBA.scan, lambda call, result: collect(_read_scan(call, result))),
        on_function(
            mixer,
            MAMBA.step,
            lambda call, result: collect(_read_update(call, result)),
            changes=("state",),
        ),
    ):
        yield


def _read_scan(call: dict[str, Any], result: Any) -> Recurrence:
    """Channels come before tokens; the scan starts from an empty state."""
    output = result[0] if isinstance(result, tuple) else result
    bias, softplus = call["delta_bias"], call["delta_softplus"]
    return _recurrence(call, _step(call["dt"], bias, softplus), call["B"].mT, call["C"].mT, output, lambda x: x.mT)


def _read_update(call: dict[str, Any], result: Tensor) -> Recurrence:
    dt = _step(call["dt"][..., None], call["dt_bias"], call["dt_softplus"])[..., 0]
    found = _recurrence(call, dt, call["B"][:, None], call["C"][:, None], result, lambda x: x[:, None])
    return replace(found, initial_state=call["state"][..., None].float())


def _step(dt: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    return step_sizes(dt, None if bias is None else bias.to(dt.dtype)[:, None], softplus)


def _recurrence(call: dict[str, Any], dt: Tensor, B: Tensor, C: Tensor, output: Tensor, tokens: Any) -> Recurrence:
    """`tokens` makes [B, T, channels] of what comes otherwise."""
    x, dt, D, z = tokens(call["hidden_states"]), tokens(dt).float(), call["D"], call["z"]
    output, x = tokens(output).to(x.dtype), x.float()  # beside a D in float32 half precision comes out in float32
    shape = (*x.shape, B.shape[-1])
    return Recurrence(
        q=C.float()[:, :, None].expand(shape),
        k=B.float()[:, :, None].expand(shape),
        v=(dt * x)[..., None],
        output=output[..., None],
        positions=torch.arange(x.shape[1]),
        log_gates=dt,
        rate=call["A"].float(),
        skip=None if D is None else (D.float() * x)[..., None],
        output_gate=None if z is None else functional.silu(tokens(z))[..., None],
    )


def _side_by_side(parts: list[Recurrence]) -> Recurrence:
    """One recurrence of the channels of all."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str, dim: int) -> Any:
        each = [getattr(part, name) for part in parts]
        return None if each[0] is None else torch.cat(each, dim)

    over_channels = {name: joined(name, 2) for name in ("q", "k", *_OVER_CHANNELS)}
    return replace(parts[0], **over_channels, rate=joined("rate", 0), initial_state=joined("initial_state", 1))


ADAPTER = Adapter(
    name="mamba",
    modules=MAMBA.layers,
    attach=_attach,
)
"""Mamba in models of transformers."""
