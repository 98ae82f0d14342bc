"""Hands what a changed recurrence computes on as a call of this package's operators would have returned it."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from gladient.lens.adapter import Given
from gladient.lens.answer import Answer
from gladient.lens.operands import packed
from gladient.ops.rotation import Mamba3Call, Mamba3State
from gladient.seams import WRITTEN

__all__ = ["write_call", "write_mamba3"]


def write_call(heard: Given, result: tuple[Tensor, Tensor | None], answer: Answer) -> tuple[Tensor, Tensor | None]:
    """Of `run_call`: value channels that are heads of the recurrence are channels again, its rows are packed again."""
    call, (output, state) = heard["call"], result
    apart = answer.given.heads // call.heads
    o = _packed(_joined(answer.outputs, apart), output, call.offsets)
    if state is None:
        return o, None
    theirs = _split(state.movedim(2, 1), apart).movedim(1, 2)
    last = _joined(answer.put(theirs, answer.state, 1).movedim(2, 1), apart).movedim(1, 2)
    return o, heard[WRITTEN]["initial_state"].copy_(last) if call.inplace else last


def _packed(rows: Tensor, output: Tensor, borders: tuple[int, ...]) -> Tensor:
    """Rows in the shape of the output: all tokens one after the other, or the last of each sequence that has any."""
    if len(borders) == 2:
        return rows
    if rows.shape[1] > 1 or output.shape[1] == borders[-1]:
        return packed(rows, borders)
    ends = [row for row, (start, stop) in enumerate(pairwise(borders)) if start < stop]
    found = rows[ends].movedim(1, 0)
    if output.shape[1] == len(ends):
        return found
    return output.index_copy(1, torch.tensor(ends, device=output.device), found)


def _split(x: Tensor, parts: int) -> Tensor:
    """[B, T, H, V] to [B, T, H·parts, V / parts]."""
    return x.unflatten(3, (parts, -1)).flatten(2, 3)


def _joined(x: Tensor, parts: int) -> Tensor:
    """The inverse of `_split`."""
    return x.unflatten(2, (-1, parts)).flatten(3, 4)


def write_mamba3(heard: Given, result: tuple[Tensor, Any], answer: Answer) -> tuple[Tensor, Mamba3State | None]:
    """Of `run_mamba3`: heads of the recurrence are the ranks that read, its tokens those that write.

    Raises:
        ValueError: if the ranks of a head, which have one state, would leave different ones.
    """
    call, (o, state) = heard["call"], result
    o = answer.outputs.view(o.shape)
    if state is None:
        return o, None
    r, made = call.v.shape[3], answer.made
    S = answer.put(state.S.repeat_interleave(r, 1), answer.state, 1).unflatten(1, (-1, r))
    if not torch.allclose(S, S[:, :, :1], rtol=1e-4, atol=1e-6 * float(S.detach().abs().amax())):
        raise ValueError(f"the change differs among the {r} ranks of a head, which have one state; change all of them")
    return o, Mamba3State(
        S[:, :, 0],
        state.phase,
        state.key if made.k is answer.given.k else _last(made.turned.k, r, state.key),
        state.value if made.v is answer.given.v else _last(_unweighed(made.v, call), r, state.value),
    )


def _last(x: Tensor, r: int, like: Tensor) -> Tensor:
    """What the last step wrote, [B, H, C] or [B, H, r, C], of tokens that all reading ranks share, [B, T r, H r, C]."""
    return x[:, -r:, ::r].movedim(1, 2).reshape(like.shape).to(like.dtype)


def _unweighed(v: Tensor, call: Mamba3Call) -> Tensor:
    """Values of the last step without their weight in the state; what weighs nothing there is not known, and 0."""
    r = call.v.shape[3]
    weight = call.written()[:, -1:].repeat_interleave(r, 2)[..., None]
    return torch.where(weight == 0, 0.0, v[:, -r:] / weight)
