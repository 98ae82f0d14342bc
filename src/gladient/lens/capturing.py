"""Looks into a model while it runs: one record for every call of a gated layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from gladient.lens.attaching import attached, ran_elsewhere
from gladient.lens.layers import Ungated, ungated_layers
from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence, Selection, resolve
from gladient.seams import SeamError

__all__ = ["SeamError", "Trace", "capture"]


@dataclass
class Trace:
    """The records of a capture, in the order in which layers ran.

    Printed, it is a table that proves every record, and names the layers that have no gates: `lens` is the rebuilt
    output's distance from the exact recurrence, `rounding` that of the layer's own.

    Attributes:
        records: one for each call of a gated layer.
        ungated: the model's layers of attention.

    >>> Trace().layers, Trace().passed
    ([], True)
    >>> print(Trace())
    layer  call  architecture          heads  queries  tokens     lens  rounding
    """

    records: list[Record] = field(default_factory=list)
    ungated: Sequence[Ungated] = ()

    @property
    def layers(self) -> list[int]:
        """Numbers of the layers that have records."""
        return sorted({record.layer for record in self.records})

    def layer(self, number: int, *, call: int = 0) -> Record:
        """The record of a layer's call.

        Raises:
            ValueError: if there is none.
        """
        found = [record for record in self.records if record.layer == number and record.call == call]
        if not found:
            raise ValueError(
                f"layer {number} has no record of call {call}; captured layers: {self.layers or 'none'} "
                f"({len(self.records)} records); capture with layers=None for all, and run the model inside the `with`"
            )
        return found[0]

    @property
    def passed(self) -> bool:
        """Whether every record is proved."""
        return all(record.reconstruction_error.passed for record in self.records)

    def __str__(self) -> str:
        lines = ["layer  call  architecture          heads  queries  tokens     lens  rounding"]
        for record in self.records:
            _, queries, heads, tokens = record.shape
            found = record.reconstruction_error
            lines.append(
                f"{record.layer:>5}  {record.call:>4}  {record.architecture:<20}  {heads:>5}  {queries:>7}  {tokens:>6}"
                f"  {found.lens:.1e}   {found.error:.1e}{'' if found.passed else ' fails'}"
            )
        lines += [f"{layer.layer:>5}     -  {layer.kind:<20}  not gated" for layer in self.ungated]
        return "\n".join(lines)

    @property
    def nbytes(self) -> int:
        """Memory that the records keep alive."""
        return sum(record.recurrence.nbytes for record in self.records)


@contextmanager
def capture(
    model: nn.Module,
    *,
    layers: Selection = None,
    positions: Selection = None,
    max_bytes: int = 2**31,
    on_record: Callable[[Record], None] | None = None,
) -> Iterator[Trace]:
    """While the `with` lasts, keeps the operands of every call of the model's gated layers.

    The model's outputs do not change by one bit. Kept are operands, linear in the tokens and off the graph; weights are
    formed when a record is asked for them. What a backward pass runs again (gradient checkpointing) makes no records.

    A capture hears the thread that opened it alone: threads may share a model, each with a capture of its own. Where
    layers ran in other threads only, so that nothing was heard of them, a warning says so.

    Args:
        model: a model with gated layers; see `supported`.
        layers: numbers of the layers to capture: one, some, or None for all.
        positions: the queries to keep of each call: one, some, or None for all.
        max_bytes: the most memory that records may keep, and that one request for weights may take.
        on_record: told of each record as soon as its layer has run; the trace then keeps none, so that a model's
            operands need not be in memory together.

    Yields:
        The trace; its records appear as layers run.

    Raises:
        ValueError: if the model has no gated layer, a layer does not exist, or the records would take more than
            `max_bytes` (said when the first layer has run).
        SeamError: if the installed transformers lacks a function that an adapter reads, or a layer ran without it.
    """
    trace = Trace(ungated=ungated_layers(model))

    def hear(record: Record) -> None:
        kept = _detached(record.recurrence)
        if positions is not None:
            kept = kept.select(None, resolve(positions, kept.tokens, "position"))
        need = kept.nbytes if on_record else trace.nbytes + kept.nbytes * (len(sites) - len(trace.layers))
        if need > max_bytes:
            raise ValueError(
                f"capturing {len(sites)} layers keeps about {need / 2**20:,.0f} MiB, more than max_bytes allows "
                f"({max_bytes / 2**20:,.0f} MiB); capture fewer layers (layers=), shorter input, or raise max_bytes"
            )
        (on_record or trace.records.append)(replace(record, recurrence=kept, max_bytes=max_bytes))

    with attached(model, layers, hear) as sites:
        yield trace
    ran_elsewhere(sites, "captured")


def _detached(recurrence: Recurrence) -> Recurrence:
    """Off the graph; initial states copied, since caches are written in place afterwards."""
    tensors: dict[str, Any] = {
        name: value.detach() for name, value in vars(recurrence).items() if isinstance(value, Tensor)
    }
    copies = {name: value.clone() for name, value in tensors.items() if name.startswith("initial_")}
    return replace(recurrence, **tensors | copies)
