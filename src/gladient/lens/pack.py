"""Records as the operands that a page computes weights from: linear in the tokens, in few bytes each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._text import json_text
from gladient.lens import weights
from gladient.lens.corpus import spread_queries
from gladient.lens.encode import FINE, Logs, Rows, encode_single
from gladient.lens.exact import compute_exact
from gladient.lens.proof import Reconstruction
from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence, resolve

__all__ = ["PageLayer", "keep", "moved"]

_SIZES = (127, 31)  # steps of the sizes of values, in layers that are kept in FINE steps and in others
_PHASE = 127  # the fewest steps of a phase: π / 254 is as far as one is off


@dataclass(frozen=True)
class PageLayer:
    """What a page shows of a layer's call on one text, in a small part of the memory that its record takes.

    Attributes:
        facts: what is said of it, as JSON values.
        reconstruction_error: its record's proof.
        tokens: how many it read.
        rows: queries, keys and what is erased.
        gates: log gates, if it has any.
        singles: what is kept in float32, the first dimension that of heads.
        sizes: the values' sizes, a row for each head.
        phases: by how much each pair of channels is turned, if any, in (-π, π].
        outputs: what the heads computed, [H, T, V], if it is to be compared; the page itself does not hold it.
    """

    facts: dict[str, Any]
    reconstruction_error: Reconstruction
    tokens: int
    rows: dict[str, Rows]
    gates: Logs | None
    singles: dict[str, Tensor]
    sizes: Rows
    phases: Rows | None = None
    outputs: Tensor | None = None

    @property
    def different(self) -> int:
        """How many different keys its heads have."""
        return len(set(self.rows["k"].of or ()))

    def some(self, heads: int | Sequence[int]) -> "PageLayer":
        """The same for at most so many heads, spread from the shortest memory to the longest; or for these."""
        lengths = torch.tensor([head["memory_length"] for head in self.facts["summary"]])
        kept = self.facts["heads"]
        places = _spread(lengths, heads) if isinstance(heads, int) else [kept.index(head) for head in heads]
        chosen = {name: [self.facts[name][place] for place in places] for name in ("heads", "summary")}
        return replace(
            self,
            facts=self.facts | chosen,
            rows={name: each.some(places) for name, each in self.rows.items()},
            gates=None if self.gates is None else self.gates.some(places),
            singles={name: each[places] for name, each in self.singles.items()},
            sizes=self.sizes.some(places),
            phases=None if self.phases is None else self.phases.some(places),
            outputs=None if self.outputs is None else self.outputs[places],
        )

    def encode(self, steps: int) -> dict[str, Any]:
        """As JSON values, with queries and keys in so many steps: see `Rows`."""
        rows = {name: each.encode(steps) for name, each in self.rows.items()}
        off = (sum(self.rows[name].distance(steps) ** 2 for name in ("q", "k")) / self.facts["size"]) ** 0.5
        return {**self.facts, "steps": steps, "off": off, **rows, **self._others(steps)}

    def size(self, steps: int) -> float:
        """About how many characters that takes."""
        others = sum(len(text) for each in self._others(steps).values() for text in each.values() if type(text) is str)
        return len(json_text(self.facts)) + others + sum(each.size(steps) for each in self.rows.values())

    def _others(self, steps: int) -> dict[str, Any]:
        gates = {} if self.gates is None else {"gates": self.gates.encode(steps)}
        singles = {name: encode_single(each) for name, each in self.singles.items()}
        phases = {} if self.phases is None else {"phase": self.phases.encode(max(steps, _PHASE))}
        return {**gates, **singles, **phases, "sizes": self.sizes.encode(_SIZES[steps != FINE])}


def keep(record: Record, *, heads: int | Sequence[int] = 32, last: int = 8, outputs: bool = False) -> PageLayer:
    """Proves a layer and keeps of it what a page shows: `lens.capture(model, on_record=…)` may do so layer by layer.

    Args:
        record: one call on one text, with all queries.
        heads: the most heads to keep, spread evenly from the one that forgets fastest to the slowest; or which ones.
        last: k of the share of the weight on the last k tokens.
        outputs: keep what the heads computed too, so that the page can say how far a change moves it.

    Raises:
        ValueError: if the call had several texts, queries were left out of the capture, or no head is kept.
    """
    x = record.recurrence
    if x.ranks > 1:
        raise ValueError(
            f"{record.module} writes {x.ranks} keys for each token; a page shows layers that write one: ask the record"
        )
    if heads == 0 or (isinstance(heads, int) and heads < 0):
        raise ValueError(f"heads is {heads}; a page shows at least 1 of each layer")
    if x.q.shape[0] != 1 or x.q.shape[1] != x.tokens:
        raise ValueError(
            f"{record.module} has {x.q.shape[0]} texts and {x.q.shape[1]} of {x.tokens} queries; a page shows one "
            "text: capture a batch of 1 with positions=None"
        )
    proof = record.reconstruction_error
    chosen = _choose_heads(x, heads) if isinstance(heads, int) else resolve(heads, x.heads, "head")
    facts = {
        "layer": record.layer,
        "module": record.module,
        "architecture": record.architecture,
        "family": x.family,
        "separable": x.separable,
        "before": x.read == "before",
        "of": x.heads,
        "heads": chosen,
        "last": last,
        "reconstruction": {**vars(proof), "passed": proof.passed},
        "summary": _summarise(record, chosen, last),
        "size": int(x.k.shape[3]),
        "pairs": "" if x.phase is None else x.pairs,
        "apart": x.erase_query is not None or x.erase_key is not None,
        "erases_before": x.erase_read == "before",
    }
    some, phase = x.select(chosen).turned, x.select(chosen).phase
    named = {name: getattr(some, name) for name in ("q", "k", "erase_query", "erase_key")}
    rows = {name: Rows.of_heads(value[0]) for name, value in named.items() if value is not None}
    sizes = Rows.of_rows(some.v[0].double().square().sum(2).sqrt().T)
    phases = None if phase is None else Rows.of_heads(torch.remainder(phase[0] + math.pi, 2 * math.pi) - math.pi)
    computed = x.output[0, :, chosen].movedim(1, 0).float() if outputs else None
    return PageLayer(facts, proof, x.tokens, rows, _logs(some), _singles(some), sizes, phases, computed)


def moved(before: PageLayer, after: PageLayer) -> Float[Tensor, "H T"] | None:
    r"""How far each head's output is from what it was, $\|o'_t - o_t\|$ over the root mean square of $\|o_t\|$.

    None without outputs of both; NaN for heads that the first lacks, and where it gave 0 throughout.
    """
    if before.outputs is None or after.outputs is None:
        return None
    places = [
        before.facts["heads"].index(head) if head in before.facts["heads"] else -1 for head in after.facts["heads"]
    ]
    was = before.outputs[places]
    far = (after.outputs - was).norm(dim=2) / was.square().sum(2).mean(1, keepdim=True).sqrt()
    absent = torch.tensor(places)[:, None] < 0
    return torch.where(absent | far.isinf(), torch.nan, far)


def _choose_heads(x: Recurrence, most: int) -> list[int]:
    """At most so many heads, spread evenly from the one that forgets fastest to the slowest; all if they fit.

    >>> q, gates = torch.ones(1, 2, 5, 1), torch.tensor([-4.0, -1, 0, -3, -2]).expand(1, 2, 5)
    >>> _choose_heads(Recurrence(q, q, q, q, torch.arange(2), log_gates=gates), 3)
    [0, 2, 4]
    """
    return list(range(x.heads)) if x.heads <= most else _spread(_mean_log_gate(x), most)


def _spread(x: Tensor, most: int) -> list[int]:
    """The places of at most so many entries, from the least to the largest."""
    return sorted(x.argsort()[torch.linspace(0, len(x) - 1, min(most, len(x))).round().long()].tolist())


def _summarise(record: Record, heads: list[int], last: int) -> list[dict[str, Any]]:
    found = record.summary(heads, spread_queries(record), last=last)
    names, x = ["mass", "memory_length", "half_life", "last", "entropy"], record.recurrence
    names += ["turn", "negative"] if x.phase is not None else []
    names += ["erase_query", "erase_key"] if x.beta is not None else []
    gated = x.log_gates is not None
    return [
        {name: getattr(found, name)[place].item() for name in names}
        | {"closing": found.closing_tokens(place) if gated else []}
        for place in range(len(heads))
    ]


def _logs(x: Recurrence) -> Logs | None:
    gates, rate = _gates(x)
    return None if gates is None else Logs.of_heads(gates[0], 1.0 if rate is None else rate.abs().max().item())


def _singles(x: Recurrence) -> dict[str, Tensor]:
    found, (_, rate) = dict[str, Tensor](), _gates(x)
    if rate is not None:
        found["rate"] = rate
    if x.log_write is not None:
        found["write"] = x.log_write[0].T
    if x.beta is not None:
        found["beta"] = x.beta[0].T
    if x.own is not None:
        found["own"] = x.own[0].T
    if x.bonus is not None:
        found["bonus"] = x.bonus
    if x.normalise != "none":
        doubled = x.double()
        found["norm"] = 1 / compute_exact(doubled).normaliser[0].T
        found["scale"] = weights.largest_log_weight(doubled)[0]
    return {name: value.detach().float() for name, value in found.items()}


def _gates(x: Recurrence) -> tuple[Tensor | None, Tensor | None]:
    """Log gates [B, T, H] or [B, T, H, K], and the rates [H, K] that they have yet to be multiplied by, if any."""
    if x.log_gates is None or x.rate is None:
        return x.log_gates, None
    if x.rate.ndim == 2 and x.log_gates.ndim == 3:
        return x.log_gates, x.rate
    return x.log_decay, None


def _mean_log_gate(x: Recurrence) -> Float[Tensor, " H"]:
    """Without multiplying rates out over tokens; heads without gates remember all."""
    gates, rate = _gates(x)
    if gates is None:
        return torch.zeros(x.heads)
    means = gates.double().clamp_min(-1e6).mean((0, 1))
    means = means if rate is None else means[:, None] * rate.double()
    return means if means.ndim == 1 else means.mean(1)
