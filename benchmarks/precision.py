"""Float32 errors over 8192 steps, of outputs and of gradients, ours and the peers' on the same inputs.

`python -m benchmarks.precision` (some minutes). Differences from the float64 recurrence, the worst of three seeds: the
root mean square relative to that of the exact result, and the largest relative to its largest entry; of gradients, the
worst of the inputs. Random: log gates uniform in [-0.1, 0]; adversarial: gates within 1e-4 of 1, and e^-50 at one step
in a thousand. The last line names every peer with a smaller root mean square than the native kernels.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.operators.cases import Case
from benchmarks.operators.peers import contenders
from gladient.ops import Backend, Form, gated_linear_attention

__all__: list[str] = []

B, T, K, SEEDS = 2, 8192, 16, 3
NAMES = {"none": [], "fixed": ["g"], "scalar": ["g"], "key": ["gk"], "value": ["gv"], "key×value": ["gk", "gv"]}
NAMES |= {"full": ["G"]}
Operator = Callable[..., Tensor]


def inputs(family: str, adversarial: bool, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    made = {name: torch.randn(B, T, 1, K) for name in ("q", "k", "v")}
    for name in NAMES[family]:
        shape = {"g": (B, T, 1), "G": (B, T, 1, K, K)}.get(name, (B, T, 1, K))
        gates = -0.1 * torch.rand(shape)
        if adversarial:
            gates = torch.where(torch.rand(shape) < 1e-3, -50.0, 1e-3 * gates)
        if family == "fixed":  # a gate whose float32 rounding is the same at every step
            gates[:] = -1e-4 if adversarial else -0.02
        if name == "G":  # Mamba's does not depend on the token
            gates[:] = gates[:1, :1].clone()
        made[name] = gates
    return made


def ours(form: Form, backend: Backend) -> Operator:
    return lambda **given: gated_linear_attention(**given, form=form, backend=backend)[0]


def entered(family: str) -> Iterator[tuple[str, Operator]]:
    """Every contender that computes this family; linear attention is scalar gates of 1 to the peers."""
    ways: list[tuple[Form, Backend]] = [("chunked", "native"), ("chunked", "eager"), ("recurrent", "eager")]
    for form, backend in ways:
        yield f"gladient, {form}, {backend}", ours(form, backend)
    known: Any = {"none": "scalar", "fixed": "scalar"}.get(family, family)
    if known not in ("scalar", "key", "full"):
        return
    for name, contender in contenders(Case(known, B, 64, 1, K, K)).items():
        if contender.kind not in ("installed", "eager") or "parallel" in name:  # a matrix of 8192² weights
            continue

        def function(operator: Any = contender.operator, **given: Tensor) -> Tensor:
            return operator(**given)[0]

        if family == "none":
            yield name, lambda function=function, **given: function(**given, g=torch.zeros(B, T, 1))
        else:
            yield name, function


def results(function: Operator, given: dict[str, Tensor], upstream: Tensor, outputs_only: bool = False) -> list[Tensor]:
    if outputs_only:
        with torch.no_grad():
            return [function(**given)]
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    o = function(**leaves)
    gradients = torch.autograd.grad(o, list(leaves.values()), upstream.to(o.dtype), allow_unused=True)
    return [
        o.detach(),
        *(torch.zeros_like(x) if d is None else d for d, x in zip(gradients, leaves.values(), strict=True)),
    ]


def errors(found: Tensor, exact: Tensor) -> tuple[float, float]:
    """Root mean square and largest error, relative to those of the exact result."""
    off = found - exact
    return float(off.square().mean().sqrt() / exact.square().mean().sqrt()), float(off.abs().max() / exact.abs().max())


def measured(family: str, adversarial: bool) -> dict[str, list[tuple[float, float]]]:
    """For each contender the largest error over all seeds, in its outputs and in its worst gradient."""
    table: dict[str, list[tuple[float, float]]] = {}
    for seed in range(SEEDS):
        given = inputs(family, adversarial, seed)
        upstream = torch.randn(B, T, 1, K)
        doubled: dict[str, Any] = {name: x.double() for name, x in given.items()}
        exact = results(ours("chunked", "native"), doubled, upstream)  # equal to plain loops: the law tests
        for name, function in entered(family):
            alone = name == "transformers Mamba"  # its gradient is that of one A for all G
            found = results(function, given, upstream, alone)
            pairs = [errors(x, y) for x, y in zip(found, exact, strict=False)]
            rows = [pairs[0], tuple(map(max, zip(*pairs[1:], strict=True))) if pairs[1:] else (math.nan, math.nan)]
            before = table.get(name, rows)
            table[name] = [(max(x[0], y[0]), max(x[1], y[1])) for x, y in zip(before, rows, strict=True)]
    return table


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"{'gates':24}{'contender':33}{'outputs rms':>12}{'max':>9}{'gradients rms':>15}{'max':>9}")
    closer = []
    for family in NAMES:
        for adversarial in (False, True) if family != "none" else (False,):
            title = f"{family}{', adversarial' if adversarial else ''}"
            table = measured(family, adversarial)
            for i, (name, ((o, o_max), (d, d_max))) in enumerate(table.items()):
                gradients = f"{d:15.2e}{d_max:9.1e}" if d == d else ""
                print(f"{'' if i else title:24}{name:33}{o:12.2e}{o_max:9.1e}{gradients}", flush=True)
            native, *others = table.items()
            for name, row in others:
                for kind, here, there in zip(("outputs", "gradients"), native[1], row, strict=True):
                    if not name.startswith("gladient") and there[0] < here[0]:
                        closer.append(f"{title}: {kind} of {name}, {there[0]:.2e} to {here[0]:.2e}")
    print("closer than the native kernels: " + ("; ".join(closer) or "no peer"))


if __name__ == "__main__":
    main()
