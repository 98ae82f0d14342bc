"""Inside a user's autocast region: what stands outside, bit for bit, whichever side the backward pass is on."""

from itertools import cycle
from typing import Any

import pytest
import torch
from ops_cases import BACKENDS, BRIEF, inputs, run, tensors
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CASES = [*BRIEF, *(("step", backend, None, family) for backend in BACKENDS for family in ("key×value", "delta+scalar"))]
OPTIONS: list[dict[str, Any]] = [{}, {"read": "before"}, {"cu_seqlens": [0, 6, 18]}]


def found(given: dict[str, Tensor], options: dict[str, Any], where: str) -> tuple[Tensor, ...]:
    def forward(*values: Tensor) -> Any:
        return run(dict(zip(given, values, strict=True)), **options)

    leaves = [x.detach().clone().requires_grad_() for x in given.values()]
    with torch.autocast("cpu", torch.float16 if "half" in where else torch.bfloat16, enabled="outside" not in where):
        o, final = checkpoint(forward, *leaves, use_reentrant=False) if "again" in where else forward(*leaves)
        with torch.autocast("cpu", enabled="backward" in where):
            gradients = torch.autograd.grad(o.sin().sum() + final.cos().sum(), leaves)
    return (o, final, *gradients)


@pytest.mark.parametrize(
    ("form", "backend", "chunk", "family", "options"),
    [(*case, options) for case, options in zip(CASES, cycle(OPTIONS), strict=False)],
)
def test_autocast_rounds_nothing(
    form: str, backend: str, chunk: int | None, family: str, options: dict[str, Any]
) -> None:
    T, packed = 1 if form == "step" else 18, "cu_seqlens" in options and form != "step"
    made = inputs(family, T, B=1 if packed else 2, K=16, V=16, q_heads=1, state=not packed)
    given = tensors(made, torch.float32)
    chosen: dict[str, Any] = {"form": form, "backend": backend, "chunk_size": chunk}
    chosen |= options if packed or "read" in options else {}
    expected = found(given, chosen, "outside")
    assert all(x.dtype == torch.float32 for x in expected)
    for where in ("forward", "forward, backward", "half forward, backward", "again, backward"):
        ours = found(given, chosen, where)
        torch.testing.assert_close(ours[:2], expected[:2], rtol=0, atol=0)
        # gradients may add up in another order; one rounding to bfloat16 is 4e-3
        torch.testing.assert_close(ours[2:], expected[2:], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        outside = run(given, **chosen)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(run(given, **chosen), outside, rtol=0, atol=0)
