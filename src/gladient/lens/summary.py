"""What a designer asks of token weights: how long a head remembers, how evenly, and who makes it forget."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gladient._optional import require
from gladient.lens.recurrence import Recurrence
from gladient.lens.weights import gate_weights, signed_weights

__all__ = ["Summary", "erase_cosines", "join", "summarise"]


_ERASING = ("erase_query", "erase_key")


@dataclass(frozen=True)
class Summary:
    r"""Summaries of gate weights for each head asked for, means over batch and queries.

    For the delta rule they speak of the gates alone: its writes forget besides, by overwriting.

    Attributes:
        mass: $\sum_i \Gamma_{i \to t}$: as how many tokens of weight 1 the gates count the past, [H].
        memory_length: $\sum_i (t - i) \Gamma_{i \to t} / \sum_i \Gamma_{i \to t}$: mean age of the weight, [H].
        half_life: how many tokens back the gates (input gates apart) last leave at least 1/2, [H].
        last: share of the weight on the last `last_tokens` tokens, [H].
        last_tokens: k of that share.
        entropy: entropy of the weight's distribution over tokens, in nats, [H].
        gate: the mean log gate at each token, -inf where one forgets all, [H, T]: its lowest entries close the gates.
        turn: $\sum_i \omega_{ti} / \sum_i \Gamma_{i \to t}$, what rotations leave of the weight, with its sign, [H]; 1
            where nothing turns. ω are `Record.signed_weights`.
        negative: share of |ω| that is negative, [H].
        erase_query: mean cosine of what is read to erase and the key that is written, over tokens that erase, [H]; NaN
            where none does, as in layers without a delta rule.
        erase_key: the same for where it is erased, [H].

    Gates of 1/2 throughout, at the last of four tokens (weights 1/8, 1/4, 1/2, 1):

    >>> from gladient.lens import Record, Recurrence
    >>> ones, gates = torch.ones(1, 4, 1, 1), torch.full((1, 4, 1), 0.5)
    >>> x = Recurrence(ones, ones, ones, ones, torch.arange(4), log_gates=gates.log())
    >>> found = Record("mixer", 0, "by hand", 0, x).summary(queries=3, last=2)
    >>> round(found.mass.item(), 6), round(found.last.item(), 6), found.half_life.item()
    (1.875, 0.8, 1.0)
    """

    mass: Float[Tensor, " H"]
    memory_length: Float[Tensor, " H"]
    half_life: Float[Tensor, " H"]
    last: Float[Tensor, " H"]
    last_tokens: int
    entropy: Float[Tensor, " H"]
    gate: Float[Tensor, "H T"]
    turn: Float[Tensor, " H"]
    negative: Float[Tensor, " H"]
    erase_query: Float[Tensor, " H"]
    erase_key: Float[Tensor, " H"]

    def closing_tokens(self, head: int, count: int = 5) -> list[int]:
        """The positions whose gates close most, most closed first; `head` counts those summarised."""
        return self.gate[head].argsort()[:count].tolist()

    def to_pandas(self) -> Any:
        """A table with a row for each head summarised, and a column for each number of it; `gate` is left out.

        Raises:
            ImportError: if pandas is absent.
        """
        pandas = require("pandas", needed_for="a table of a summary", install="pip install pandas")
        columns = {name: getattr(self, name).numpy(force=True) for name in _names() if name != "gate"}
        return pandas.DataFrame({"head": range(len(self.mass)), **columns, "last_tokens": self.last_tokens})


def summarise(given: Recurrence, *, last: int) -> Summary:
    """Summaries of the gate weights of a recurrence; ages are in steps, of which each may write several keys."""
    x = given.gates_alone().double()
    weights, step = gate_weights(x), torch.arange(x.tokens, device=x.k.device) // x.ranks
    age = (x.positions[:, None] // x.ranks - step).clamp_min(0).to(weights.dtype)
    mass = weights.sum(3).clamp_min(1e-300)
    plain = x.log_write is None and x.own is None
    decays = weights if plain else gate_weights(replace(x, log_write=None, own=None))
    held = decays >= 0.5 * (1 - 1e-6)  # a half that float32 gates made counts
    del decays
    gates = x.k.new_zeros(x.k.shape[:3]) if x.log_gates is None else x.log_gates
    gates = gates.mean(3) if gates.ndim == 4 else gates

    def per_head(values: Tensor) -> Tensor:
        return values.mean((0, 2))

    return Summary(
        mass=per_head(mass),
        memory_length=per_head(torch.einsum("bhqt,qt->bhq", weights, age) / mass),
        half_life=per_head(torch.where(held, age, 0.0).amax(3)),
        last=per_head(torch.einsum("bhqt,qt->bhq", weights, (age < last).to(weights.dtype)) / mass),
        last_tokens=last,
        entropy=per_head(torch.special.entr(weights).sum(3) / mass + mass.log()),
        gate=gates.mean(0).T,
        **_turns(given, mass),
        **{name: each.nanmean((0, 1)) for name, each in zip(_ERASING, erase_cosines(given), strict=True)},
    )


def _turns(given: Recurrence, mass: Float[Tensor, "B H Q"]) -> dict[str, Tensor]:
    if given.phase is None:
        return {"turn": mass.new_ones(given.heads), "negative": mass.new_zeros(given.heads)}
    signed = signed_weights(given.double())
    negative = signed.clamp_max(0).abs().sum(3) / signed.abs().sum(3).clamp_min(1e-300)
    return {"turn": (signed.sum(3) / mass).mean((0, 2)), "negative": negative.mean((0, 2))}


def erase_cosines(x: Recurrence) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T H"]]:
    """Of what is read to erase, and of where it is erased, with the key that is written; NaN where nothing is."""
    if x.beta is None:
        return (x.k.new_full(x.k.shape[:3], torch.nan, dtype=torch.float64),) * 2
    each = [(key.double(), x.k.double()) for key in x.erasing]
    read, place = (functional.cosine_similarity(*pair, dim=3).where(_both(*pair), torch.nan) for pair in each)
    return read, place


def _both(a: Tensor, b: Tensor) -> Tensor:
    return a.any(3) & b.any(3)


def join(parts: Sequence[Summary]) -> Summary:
    """The summary of the heads of all parts."""
    joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in _names()}
    return Summary(last_tokens=parts[0].last_tokens, **joined)


def _names() -> list[str]:
    """The fields that are tensors, whose first dimension is that of heads."""
    return [field.name for field in fields(Summary) if field.name != "last_tokens"]
