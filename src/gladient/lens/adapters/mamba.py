"""Mamba and the hybrids that share its scan: a gate for every channel and state, exp(A·dt); queries C, keys B."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence
from gladient.ops.formulas import step_sizes
from gladient.seams import WRITTEN, on_enter, on_function
from gladient.seams.architectures import MAMBA

__all__ = ["ADAPTER"]

_OVER_CHANNELS = ("v", "output", "log_gates", "skip", "output_gate")


@contextmanager
def _attach(mixer: nn.Module, emit: Emit) -> Iterator[None]:
    """Zamba scans its heads one after the other: their calls make one record."""
    parts: list[_Part] = []  # what the forward has scanned so far

    def collect(part: _Part) -> _Made | None:
        parts.append(part)
        if len(parts) < getattr(mixer, "n_mamba_heads", 1):
            return None
        answer = emit(_side_by_side([each.x for each in parts]))
        made = None if answer is None else _write(parts, answer)
        parts.clear()
        return made

    def scanned(call: Given, result: Any) -> Any:
        output, state = result if isinstance(result, tuple) else (result, None)
        made = collect(_Part(_read_scan(call, result), output.mT, state))
        if made is None:
            return result
        return made.output.mT if state is None else (made.output.mT, made.state)

    def updated(call: Given, result: Tensor) -> Tensor:
        state = call[WRITTEN]["state"]
        made = collect(_Part(_read_update(call, result), result[:, None], state))
        if made is None:
            return result
        state.copy_(made.state)
        return made.output[:, 0]

    with (
        on_enter(mixer, lambda _: parts.clear()),  # an exception may have left some
        on_function(mixer, MAMBA.scan, scanned, replace=emit.replace),
        on_function(mixer, MAMBA.step, updated, changes=("state",), replace=emit.replace),
    ):
        yield


class _Part(NamedTuple):
    """One scan: its recurrence, its outputs, [B, T, C], and the state after it, [B, C, N]."""

    x: Recurrence
    output: Tensor
    state: Tensor | None


class _Made(NamedTuple):
    """What the last scan of a forward is to return."""

    output: Tensor
    state: Tensor | None


def _write(parts: list[_Part], answer: Answer) -> _Made:
    """In place for all but the last scan: the layer holds their results already."""
    n = len(parts)
    outputs = answer.put(torch.cat([part.output for part in parts], 2), answer.output[..., 0], 2).chunk(n, 2)
    states = [part.state for part in parts if part.state is not None]
    kept = answer.put(torch.cat(states, 1), answer.state[..., 0], 1).chunk(n, 1) if states else [None] * n
    for part, output, state in list(zip(parts, outputs, kept, strict=True))[:-1]:
        part.output.copy_(output)
        if part.state is not None and state is not None:
            part.state.copy_(state)
    return _Made(outputs[-1], kept[-1])


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
