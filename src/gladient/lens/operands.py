"""Records of tensors that one has, and the recurrence in a call of this package's operators."""

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence
from gladient.ops.call import Call, prepare
from gladient.ops.check import warn_layout
from gladient.ops.dispatch import operate
from gladient.ops.gates import to_heads
from gladient.ops.sequences import accumulation, strengthened

__all__ = ["packed", "record", "recurrence_of", "unpacked"]


def record(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    output: Tensor | None = None,
    module: str = "tensors",
    max_bytes: int = 2**31,
    **operands: Any,
) -> Record:
    r"""The record of one call of a mixer, from its operands and its output; every token weight, and the proof.

    The operands are those of `gladient.ops.gated_linear_attention`: $S_t = G_t \odot S_{t-1} + k_t v_t^\top$,
    $o_t = \mathrm{scale}\; S_t^\top q_t$; with `beta` those of `gladient.ops.gated_delta_rule`.

    Args:
        q: queries of all tokens or of the last alone, [B, Q, h, K].
        k: keys, [B, T, h, K].
        v: values, [B, T, h, V].
        output: what the mixer computed, to be rebuilt, [B, Q, H, V]; if not given, what the operator computes.
        module: the record's name.
        max_bytes: the most memory that one request for weights may take.
        **operands: log gates g, gk, gv, G, A with dt; beta, erase, erase_keys; a, b; scale (1 if not given),
            initial_state, read, bonus, cu_seqlens: shapes and meaning as there. Packed sequences become rows, aligned
            right; with last queries alone, each row has its own at the end.

    Raises:
        ValueError: if a shape breaks its rule, or a log gate is above 0.
        TypeError: if a type does, or an operand is none of these.

    >>> q = k = torch.ones(1, 3, 1, 1)
    >>> v = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    >>> output = torch.tensor([1.0, 2.5, 4.25]).view(1, 3, 1, 1)
    >>> found = record(q, k, v, g=torch.full((1, 3, 1), 0.5).log(), output=output)
    >>> found.gate_weights(queries=-1).tolist(), found.reconstruction_error.passed
    ([[[[0.25, 0.5, 1.0]]]], True)
    """
    call = prepare(q, k, v, **operands)
    _check_logs(operands)
    warn_layout(call.k, call.heads)
    if output is None:
        output = operate(q, k, v, **operands)[0]
    queries = q.shape[1] if len(call.offsets) == 2 or call.form != "last_query" else output.shape[1]
    wanted = (len(k), queries, call.heads, v.shape[3])
    if tuple(output.shape) != wanted:
        raise ValueError(f"output has shape {tuple(output.shape)}; of these operands it is [B, Q, H, V] = {wanted}")
    kept = recurrence_of(call, output.detach(), call.initial_state)
    return Record(module, 0, "by hand" if call.beta is None and call.a is None else "delta rule", 0, kept, max_bytes)


def _check_logs(operands: dict[str, Any]) -> None:
    for name in ("g", "gk", "gv", "G", "A"):
        most = operands[name].max().item() if isinstance(operands.get(name), Tensor) and operands[name].numel() else 0.0
        if most > 0:  # the operators take gates that multiply up; here they are gates passed for their logs
            raise ValueError(
                f"{name} holds {most:.4g}, a log gate above 0; gates lie in [0, 1]: pass their logarithms, {name}.log()"
            )


def recurrence_of(call: Call, output: Tensor, initial_state: Tensor | None, phase: Tensor | None = None) -> Recurrence:
    """What an operator was asked, beside what it returned and the state before its first token.

    With `phase` it was asked that of queries and keys that were turned; the call has them before that.

    Gates of value channels make every value channel a head of its own, with values of one number.
    """
    H, T = call.heads, call.k.shape[1]
    if len(call.offsets) > 2 and (output.shape[1], call.q.shape[1]) != (T, T):
        every = call._replace(q=call.q.expand(-1, T, -1, -1))
        return recurrence_of(every, _at_ends(output, call.offsets), initial_state, phase).select(None, -1)
    Q = output.shape[1]
    log_gates = call.gates.each(accumulation).to_heads(H).combined()
    q, k, v = (to_heads(accumulation(x), H) for x in (call.q, call.k, call.v))
    parts: dict[str, Tensor] = {"q": call.scale * q[:, -Q:], "k": k, "v": v, "output": output}
    if log_gates is not None:
        parts["log_gates"] = log_gates
    if phase is not None:
        parts["phase"] = phase
    if call.beta is not None:
        parts |= _delta(call, k, v)
    if call.a is not None:
        parts |= _moves(call, k)
    if call.bonus is not None and not _same(call.bonus):  # what it adds, as a record has one for all rows
        own = (parts["q"] * accumulation(call.bonus)[:, None] * k[:, T - Q :]).sum(3, keepdim=True)
        parts["skip"] = own * v[:, T - Q :]
    return _recurrence({name: unpacked(x, call.offsets) for name, x in parts.items()}, call, initial_state)


def _at_ends(output: Tensor, borders: tuple[int, ...]) -> Tensor:
    """One output for each packed sequence, or for each that has tokens, at its last token; zeros elsewhere.

    >>> _at_ends(torch.tensor([[1.0, 2.0]]), (0, 2, 2, 3)).tolist()
    [[0.0, 1.0, 2.0]]
    """
    ends = [(row, stop - 1) for row, (start, stop) in enumerate(pairwise(borders)) if start < stop]
    found = output if output.shape[1] == len(ends) else output[:, [row for row, _ in ends]]
    places = torch.tensor([at for _, at in ends], device=output.device)
    return output.new_zeros(1, borders[-1], *output.shape[2:]).index_copy(1, places, found)


def _delta(call: Call, k: Tensor, v: Tensor) -> dict[str, Tensor]:
    """Write strengths, those of value channels in the values; erase strengths in the keys that are read and erased."""
    assert call.beta is not None
    beta = to_heads(accumulation(call.beta), call.heads)
    found = {"beta": beta} if beta.ndim == 3 else {"beta": k.new_ones(k.shape[:3]), "v": beta * v}
    if call.erase is None and call.erase_keys is None:
        return found
    return found | {"erase_query": strengthened(*call.erasing(), call.heads)}


def _moves(call: Call, k: Tensor) -> dict[str, Tensor]:
    """The generalised delta rule erases what it reads with -a, along b."""
    a, b = (to_heads(accumulation(cast(Tensor, x)), call.heads) for x in (call.a, call.b))
    return {"beta": k.new_ones(k.shape[:3]), "erase_query": -a, "erase_key": b}


def _recurrence(parts: dict[str, Tensor], call: Call, state: Tensor | None) -> Recurrence:
    gates, T, Q = parts.get("log_gates"), parts["k"].shape[1], parts["q"].shape[1]
    apart = call.v.shape[3] if gates is not None and gates.shape[4] > 1 else 1  # value channels that are heads
    return Recurrence(
        q=_repeat(parts["q"], apart),
        k=_repeat(parts["k"], apart),
        v=_split(parts["v"], apart),
        output=_split(parts["output"], apart),
        positions=torch.arange(T - Q, T),
        log_gates=None if gates is None else _by_heads(gates),
        phase=_repeat(parts["phase"], apart) if "phase" in parts else None,
        beta=parts.get("beta"),
        erase_query=parts.get("erase_query"),
        erase_key=parts.get("erase_key"),
        erase_read="after" if call.a is None else "before",
        skip=_split(parts["skip"], apart) if "skip" in parts else None,
        read=call.read,
        bonus=_own(call.bonus).repeat_interleave(apart, 0) if call.bonus is not None and _same(call.bonus) else None,
        initial_state=None if state is None else _split(accumulation(state).movedim(2, 1), apart).movedim(1, 2),
    )


def unpacked(x: Tensor, borders: Tensor | tuple[int, ...] | None) -> Tensor:
    """[1, tokens of all sequences, …] to [sequences, T, …] with zeros on the left; one sequence per row as it is.

    >>> unpacked(torch.tensor([[1, 2, 3]]), (0, 1, 3)).tolist()
    [[0, 1], [2, 3]]
    """
    lengths = _lengths(borders)
    if len(lengths) < 2:
        return x
    rows = x[0].split(lengths)
    return torch.stack([functional.pad(row, (0, 0) * (x.ndim - 2) + (max(lengths) - len(row), 0)) for row in rows])


def packed(x: Tensor, borders: Tensor | tuple[int, ...] | None) -> Tensor:
    """The inverse of `unpacked`.

    >>> packed(torch.tensor([[0, 1], [2, 3]]), (0, 1, 3)).tolist()
    [[1, 2, 3]]
    """
    lengths = _lengths(borders)
    if len(lengths) < 2:
        return x
    return torch.cat([row[len(row) - length :] for row, length in zip(x, lengths, strict=True)])[None]


def _lengths(borders: Tensor | tuple[int, ...] | None) -> list[int]:
    edges = borders.tolist() if isinstance(borders, Tensor) else borders or ()
    return [stop - start for start, stop in pairwise(edges)]


def _same(bonus: Tensor) -> bool:
    """Whether all rows share it."""
    return len(bonus) == 1 or bonus.stride(0) == 0


def _own(bonus: Tensor) -> Tensor:
    return accumulation(bonus[0])


def _by_heads(gates: Tensor) -> Tensor:
    """[B, T, H, K or 1, V or 1] to [B, T, H·V, K], or [B, T, H·V] where key channels share them."""
    gates = gates.mT.flatten(2, 3)
    return gates[..., 0] if gates.shape[3] == 1 else gates


def _repeat(x: Tensor, times: int) -> Tensor:
    """[B, T, H, K] to [B, T, H·times, K]."""
    return x[:, :, :, None].expand(-1, -1, -1, times, -1).flatten(2, 3)


def _split(x: Tensor, parts: int) -> Tensor:
    """[B, T, H, V] to [B, T, H·parts, V / parts]."""
    return x.unflatten(3, (parts, -1)).flatten(2, 3)
