"""Numbers as text for a page: whole multiples of a step, bytes of equal weight together, deflated, in base64."""

import base64
import zlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["FINE", "SHUT", "encode_logs", "encode_rows", "encode_single", "find_equal"]

FINE = 2**15 - 1  # steps from 0 to a row's largest entry: 16 bits
SHUT = -745.0  # exp of it is 0
_LOG_STEP = 2.0**-13


def encode_rows(x: Float[Tensor, "*rows S"], steps: int) -> dict[str, Any]:
    """Each row in steps of its own, `steps` of them up to its largest entry; fewer steps are fewer bits.

    >>> sorted(encode_rows(torch.tensor([[1.0, -2.0], [0.0, 0.0]]), 127))
    ['bytes', 'integers', 'scales']
    """
    x = x.double().flatten(0, -2)
    scales = x.abs().amax(1).clamp_min(1e-300) / steps
    return _integers((x / scales[:, None]).round(), 1 if steps < 128 else 2, scales)


def encode_logs(x: Float[Tensor, "U T *K"], rate: float = 1.0) -> dict[str, Any]:
    """Log gates whose running sums over tokens are rounded, so that no sum of them is farther off than one step.

    A step is 2⁻¹³, divided by the largest rate that the log gates are to be multiplied by.
    """
    step = _LOG_STEP * 2.0 ** -np.ceil(np.log2(max(rate, 1.0)))
    sums = (x.double().clamp_min(SHUT).cumsum(1) / step).round()
    return _integers(sums.diff(dim=1, prepend=torch.zeros_like(sums[:, :1])), 4, x.new_full(x.shape[:1], step))


def encode_single(x: Tensor) -> dict[str, Any]:
    """Float32."""
    return {"f32": _text(_planes(x.detach().double().numpy(force=True).astype("<f4"), 4))}


def find_equal(x: Float[Tensor, "T H *K"]) -> tuple[list[int], list[int]]:
    """The heads that differ, and for each head which of these it equals.

    >>> find_equal(torch.tensor([[1.0, 2.0, 1.0]]))
    ([0, 1], [0, 1, 0])
    """
    heads, unique, of = x.unbind(1), [0], [0]
    for head in heads[1:]:
        same = next((place for place, other in enumerate(unique) if _equal(head, heads[other])), None)
        of.append(len(unique) if same is None else same)
        unique += [len(of) - 1] if same is None else []
    return unique, of


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)


def _integers(x: Tensor, size: int, scales: Tensor) -> dict[str, Any]:
    numbers = x.numpy(force=True).astype(f"<i{size}")
    return {"bytes": size, "integers": _text(_planes(numbers, size)), "scales": encode_single(scales)["f32"]}


def _planes(x: np.ndarray, size: int) -> bytes:
    """All lowest bytes, then all next ones …: they deflate better."""
    return np.ascontiguousarray(x).view("u1").reshape(-1, size).T.tobytes()


def _text(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw)).decode()
