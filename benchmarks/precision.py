"""Largest float32 error over 8192 steps, relative to the largest output of the float64 recurrence.

`python -m benchmarks.precision` (seconds). Random: log gates uniform in [-0.1, 0]; adversarial: within 1e-4 of a gate
of 1, and e^-50 at one step in a thousand.
"""

from typing import Any

import torch
from torch import Tensor

from gladient import _optional
from gladient.ops import gated_linear_attention

__all__: list[str] = []

T, K = 8192, 16


def inputs(name: str | None, adversarial: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, T, 1, K) for _ in range(3))
    if name is None:
        return {"q": q, "k": k, "v": v}
    shape = (1, T, 1) if name == "g" else (1, T, 1, K)
    gates = -0.1 * torch.rand(shape)
    if adversarial:
        gates = torch.where(torch.rand(shape) < 1e-3, -50.0, 1e-3 * gates)
    return {"q": q, "k": k, "v": v, name: gates}


def errors(given: dict[str, Tensor]) -> list[float]:
    doubled: dict[str, Any] = {name: x.double() for name, x in given.items()}
    exact = gated_linear_attention(**doubled, form="recurrent")[0]
    found = []
    for form, backend in (("recurrent", "torch"), ("chunked", "torch"), ("chunked", "native")):
        options: dict[str, Any] = {**given, "form": form, "backend": backend}
        found.append(float((gated_linear_attention(**options)[0] - exact).abs().max() / exact.abs().max()))
    if set(given) == {"q", "k", "v", "g"} and _optional.have("fla"):
        simple = _optional.require_file("fla", "ops/simple_gla/naive.py", needed_for="fla chunk", install="")
        o = simple.naive_chunk_simple_gla(**given, scale=1.0)[0]
        found.append(float((o - exact).abs().max() / exact.abs().max()))
    return found


if __name__ == "__main__":
    print(f"{'gates':24}{'recurrent':>11}{'chunked':>11}{'native':>11}{'fla chunk':>11}")
    for family, name in {"none": None, "scalar": "g", "key": "gk", "value": "gv"}.items():
        for adversarial in (False, True):
            if name is not None or not adversarial:
                title = f"{family}{', adversarial' if adversarial else ''}"
                print(f"{title:24}" + "".join(f"{error:11.1e}" for error in errors(inputs(name, adversarial))))
