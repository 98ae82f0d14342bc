"""What is measured: shapes, gate families and seeded inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gladient.ops import gated_delta_rule, gated_linear_attention, generalized_delta_rule, mamba3, rotate

__all__ = ["CASES", "Case", "inputs", "operator", "options", "reference"]


@dataclass(frozen=True)
class Case:
    """One shape and gate family.

    `last` asks for the last output only; `heads` is the number of heads of q and k, all H unless given; `delta` is the
    delta rule with the family's gates, `general` the generalised one. `turns` are of the
    queries alone, by `rotate`, or of all that `mamba3` computes. A case of one token (T = 1) takes and returns a state.
    """

    family: Literal["scalar", "key", "full", "rates"]
    B: int
    T: int
    H: int
    K: int
    V: int
    last: bool = False
    heads: int | None = None
    read: Literal["after", "before"] = "after"
    bonus: bool = False
    delta: bool = False
    general: bool = False
    turns: Literal["none", "rotate", "mamba3"] = "none"

    @property
    def step(self) -> bool:
        """Whether it is one token with a state."""
        return self.T == 1

    @property
    def title(self) -> str:
        """One line that names the case."""
        if self.turns != "none":
            return (
                f"{self.turns}, B={self.B} T={self.T} H={self.H} K={self.K} V={self.V}, {self.K // 4} angles per head"
            )
        what = "last query" if self.last else "one token" if self.step else "all outputs"
        rule = "delta rule, " if self.delta else "generalised delta rule, " if self.general else ""
        gates = f"{rule}{self.family} gates"
        gates = "rates A and step sizes dt" if self.family == "rates" else gates
        reads = f"read before{' with bonus' if self.bonus else ''}, " if self.read == "before" else ""
        heads = f", q and k in {self.heads}" if self.heads else ""
        return f"{gates}, {reads}{what}, B={self.B} T={self.T} H={self.H} K={self.K} V={self.V}{heads}"


CASES = {
    "scalar": Case("scalar", 8, 2048, 4, 64, 64),
    "key": Case("key", 8, 2048, 4, 64, 64),
    "last": Case("scalar", 1024, 50, 1, 11, 11, last=True),
    "rwkv6": Case("key", 8, 2048, 4, 64, 64, read="before", bonus=True),
    "mamba2": Case("scalar", 1, 1024, 24, 128, 64, heads=1),
    "mamba1": Case("rates", 1, 1024, 1, 16, 1536),
    "step-key": Case("key", 1, 1, 12, 64, 64),
    "step-mamba2": Case("scalar", 1, 1, 24, 128, 64, heads=1),
    "step-key-batch": Case("key", 64, 1, 4, 64, 64),
    "scalar-short": Case("scalar", 8, 512, 4, 64, 64),
    "scalar-long": Case("scalar", 8, 8192, 4, 64, 64),
    "key-short": Case("key", 8, 512, 4, 64, 64),
    "key-long": Case("key", 8, 8192, 4, 64, 64),
    "context": Case("scalar", 1024, 50, 1, 11, 11),
    "full": Case("full", 2, 512, 1, 16, 64),
    "delta": Case("scalar", 8, 2048, 4, 64, 64, delta=True),
    "delta-wide": Case("scalar", 1, 2048, 16, 128, 128, delta=True),
    "delta-short": Case("scalar", 1, 1024, 12, 128, 128, delta=True),
    "delta-last": Case("scalar", 1024, 50, 1, 11, 11, last=True, delta=True),
    "kda": Case("key", 8, 2048, 4, 64, 64, delta=True),
    "step-delta": Case("scalar", 1, 1, 12, 128, 128, delta=True),
    "rwkv7": Case("key", 1, 1024, 12, 64, 64, general=True),
    "rwkv7-last": Case("key", 1, 1024, 12, 64, 64, last=True, general=True),
    "step-rwkv7": Case("key", 1, 1, 12, 64, 64, general=True),
    "rotate": Case("scalar", 1, 1024, 12, 64, 64, turns="rotate"),
    "mamba3": Case("scalar", 1, 1024, 12, 64, 64, turns="mamba3"),
}
"""The cases that `python -m benchmarks.operators --cases` names."""


def inputs(case: Case) -> dict[str, Tensor]:
    """The operator's tensors by name, the same ones at every call."""
    generator = torch.Generator().manual_seed(0)
    B, T, H, K, V = case.B, case.T, case.H, case.K, case.V

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    q, k = (normal(B, T, case.heads or H, K) / K**0.5 for _ in range(2))
    made = {"q": q[:, -1:].clone() if case.last else q, "k": k, "v": normal(B, T, H, V)}
    if case.family == "rates":
        made |= {"A": -uniform(H, K, V), "dt": 0.001 + 0.099 * uniform(B, T, H, V)}
    elif case.family == "full":  # Mamba's A alone, which does not depend on the token
        made["G"] = (-0.1 * uniform(1, 1, H, K, V)).expand(B, T, -1, -1, -1).clone()
    elif case.family == "key":
        made["gk"] = -0.1 * uniform(B, T, H, K)
    else:
        made["g"] = -0.1 * uniform(B, T, H)
    if case.delta:
        made["k"] = torch.nn.functional.normalize(k, dim=-1)
        made["beta"] = uniform(B, T, H)
    if case.general:  # RWKV-7's: a key of length 1 is read, and erased along itself times rates
        kappa = torch.nn.functional.normalize(normal(B, T, H, K), dim=-1)
        made |= {"a": -kappa, "b": kappa * uniform(B, T, H, K)}
    if case.turns != "none":  # Mamba-3's: half of the pairs turn
        step = uniform(B, T, H)
        made |= {"step": step, "mix": uniform(B, T, H)}
        made["angles"] = math.pi * normal(B, T, 1, K // 4).tanh() * step[..., None]
    if case.turns == "rotate":
        made = {"x": made["q"], "angles": made["angles"]}
    if case.bonus:
        made["bonus"] = normal(H, K)
    if case.step:
        made["initial_state"] = normal(B, H, K, V)
    return made


def operator(case: Case) -> Callable[..., tuple[Tensor, Any]]:
    """Ours."""
    if case.turns != "none":
        return mamba3 if case.turns == "mamba3" else _rotate
    if case.general:
        return generalized_delta_rule
    return gated_delta_rule if case.delta else gated_linear_attention


def _rotate(x: Tensor, angles: Tensor) -> tuple[Tensor, None]:
    return rotate(x, angles), None


def options(case: Case) -> dict[str, Any]:
    """The operator's other arguments."""
    given: dict[str, Any] = {"form": "last_query"} if case.last else {}
    given |= {"output_final_state": True} if case.step else {}
    return given | ({"read": case.read} if case.read != "after" else {})


def reference(case: Case, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Ours in float64, which the tests hold against plain loops: the outputs, and the state after a step."""
    doubled: dict[str, Any] = {name: x.double() for name, x in tensors.items()}
    with torch.no_grad():
        o, state = operator(case)(**doubled, **options(case))
    return (o,) if state is None else (o, state)
