"""One call of a gated layer: its token weights, similarity, implicit attention, and their proof by reconstruction."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from gladient.lens import _weights
from gladient.lens._recurrence import Recurrence, Selection
from gladient.lens._summary import Summary, summarise
from gladient.lens._wpgd import WPGDView

__all__ = ["Reconstruction", "Record", "TOLERANCES"]

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@dataclass(frozen=True)
class Reconstruction:
    """How far the output rebuilt from implicit attention is from the layer's own.

    Attributes:
        error: ‖rebuilt - output‖ / ‖output‖ over the heads and queries asked for.
        tolerance: the bound for the layer's dtype.
    """

    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance (NaN is not)."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Record:
    r"""One call of one gated layer.

    Every method takes `heads` and `queries`: an index, a slice, a list, or None for all; what is as large as the
    square of the tokens is computed when it is asked for, and refused if it would take more than `max_bytes`.

    Attributes:
        module: the layer's name in the model.
        layer: its number in the model.
        architecture: the adapter that read it.
        call: 0 for the layer's first call in the capture, 1 for its second (decoding) …
        recurrence: the operands, as the layer computed them.
        max_bytes: the most memory that one request may take.

    Convention: $\Gamma_{i \to t}$ is the product of the gates after token i up to t: the write at i is not gated at i.
    Source: "token weight" of arXiv 2504.04308; the delta rule's attention is derived, and proved by reconstruction.
    """

    module: str
    layer: int
    architecture: str
    call: int
    recurrence: Recurrence
    max_bytes: int

    @property
    def dtype(self) -> torch.dtype:
        """Of the layer's output."""
        return self.recurrence.output.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, captured queries, heads, tokens: B, Q, H, T."""
        x = self.recurrence
        return x.q.shape[0], x.q.shape[1], x.heads, x.tokens

    def bytes_for(self, heads: Selection = None, queries: Selection = None) -> int:
        """Memory that one matrix of weights takes in float64, temporaries included, before it is computed."""
        x = self.recurrence.select(heads, queries)
        rows = (
            x.tokens if x.beta is not None else x.q.shape[1]
        )  # the delta rule solves for every token before the query
        return 8 * 4 * x.q.shape[0] * x.heads * rows * x.tokens

    def gate_weights(
        self, heads: Selection = None, queries: Selection = None, *, channel: int | None = None
    ) -> Float[Tensor, "B H Q T"]:
        r"""The weight $\Gamma_{i \to t}$ that the gates give token i at query t; 0 for i > t.

        Layers with a gate for each key channel: the mean over channels, or one `channel`. Float64 for float64
        layers, float32 for others.
        """
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        return _weights.gate_weights(self._ask(heads, queries), channel=channel, dtype=dtype)

    def similarity(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B H Q T"]:
        """The ungated part, $q_t^T k_i$.

        Raises:
            ValueError: for the delta rule, whose weights do not split into gates times similarity.
        """
        if not self.recurrence.separable:
            raise ValueError(
                f"{self.module} follows the delta rule, whose weights depend on the keys between i and t: gate and "
                "similarity do not separate; ask for implicit_attention, which is exact"
            )
        return _weights.similarity(self._ask(heads, queries))

    def implicit_attention(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B H Q T"]:
        """The exact weights of the values in the output: gates and similarity, normalised as the layer does."""
        return _weights.implicit_attention(self._ask(heads, queries))

    def carry(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B Q H V"]:
        """What the state before the first token adds to each output."""
        return _weights.carry(self._ask(heads, queries))

    def values(self, heads: Selection = None) -> Float[Tensor, "B T H V"]:
        """The values that the attention weighs."""
        return self.recurrence.select(heads).v

    def output(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B Q H V"]:
        """What the layer computed."""
        return self.recurrence.select(heads, queries).output

    def rebuild(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B Q H V"]:
        """The output from implicit attention: attention times values, carry, skip and output gate, in float64."""
        return _weights.rebuild(self._ask(heads, queries))

    def reconstruction(self, heads: Selection = None, queries: Selection = None) -> Reconstruction:
        """Rebuilds these heads' outputs from their implicit attention and compares them with the layer's own."""
        found, wanted = self.rebuild(heads, queries), self.output(heads, queries).double()
        error = torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted).clamp_min(1e-300)
        return Reconstruction(error.item(), TOLERANCES[self.dtype])

    @cached_property
    def reconstruction_error(self) -> Reconstruction:
        """`reconstruction` of every head and captured query, one head at a time."""
        squares = torch.zeros(2, dtype=torch.float64)
        for head in range(self.recurrence.heads):
            wanted = self.output(head).double()
            squares += torch.stack([(self.rebuild(head) - wanted).square().sum(), wanted.square().sum()]).cpu()
        return Reconstruction((squares[0] / squares[1].clamp_min(1e-300)).sqrt().item(), TOLERANCES[self.dtype])

    def summary(self, heads: Selection = None, queries: Selection = None, *, last: int = 8) -> Summary:
        """Memory length, half-life, share of the last tokens, entropy, closing tokens: see `Summary`."""
        x = self._ask(heads, queries)
        return summarise(_weights.gate_weights(x), x, last=last)

    def wpgd_view(self, head: int, query: int, *, batch: int = 0) -> WPGDView:
        """The layer at one query as the step of weighted preconditioned gradient descent that it is."""
        return WPGDView.of(self._ask(head, query), batch)

    def _ask(self, heads: Selection, queries: Selection) -> Recurrence:
        need = self.bytes_for(heads, queries)
        if need > self.max_bytes:
            raise ValueError(
                f"this takes {need / 2**20:,.0f} MiB, more than max_bytes allows ({self.max_bytes / 2**20:,.0f} MiB); "
                f"ask for fewer heads or queries (there are {self.shape[2]} heads, {self.shape[1]} queries), "
                "or capture with a larger max_bytes"
            )
        return self.recurrence.select(heads, queries).double()
