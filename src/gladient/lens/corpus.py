"""How long heads remember, text by text: one text may have few words that close a gate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gladient._optional import require
from gladient.lens.capturing import capture
from gladient.lens.records import Record
from gladient.lens.recurrence import Selection

__all__ = ["MemoryLengths", "memory_lengths", "spread_queries"]

_SUMMED = 64  # queries of a text whose mean is taken: more move it by less than texts differ


@dataclass(frozen=True)
class MemoryLengths:
    """Memory lengths of every head on each of some texts, in tokens.

    Attributes:
        lengths: by the number of the layer, [N, H].
    """

    lengths: dict[int, Float[Tensor, "N H"]]

    @property
    def texts(self) -> int:
        """How many texts there were."""
        return max(map(len, self.lengths.values()), default=0)

    def mean(self, layer: int) -> Float[Tensor, " H"]:
        """Over texts."""
        return self.lengths[layer].mean(0)

    def spread(self, layer: int) -> Float[Tensor, " H"]:
        """The standard deviation over texts."""
        return self.lengths[layer].std(0)

    def to_pandas(self) -> Any:
        """A table with a row for each head: layer, head, mean, spread, texts.

        Raises:
            ImportError: if pandas is absent.
        """
        pandas = require("pandas", needed_for="a table of memory lengths", install="pip install pandas")
        rows = [
            {"layer": layer, "head": head, "mean": mean, "spread": spread, "texts": self.texts}
            for layer in self.lengths
            for head, (mean, spread) in enumerate(
                zip(self.mean(layer).tolist(), self.spread(layer).tolist(), strict=True)
            )
        ]
        return pandas.DataFrame(rows)


def memory_lengths(
    model: nn.Module,
    texts: Sequence[Tensor],
    *,
    layers: Selection = None,
    on_text: Callable[[int, int], None] = lambda done, of: None,
    **options: Any,
) -> MemoryLengths:
    r"""The gates' memory length of every head on each of some texts.

    $$ \sum_i (t - i) \Gamma_{i \to t} / \sum_i \Gamma_{i \to t} $$

    is the mean age of the weight at t; of a text, the mean over up to 64 queries, spread evenly. A memory is no longer
    than its text: compare texts of one length.

    Args:
        model: a model with gated layers, called as `model(input_ids=…)`.
        texts: tokens of the texts, [T] each, at least two texts.
        layers: numbers of the layers to ask: one, some, or None for all.
        on_text: told after each text how many are done, of how many.
        options: what every call of the model is given besides.

    Raises:
        ValueError: if there are fewer than two texts, or the model has no gated layer.

    >>> from gladient.ops import gated_linear_attention
    >>> class Halves(nn.Module):
    ...     def forward(self, input_ids):
    ...         one = torch.ones(*input_ids.shape, 1, 1)
    ...         g = torch.where(input_ids > 0, 0.5, 1e-9).log()[..., None]
    ...         return gated_linear_attention(one, one, one, g=g)[0]
    >>> found = memory_lengths(Halves(), [torch.ones(200), torch.zeros(200)])
    >>> found.lengths[0].flatten().round(decimals=1).tolist()
    [1.0, 0.0]
    """
    if len(texts) < 2:
        raise ValueError(f"there are {len(texts)} texts; a spread over texts takes at least two")
    found: dict[int, list[Tensor]] = {}

    def hear(record: Record) -> None:
        if record.call == 0:
            summary = record.summary(queries=spread_queries(record))
            found.setdefault(record.layer, []).append(summary.memory_length.cpu())

    for done, text in enumerate(texts, 1):
        with torch.no_grad(), capture(model, layers=layers, on_record=hear):
            model(input_ids=text[None], **options)
        on_text(done, len(texts))
    return MemoryLengths({layer: torch.stack(each) for layer, each in sorted(found.items())})


def spread_queries(record: Record) -> list[int]:
    """At most 64 of its queries, spread evenly."""
    positions = record.recurrence.positions
    chosen = torch.linspace(0, len(positions) - 1, min(_SUMMED, len(positions))).round().long()
    return positions.cpu()[chosen].tolist()
