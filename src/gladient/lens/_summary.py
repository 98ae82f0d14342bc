"""What a designer asks of token weights: how long a head remembers, how evenly, and who makes it forget."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens._recurrence import Recurrence

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True)
class Summary:
    r"""Summaries of gate weights for each head, means over batch and queries.

    Attributes:
        mass: $\sum_i \Gamma_{i \to t}$: as how many tokens of weight 1 the gates count the past, [H].
        memory_length: $\sum_i (t - i) \Gamma_{i \to t} / \sum_i \Gamma_{i \to t}$: mean age of the weight, [H].
        half_life: how many tokens back the weight last is at least 1/2 of the current token's, [H].
        last: share of the weight on the last `last_tokens` tokens, [H].
        last_tokens: k of that share.
        entropy: of the weight's distribution over tokens, in nats, [H].
        gate: the mean log gate at each token, -inf where one forgets all, [H, T]: its lowest entries close the gates.
    """

    mass: Float[Tensor, " H"]
    memory_length: Float[Tensor, " H"]
    half_life: Float[Tensor, " H"]
    last: Float[Tensor, " H"]
    last_tokens: int
    entropy: Float[Tensor, " H"]
    gate: Float[Tensor, "H T"]

    def closing_tokens(self, head: int, count: int = 5) -> list[int]:
        """The positions whose gates close most, most closed first."""
        return self.gate[head].argsort()[:count].tolist()


def summarise(weights: Float[Tensor, "B H Q T"], x: Recurrence, *, last: int) -> Summary:
    """Summaries of the gate weights of `x`."""
    age = (x.positions[:, None] - torch.arange(x.tokens, device=x.k.device)).clamp_min(0).to(weights.dtype)
    mass = weights.sum(3)
    share = weights / mass.clamp_min(1e-300)[..., None]
    current = weights.gather(3, x.positions.expand(*weights.shape[:2], -1)[..., None])
    held = (weights >= current / 2) & (age < x.positions[:, None] + 1)
    gates = x.k.new_zeros(x.k.shape[:3]) if x.log_gates is None else x.log_gates
    gates = gates.mean(3) if gates.ndim == 4 else gates

    def per_head(values: Tensor) -> Tensor:
        return values.mean((0, 2))

    return Summary(
        mass=per_head(mass),
        memory_length=per_head((share * age).sum(3)),
        half_life=per_head((age * held).amax(3)),
        last=per_head((share * (age < last)).sum(3)),
        last_tokens=last,
        entropy=per_head(torch.special.entr(share).sum(3)),
        gate=gates.mean(0).T,
    )
