"""One call of a gated layer: its token weights, similarity, implicit attention, and their proof by reconstruction."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gladient._optional import require
from gladient.lens import weights
from gladient.lens.proof import Distances, Reconstruction, judge, measure
from gladient.lens.recurrence import Recurrence, Selection, resolve
from gladient.lens.summary import Summary, erase_cosines, join, summarise
from gladient.lens.wpgd import WPGDView

__all__ = ["Record"]

_PART_BYTES = 2**28  # of one request, where all is wanted in the end
_SQUARES = 4  # matrices of queries by tokens that a request holds at once
_BLOCKS = 4  # blocks of log weights
_OPERANDS = 12  # copies of what is linear in the tokens

_ROWS = 8  # neighbouring queries that are rebuilt at the beginning, in the middle and at the end


@dataclass(frozen=True, eq=False)
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
        max_bytes: the most memory that one request may take; see `bytes_for`.

    Convention: $\Gamma_{i \to t}$ is the product of the gates after token i up to t: the write at i is not gated at i.
    Source: "token weight" of arXiv 2504.04308; the delta rule's attention is derived, and proved by reconstruction.

    >>> ones, gates = torch.ones(1, 3, 1, 1), torch.tensor([1.0, 0.5, 0.25])[None, :, None]
    >>> output = torch.tensor([1.0, 1.5, 1.375]).view(1, 3, 1, 1)  # each half or quarter of the last, plus 1
    >>> x = Recurrence(ones, ones, ones, output, torch.arange(3), log_gates=gates.log())
    >>> record = Record("mixer", 0, "by hand", 0, x)
    >>> record
    Record(layer 0 'mixer', by hand, call 0, batch 1, 3 queries, 3 tokens, 1 heads, scalar gates)
    >>> record.gate_weights(queries=-1).tolist()
    [[[[0.125, 0.25, 1.0]]]]
    >>> record.reconstruction_error.passed
    True
    """

    module: str
    layer: int
    architecture: str
    call: int
    recurrence: Recurrence
    max_bytes: int = 2**31

    def __repr__(self) -> str:
        B, Q, H, T = self.shape
        turns = "" if self.recurrence.phase is None else ", turning"
        return (
            f"Record(layer {self.layer} {self.module!r}, {self.architecture}, call {self.call}, batch {B}, "
            f"{Q} queries, {T} tokens, {H} heads, {self.family} gates{turns})"
        )

    @property
    def heads(self) -> int:
        """How many heads the layer has."""
        return self.recurrence.heads

    @property
    def family(self) -> str:
        """The gates' family: none, scalar (one per head) or key (one per key channel)."""
        return self.recurrence.family

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the layer's output."""
        return self.recurrence.output.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Batch, captured queries, heads, tokens: B, Q, H, T."""
        x = self.recurrence
        return x.q.shape[0], x.q.shape[1], x.heads, x.tokens

    def bytes_for(self, heads: Selection = None, queries: Selection = None) -> int:
        """The most memory that one request takes, temporaries and result included; nothing is allocated to say it."""
        x, H = self.recurrence, len(resolve(heads, self.heads, "head"))
        B, T, K, V = x.q.shape[0], x.tokens, x.q.shape[3], x.v.shape[3]
        Q = len(x.positions) if queries is None else len(resolve(queries, T, "position"))
        rows = Q if x.separable else max(Q, weights.DELTA_TOKENS)  # the delta rule solves for some tokens at once
        squares, operands = _SQUARES * rows * T, _OPERANDS * (T + Q + 1) * (K + V)
        block = weights.block_bytes(B * H * (K if x.family == "key" else 1), rows, T)
        return 8 * B * H * (squares + operands) + _BLOCKS * block

    def gate_weights(
        self, heads: Selection = None, queries: Selection = None, *, channel: int | None = None
    ) -> Float[Tensor, "B H Q T"]:
        r"""The weight $\Gamma_{i \to t}$ that the gates give token i at query t; 0 for i > t.

        Layers with a gate for each key channel: the mean over channels, or one `channel`. For the delta rule this is
        its decay only, not its weights: writes in between erase besides. Float64 for float64 layers, float32 for
        others.

        Raises:
            ValueError: for a channel of a layer that has no gates for channels.
        """
        dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        return weights.gate_weights(self._ask(heads, queries), channel=self._channel(channel), dtype=dtype)

    def similarity(
        self, heads: Selection = None, queries: Selection = None, *, channel: int | None = None
    ) -> Float[Tensor, "B H Q T"]:
        """The ungated part, $q_t^T k_i$: times the gate weights, it is the implicit attention before normalising.

        Where key channels have their gates, so it is in each `channel`, and the attention is the sum of these.

        Raises:
            ValueError: for the delta rule, whose weights do not split into gates times similarity, or for a channel of
                a layer that has no gates for channels.
        """
        if not self.recurrence.separable:
            raise ValueError(
                f"{self.module} follows the delta rule, whose weights depend on the keys between i and t: gate and "
                "similarity do not separate; ask for implicit_attention, which is exact"
            )
        return weights.similarity(self._ask(heads, queries), channel=self._channel(channel))

    def signed_weights(
        self, heads: Selection = None, queries: Selection = None, *, channel: int | None = None
    ) -> Float[Tensor, "B H Q T"]:
        r"""Decay times the cosine of what turns between write and read: what Mamba-3's gates and angles weigh together.

        $$ \omega_{ti} = \frac{\sum_p |q_{tp}| |k_{ip}| \, \Gamma_{i \to t} \cos(\Phi_{tp} - \Phi_{ip})}
           {\sum_p |q_{tp}| |k_{ip}|} $$

        over pairs p of channels, each by the most that it can add to the attention; pairs that do not turn have a
        cosine of 1. Below 0, a token's write is read reversed. Of one `channel`: $\Gamma \cos$ of its pair.
        The implicit attention is not a product of it: where query and key point is apart from how far they turn.

        Raises:
            ValueError: for a layer that does not rotate.
        """
        if self.recurrence.phase is None:
            raise ValueError(f"{self.module} does not rotate: its weights have no sign; ask for gate_weights")
        chosen = None if channel is None else resolve(channel, self.recurrence.q.shape[3], "channel")[0]
        return weights.signed_weights(self._ask(heads, queries), channel=chosen)

    def implicit_attention(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B H Q T"]:
        """The exact weights of the values in the output: gates and similarity, normalised as the layer does."""
        return weights.implicit_attention(self._ask(heads, queries))

    def carry(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B Q H V"]:
        """What the state before the first token adds to each output."""
        return weights.carry(self._ask(heads, queries))

    def values(self, heads: Selection = None) -> Float[Tensor, "B T H V"]:
        """The values that the attention weighs."""
        return self.recurrence.select(heads).v

    def output(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B Q H V"]:
        """What the layer computed."""
        return self.recurrence.select(heads, queries).output

    def rebuild(self, heads: Selection = None, queries: Selection = None) -> Float[Tensor, "B Q H V"]:
        """The output from implicit attention: attention times values, carry, skip and output gate, in float64."""
        return weights.rebuild(self._ask(heads, queries))

    def reconstruction(self, heads: Selection = None, queries: Selection = None) -> Reconstruction:
        """The proof of some heads: their outputs at these queries are rebuilt and compared with the recurrence."""
        x = self._ask(heads, queries, double=False)
        return judge(x, measure(x, x.positions.tolist()))

    @cached_property
    def reconstruction_error(self) -> Reconstruction:
        """The proof of every head and captured query, in linear time.

        The layer's output is compared with the exact recurrence everywhere; the lens, whose weights are squares of
        tokens, at 24 queries: 8 neighbours each at the beginning, in the middle and at the end.
        """
        where = self.recurrence.positions.tolist()
        starts = {0, max(0, len(where) // 2 - _ROWS // 2), max(0, len(where) - _ROWS)}
        rows = sorted({position for start in starts for position in where[start : start + _ROWS]})
        size = max(1, min(_PART_BYTES, self.max_bytes) // max(self.bytes_for(0, rows), 1))
        parts = range(0, self.heads, size)
        measured = [measure(self.recurrence.select(slice(begin, begin + size)), rows) for begin in parts]
        return judge(self.recurrence, Distances.join(measured))

    def summary(self, heads: Selection = None, queries: Selection = None, *, last: int = 8) -> Summary:
        """Memory length, half-life, share of the last tokens, entropy, turns, erasing, closing tokens: `Summary`."""
        chosen = resolve(heads, self.heads, "head")
        size = max(1, min(_PART_BYTES, self.max_bytes) // max(self.bytes_for(0, queries), 1))
        parts = []
        for begin in range(0, len(chosen), size):
            parts.append(summarise(self._ask(chosen[begin : begin + size], queries, double=False), last=last))
        return join(parts)

    def erase_cosines(self, heads: Selection = None) -> tuple[Float[Tensor, "B T H"], Float[Tensor, "B T H"]]:
        """How far a delta rule erases from where it writes: two cosines with each token's write key.

        Returns:
            read: of the key by which it reads what to erase (RWKV-7's κ, Comba's p).
            place: of the key along which it takes that away (RWKV-7's rates · κ).
            Both are 1 for the plain delta rule, and NaN at tokens that erase nothing, such as padding.

        Raises:
            ValueError: for a layer without a delta rule.
        """
        if self.recurrence.separable:
            raise ValueError(f"{self.module} follows no delta rule: it erases nothing")
        return erase_cosines(self.recurrence.select(heads))

    def to_pandas(self, heads: Selection = None, queries: Selection = None) -> Any:
        """A table with a row for each text, head, query and token up to the query, and its weights in columns.

        The columns gate_weights, signed_weights (of layers that rotate), similarity (where it is apart from the gates)
        and implicit_attention are what the methods of these names give; head, query and token are positions.

        Raises:
            ImportError: if pandas is absent.
            ValueError: if that takes more than `max_bytes`.

        >>> from gladient import lens
        >>> one, half = torch.ones(1, 3, 1, 1), torch.full((1, 3, 1), 0.5).log()
        >>> lens.record(one, one, one, g=half).to_pandas(queries=-1)[["token", "gate_weights"]].values.tolist()
        [[0.0, 0.25], [1.0, 0.5], [2.0, 1.0]]
        """
        pandas = require("pandas", needed_for="a table of weights", install="pip install pandas")
        x = self.recurrence
        names = ["gate_weights", "signed_weights", "similarity", "implicit_attention"]
        absent = {"signed_weights": x.phase is None, "similarity": not x.separable}
        chosen = torch.tensor(resolve(heads, self.heads, "head"))
        positions = x.positions if queries is None else torch.tensor(resolve(queries, x.tokens, "position"))
        weights = {name: getattr(self, name)(heads, queries) for name in names if not absent.get(name)}
        seen = torch.arange(x.tokens) <= positions.cpu()[:, None]
        batch, head, query, token = seen.expand(len(x.q), len(chosen), -1, -1).nonzero(as_tuple=True)
        places = {"batch": batch, "head": chosen[head], "query": positions.cpu()[query], "token": token}
        values = {name: each.cpu()[batch, head, query, token] for name, each in weights.items()}
        return pandas.DataFrame({name: each.numpy(force=True) for name, each in {**places, **values}.items()})

    def wpgd_view(self, head: int, query: int, *, batch: int = 0) -> WPGDView:
        """The layer at one query as the step of weighted preconditioned gradient descent that it is."""
        return WPGDView.of(self._ask(head, query), batch)

    def _channel(self, channel: int | None) -> int | None:
        if channel is None:
            return None
        if self.family != "key":
            raise ValueError(f"{self.module} has {self.family} gates, none for channels; leave channel out")
        return resolve(channel, self.recurrence.q.shape[3], "channel")[0]

    def _ask(self, heads: Selection, queries: Selection, *, double: bool = True) -> Recurrence:
        need = self.bytes_for(heads, queries)
        if need > self.max_bytes:
            raise ValueError(
                f"this takes {need / 2**20:,.0f} MiB, more than max_bytes allows ({self.max_bytes / 2**20:,.0f} MiB); "
                f"ask for fewer heads or queries (there are {self.shape[2]} heads, {self.shape[1]} queries), "
                "or capture with a larger max_bytes"
            )
        x = self.recurrence.select(heads, queries)
        return x.double() if double else x
