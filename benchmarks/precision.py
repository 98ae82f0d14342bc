"""Float32 errors over 8192 steps, of outputs and of gradients, ours and the peers' on the same inputs.

`python -m benchmarks.precision` (a minute or two). Each figure is the largest difference from the float64 recurrence,
relative to its largest entry; of gradients, the worst of the inputs. Random: log gates uniform in [-0.1, 0];
adversarial: within 1e-4 of a gate of 1, and e^-50 at one step in a thousand.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gladient.cli._peers import contenders
from gladient.cli.bench import Case
from gladient.ops import gated_linear_attention

__all__: list[str] = []

B, T, K = 2, 8192, 16
NAMES = {"none": [], "fixed": ["g"], "scalar": ["g"], "key": ["gk"], "value": ["gv"], "key×value": ["gk", "gv"]}
NAMES |= {"full": ["G"]}
Operator = Callable[..., Tensor]


def inputs(family: str, adversarial: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
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


def ours(form: str, backend: str) -> Operator:
    return lambda **given: gated_linear_attention(**given, form=form, backend=backend)[0]


def entered(family: str) -> Iterator[tuple[str, Operator]]:
    """Every contender that computes this family; linear attention is scalar gates of 1 to the peers."""
    for form, backend in (("chunked", "native"), ("chunked", "torch"), ("recurrent", "torch")):
        yield f"gladient, {form}, {backend}", ours(form, backend)
    known = {"none": "scalar", "fixed": "scalar"}.get(family, family)
    if known not in ("scalar", "key", "full"):
        return
    for name, (is_ours, function) in contenders(Case(known, B, 1, 1, K, K)).items():
        if is_ours or "parallel" in name:  # a matrix of 8192² weights
            continue
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


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"{'gates':26}{'contender':34}{'outputs':>9}{'gradients':>11}")
    for family in NAMES:
        for adversarial in (False, True) if family != "none" else (False,):
            given = inputs(family, adversarial)
            upstream = torch.randn(B, T, 1, K)
            doubled: dict[str, Any] = {name: x.double() for name, x in given.items()}
            exact = results(ours("recurrent", "torch"), doubled, upstream)
            title = f"{family}{', adversarial' if adversarial else ''}"
            for name, function in entered(family):
                alone = name in ("fla naive recurrent", "transformers Mamba")  # T² time; a gradient of one A for all G
                found = results(function, given, upstream, alone)
                errors = [float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, exact, strict=False)]
                gradients = f"{max(errors[1:]):11.1e}" if errors[1:] else ""
                print(f"{title:26}{name:34}{errors[0]:9.1e}{gradients}", flush=True)
                title = ""


if __name__ == "__main__":
    main()
