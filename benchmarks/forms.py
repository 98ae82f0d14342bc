"""What form="auto" stands on: milliseconds of every form, forward and backward, over shapes and gate families.

`python -m benchmarks.forms` (about three minutes, 2 threads). A plus marks the plain torch form that `auto` takes where
the native kernels are absent. The last lines say how far the choices are from the fastest of their rows.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.operators.clock import interleaved
from gladient.ops import Gates, choose, gated_linear_attention
from gladient.ops.eager.chunked import best_chunk

__all__: list[str] = []

SHAPES = [(1, 16, 4, 64), (1, 64, 4, 64), (1, 512, 4, 64), (64, 16, 1, 11), (64, 50, 1, 11), (1024, 50, 1, 11)]
SHAPES += [(256, 200, 1, 21), (8, 64, 8, 128), (8, 256, 4, 64), (4, 512, 4, 128)]
GATES = {"scalar": "g", "key": "gk", "value": "gv"}
CHUNKS = (16, 32, 64)
LARGEST = 1 << 28  # entries of the parallel form's largest tensor


def inputs(family: str, B: int, T: int, H: int, K: int) -> dict[str, Tensor]:
    made = {name: torch.randn(B, T, H, K) / math.sqrt(K) for name in ("q", "k", "v")}
    made[GATES[family]] = -0.1 * torch.rand((B, T, H) if family == "scalar" else (B, T, H, K))
    return {name: x.requires_grad_() for name, x in made.items()}


def contenders(family: str, B: int, T: int, H: int, K: int) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "native", {"form": "chunked", "backend": "native"}
    for size in CHUNKS:
        yield f"chunks of {size}", {"form": "chunked", "backend": "eager", "chunk_size": size}
    if B * T * T * H * (1 if family == "scalar" else K) <= LARGEST:
        yield "parallel", {"form": "parallel"}
    if T <= 64:
        yield "recurrent", {"form": "recurrent"}


def training(given: dict[str, Tensor], options: dict[str, Any]) -> None:
    o, _ = gated_linear_attention(**given, **options)  # type: ignore[arg-type]
    torch.autograd.grad(o, list(given.values()), torch.ones_like(o))


def main() -> None:
    torch.set_num_threads(2)
    columns = ["native", *(f"chunks of {size}" for size in CHUNKS), "parallel", "recurrent"]
    print(f"{'gates':8}{'B, T, H, K':20}" + "".join(f"{name:>15}" for name in columns))
    worst = {"auto": 1.0, "auto without native kernels": 1.0}
    for family in GATES:
        for shape in SHAPES:
            given = inputs(family, *shape)
            jobs = {name: partial(training, given, options) for name, options in contenders(family, *shape)}
            found = {name: 1e3 * seconds for name, seconds in interleaved(jobs, 5).items()}
            q, k, v, gate = given.values()
            gates = {GATES[family]: gate}
            form = choose(q, k, v, **gates, backend="eager").form
            chosen = form if form != "chunked" else f"chunks of {best_chunk(Gates(**gates), shape[3])}"
            cells = (f"{found[name]:.2f}{'+' if name == chosen else ' '}" if name in found else "" for name in columns)
            print(f"{family:8}{', '.join(map(str, shape)):20}" + "".join(f"{cell:>15}" for cell in cells), flush=True)
            plain = min(time for name, time in found.items() if name != "native")
            ratios = {"auto": found["native"] / min(plain, found["native"])}
            ratios["auto without native kernels"] = found[chosen] / plain
            worst = {name: max(ratio, ratios[name]) for name, ratio in worst.items()}
    for name, ratio in worst.items():
        print(f"{name}: at most {ratio:.2f} times the fastest of its row")


if __name__ == "__main__":
    main()
