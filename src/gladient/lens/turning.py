"""What turns in a call of this package's operators: rotations that were heard before it, and Mamba-3."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gladient.lens.recurrence import Recurrence
from gladient.ops.call import Call
from gladient.ops.gates import to_heads
from gladient.ops.rotation import Mamba3Call, split_pairs

__all__ = ["Turn", "mamba3_recurrence", "unturned"]

_TURNED = ("q", "k", "erase_keys", "a", "b")


class Turn(NamedTuple):
    """One rotation: what it returned, what it was given, the phase of each token, and which channels it turned."""

    result: Tensor
    x: Tensor
    phase: Tensor
    pairs: str


def unturned(call: Call, turns: Iterable[Turn]) -> tuple[Call, Tensor | None, str]:
    """The call before its rotation, the phase of its tokens and the pairs; the call as it is if that did not turn it.

    All that it reads and writes by must have been turned, by one phase, and the rest must commute with a turn: gates
    and strengths that the two channels of a pair share.
    """
    given = [name for name in _TURNED if getattr(call, name) is not None]
    heard = {name: turn for turn in turns for name in given if turn.result is getattr(call, name)}
    if len(heard) < len(given) or not _commutes(call, heard["k"]):
        return call, None, ""
    phases = {name: to_heads(turn.phase, call.heads) for name, turn in heard.items()}
    phase, pairs = phases["k"], heard["k"].pairs
    alike = (torch.equal(each, phase[:, -each.shape[1] :]) for each in phases.values())
    if any(turn.pairs != pairs for turn in heard.values()) or not all(alike):
        return call, None, ""
    before: dict[str, Any] = {name: turn.x for name, turn in heard.items()}
    return call._replace(**before), phase, pairs


def _commutes(call: Call, turn: Turn) -> bool:
    each = [x for x in (call.gates.gk, call.erase) if x is not None and x.ndim == 4]
    P = turn.phase.shape[3]
    pairs = ([y[..., :P] for y in split_pairs(x, turn.pairs)] for x in each)
    plain = call.bonus is None and call.gates.G is None and call.gates.A is None
    return plain and all(torch.equal(*pair) for pair in pairs)


def mamba3_recurrence(call: Mamba3Call, output: Tensor, **others: Any) -> Recurrence:
    """Mamba-3: a token's two writes are one, in its value, of which its own query reads the part that is its own.

    Of r ranks, each that reads is a head, and each that writes a token. `others` are further fields.
    """
    r, written = call.v.shape[3], call.written()

    def tokens(x: Tensor) -> Tensor:
        """[B, T, H, r, C] to [B, T r, H r, C]."""
        return heads(x.movedim(3, 2).flatten(1, 2))

    def heads(x: Tensor) -> Tensor:
        return x if r == 1 else x.repeat_interleave(r, 2)

    def steps(x: Tensor) -> Tensor:
        """[B, T, H, …] to [B, T r, H r, …]."""
        return heads(x if r == 1 else x.repeat_interleave(r, 1))

    first = torch.arange(r * call.v.shape[1], device=call.v.device) % r == 0
    return Recurrence(
        q=call.scale * call.q.flatten(2, 3),
        k=tokens(call.k),
        v=tokens(written[..., None, None] * call.v),
        output=output.flatten(2, 3) if call.many() else output,
        positions=torch.arange(r - 1, r * call.v.shape[1], r)[-call.q.shape[1] :],
        log_gates=steps(call.g).masked_fill(~first[:, None], 0.0),
        phase=steps(call.phase) if call.phase.shape[3] else None,
        pairs=call.pairs,
        own=steps(torch.where(written == 0, 1.0, call.own / written)),
        ranks=r,
        initial_state=call.initial() if r == 1 else call.initial().repeat_interleave(r, 1),
        **others,
    )
