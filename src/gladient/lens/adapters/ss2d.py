"""SS2D of VMamba and MambaIR: Mamba-1 scans along four directions of a picture; every channel of each is a head."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence
from gladient.ops.formulas import step_sizes
from gladient.seams import on_method

__all__ = ["ADAPTER"]


def _attach(mixer: nn.Module, emit: Emit) -> AbstractContextManager[None]:
    return on_method(mixer, "selective_scan", emit.listener(_read, _write), replace=emit.replace)


def _write(_: Given, result: Any, answer: Answer) -> Any:
    output, *states = result if isinstance(result, tuple) else (result,)
    output = answer.put(output, answer.output[..., 0].mT, 1)
    return (output, *(answer.put(state, answer.state[..., 0], 1) for state in states)) if states else output


def _read(call: dict[str, Any], result: Any) -> Recurrence:
    """Arguments of mamba_ssm's selective_scan_fn: channels before time, B and C in groups of channels."""
    u, A, D, z = call["u"].float(), call["A"].float(), call["D"], call["z"]
    bias = call["delta_bias"]
    dt = step_sizes(call["delta"], None if bias is None else bias[:, None], call["delta_softplus"])
    output = result[0] if isinstance(result, tuple) else result
    return Recurrence(
        q=_to_heads(call["C"], len(A)),
        k=_to_heads(call["B"], len(A)),
        v=_by_time(dt.float() * u),
        output=_by_time(output),
        positions=torch.arange(u.shape[2]),
        log_gates=dt.float().mT,
        rate=A,
        skip=None if D is None else _by_time(D[:, None] * u),
        output_gate=None if z is None else _by_time(functional.silu(z)),
    )


def _to_heads(x: Tensor, heads: int) -> Tensor:
    """[B, groups, N, T] to [B, T, heads, N], as a view."""
    groups = x.movedim(3, 1)[:, :, :, None]
    return groups.expand(-1, -1, -1, heads // x.shape[1], -1).flatten(2, 3)


def _by_time(x: Tensor) -> Tensor:
    """[B, H, T] to [B, T, H, 1]."""
    return x.mT[..., None]


ADAPTER = Adapter(name="ss2d", modules=("SS2D",), attach=_attach)
"""Mamba's scan in four directions over a picture (SS2D)."""
