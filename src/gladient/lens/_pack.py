"""Records as the operands that a page computes weights from: linear in the tokens, base64 inside JSON."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens import _weights
from gladient.lens._exact import compute_exact
from gladient.lens._proof import Reconstruction
from gladient.lens._record import Record
from gladient.lens._recurrence import Recurrence

__all__ = ["choose_heads", "pack_layer"]

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


def pack_layer(
    record: Record, heads: list[int], *, last: int = 8, on_head: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """What the page keeps of a layer's call on one text: chosen heads' operands, summaries, and their reconstruction.

    Queries and keys become float16, each head scaled by its largest entry; heads that share them share them here.
    Gates, input gates, normalisers and the values' sizes are float32.

    Raises:
        ValueError: if the call had several texts, or queries were left out of the capture.
    """
    x = record.recurrence
    if x.q.shape[0] != 1 or x.q.shape[1] != x.tokens:
        raise ValueError(
            f"{record.module} has {x.q.shape[0]} texts and {x.q.shape[1]} of {x.tokens} queries; a page shows one "
            "text: capture a batch of 1 with positions=None"
        )
    summaries = []
    for head in heads:
        summaries.append(_summarise(record, head, last))
        on_head()
    chosen = x.select(heads)
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
        "reconstruction": _verdict(record.reconstruction_error),
        "summary": summaries,
        "size": int(x.k.shape[3]),
        **_operands(chosen),
    }


def _verdict(found: Reconstruction) -> dict[str, Any]:
    return {**vars(found), "passed": found.passed}


def _summarise(record: Record, head: int, last: int) -> dict[str, Any]:
    positions = record.recurrence.positions
    some = torch.linspace(0, len(positions) - 1, min(_SUMMED, len(positions))).round().long()
    found = record.summary(head, positions[some].tolist(), last=last)
    names = ("mass", "memory_length", "half_life", "last", "entropy")
    closing = [] if record.recurrence.log_gates is None else found.closing_tokens(0)
    return {name: getattr(found, name).item() for name in names} | {"closing": closing}


def _operands(x: Recurrence) -> dict[str, Any]:
    found: dict[str, Any] = {"q": _shared(x.q[0], _half), "k": _shared(x.k[0], _half)}
    gates, rate = _gates(x)
    if gates is not None:
        found["gates"] = _shared(gates[0], _single)
    if rate is not None:
        found["rate"] = _single(rate)
    if x.log_write is not None:
        found["write"] = _single(x.log_write[0].T)
    if x.beta is not None:
        found["beta"] = _single(x.beta[0].T)
    if x.bonus is not None:
        found["bonus"] = _single(x.bonus)
    if x.normalise != "none":
        doubled = x.double()
        found["norm"] = _single(1 / compute_exact(doubled).normaliser[0].T)
        found["scale"] = _single(_weights.largest_log_weight(doubled)[0])
    return found | {"sizes": _single(torch.linalg.vector_norm(x.v[0].double(), dim=2).T)}


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
    x = x.movedim(1, 0)
    unique, of = [0], [0]
    for head in range(1, len(x)):
        same = next((place for place, other in enumerate(unique) if torch.equal(x[head], x[other])), None)
        of.append(len(unique) if same is None else same)
        unique += [head] if same is None else []
    return {"of": of, **encode(x[unique])}


def _half(x: Float[Tensor, "U *S"]) -> dict[str, Any]:
    x = x.double().flatten(1)
    scales = x.abs().amax(1).clamp_min(1e-300)
    return {"f16": _base64((x / scales[:, None]).numpy(force=True).astype("<f2")), "scales": scales.tolist()}


def _single(x: Tensor) -> dict[str, Any]:
    return {"f32": _base64(x.detach().double().numpy(force=True).astype("<f4"))}


def _base64(x: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(x).tobytes()).decode()
