"""Records as the operands that a page computes weights from: linear in the tokens, base64 inside JSON."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens import _weights
from gladient.lens._encode import FINE, encode_logs, encode_rows, encode_single, find_equal
from gladient.lens._exact import compute_exact
from gladient.lens._record import Record
from gladient.lens._recurrence import Recurrence

__all__ = ["choose_heads", "count_numbers", "pack_layer"]

_SUMMED = 64  # queries, spread evenly, whose means a summary takes


def choose_heads(x: Recurrence, most: int) -> list[int]:
    """At most so many heads, spread evenly from the one that forgets fastest to the slowest; all if they fit.

    >>> from gladient.lens._recurrence import Recurrence
    >>> q, gates = torch.ones(1, 2, 5, 1), torch.tensor([-4.0, -1, 0, -3, -2]).expand(1, 2, 5)
    >>> choose_heads(Recurrence(q, q, q, q, torch.arange(2), log_gates=gates), 3)
    [0, 2, 4]
    """
    if x.heads <= most:
        return list(range(x.heads))
    order = _mean_log_gate(x).argsort()
    return sorted(order[torch.linspace(0, x.heads - 1, most).round().long()].tolist())


def count_numbers(record: Record, heads: list[int]) -> tuple[int, int]:
    """How many numbers the page keeps of a layer's queries and keys, and how many others."""
    x = record.recurrence.select(heads)
    keys = (x.q, x.k, x.erase_query, x.erase_key)
    own = sum(len(find_equal(each[0])[0]) * each[0, :, 0].numel() for each in keys if each is not None)
    gates = 0 if x.log_gates is None else x.log_gates[0].numel()
    return own, gates + x.tokens * x.heads


def pack_layer(
    record: Record, heads: list[int], *, steps: int = FINE, last: int = 8, on_head: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """What the page keeps of a layer's call on one text: chosen heads' operands, summaries, and the layer's proof.

    Queries and keys are whole multiples, up to `steps`, of a step of each token's; heads that share them share them
    here. Sums of log gates are within 2⁻¹³; sizes of values are in 127 steps, all else in float32.

    Raises:
        ValueError: if the call had several texts, or queries were left out of the capture.
    """
    x = record.recurrence
    if x.q.shape[0] != 1 or x.q.shape[1] != x.tokens:
        raise ValueError(
            f"{record.module} has {x.q.shape[0]} texts and {x.q.shape[1]} of {x.tokens} queries; a page shows one "
            "text: capture a batch of 1 with positions=None"
        )
    found = record.reconstruction_error
    summaries = _summarise(record, heads, last)
    for _ in heads:
        on_head()
    return {
        "layer": record.layer,
        "module": record.module,
        "architecture": record.architecture,
        "family": x.family,
        "separable": x.separable,
        "before": x.read == "before",
        "of": x.heads,
        "heads": heads,
        "last": last,
        "steps": steps,
        "reconstruction": {**vars(found), "passed": found.passed},
        "summary": summaries,
        "size": int(x.k.shape[3]),
        **_operands(x.select(heads), steps),
    }


def _summarise(record: Record, heads: list[int], last: int) -> list[dict[str, Any]]:
    positions = record.recurrence.positions
    some = torch.linspace(0, len(positions) - 1, min(_SUMMED, len(positions))).round().long()
    found = record.summary(heads, positions[some].tolist(), last=last)
    names = ("mass", "memory_length", "half_life", "last", "entropy")
    gated = record.recurrence.log_gates is not None
    return [
        {name: getattr(found, name)[place].item() for name in names}
        | {"closing": found.closing_tokens(place) if gated else []}
        for place in range(len(heads))
    ]


def _operands(x: Recurrence, steps: int) -> dict[str, Any]:
    keys = {name: getattr(x, name) for name in ("q", "k", "erase_query", "erase_key")}
    rows = partial(encode_rows, steps=steps)
    found: dict[str, Any] = {name: _shared(value[0], rows) for name, value in keys.items() if value is not None}
    gates, rate = _gates(x)
    if gates is not None:
        found["gates"] = _shared(gates[0], partial(encode_logs, rate=1.0 if rate is None else rate.abs().max().item()))
    if rate is not None:
        found["rate"] = encode_single(rate)
    if x.log_write is not None:
        found["write"] = encode_single(x.log_write[0].T)
    if x.beta is not None:
        found["beta"] = encode_single(x.beta[0].T)
    if x.bonus is not None:
        found["bonus"] = encode_single(x.bonus)
    if x.normalise != "none":
        doubled = x.double()
        found["norm"] = encode_single(1 / compute_exact(doubled).normaliser[0].T)
        found["scale"] = encode_single(_weights.largest_log_weight(doubled)[0])
    return found | {"sizes": encode_rows(torch.linalg.vector_norm(x.v[0].double(), dim=2).T, 127)}


def _gates(x: Recurrence) -> tuple[Tensor | None, Tensor | None]:
    """Log gates [B, T, H] or [B, T, H, K], and the rates [H, K] that they have yet to be multiplied by, if any."""
    if x.log_gates is None or x.rate is None:
        return x.log_gates, None
    if x.rate.ndim == 2 and x.log_gates.ndim == 3:
        return x.log_gates, x.rate
    return x.double().log_gates, None


def _mean_log_gate(x: Recurrence) -> Float[Tensor, " H"]:
    """Without multiplying rates out over tokens; heads without gates remember all."""
    gates, rate = _gates(x)
    if gates is None:
        return torch.zeros(x.heads)
    means = gates.double().clamp_min(-1e6).mean((0, 1))
    means = means if rate is None else means[:, None] * rate.double()
    return means if means.ndim == 1 else means.mean(1)


def _shared(x: Float[Tensor, "T H *K"], encode: Callable[[Tensor], dict[str, Any]]) -> dict[str, Any]:
    """Heads one after the other, equal ones once: `of` says which is whose."""
    unique, of = find_equal(x)
    return {"of": of, **encode(x[:, unique].movedim(1, 0))}
