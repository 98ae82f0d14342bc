"""Looks into a model while it runs: one record for every call of a gated layer."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from gladient.lens.adapter import Emit
from gladient.lens.layers import Ungated, gated_layers, ungated_layers
from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence, Selection, resolve
from gladient.seams import SeamError, in_this_thread, recomputing, this_thread
from gladient.seams.architectures import TESTED

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
    found, ungated = gated_layers(model), ungated_layers(model)
    _check_transformers(model)
    numbers = sorted({number for _, number, _, _ in found})
    if layers is not None:
        wanted = _choose_layers(layers, numbers, ungated)
        found = [entry for entry in found if entry[1] in wanted]
    trace, calls, elsewhere = Trace(ungated=ungated), Counter[str](), set[str]()
    with ExitStack() as attached:
        for name, number, module, adapter in found:
            emit = _emitter(trace, calls, (name, number, adapter.name), positions, len(found), max_bytes, on_record)
            try:
                attached.enter_context(adapter.attach(module, emit))
            except SeamError as error:
                raise SeamError(f"{name}: {error}; {_tested()}") from None
            if adapter.modules:  # others are read off their code, which may not call the operators every time
                attached.enter_context(_watched(name, module, calls, elsewhere))
        yield trace
    _check_threads(elsewhere - calls.keys())


def _emitter(
    trace: Trace,
    calls: Counter[str],
    who: tuple[str, int, str],
    positions: Selection,
    layers: int,
    max_bytes: int,
    on_record: Callable[[Record], None] | None,
) -> Emit:
    name, number, architecture = who

    def emit(recurrence: Recurrence) -> None:
        kept = _detached(recurrence)
        if positions is not None:
            kept = kept.select(None, resolve(positions, kept.tokens, "position"))
        need = kept.nbytes if on_record else trace.nbytes + kept.nbytes * (layers - len(trace.layers))
        if need > max_bytes:
            raise ValueError(
                f"capturing {layers} layers keeps about {need / 2**20:,.0f} MiB, more than max_bytes allows "
                f"({max_bytes / 2**20:,.0f} MiB); capture fewer layers (layers=), shorter input, or raise max_bytes"
            )
        record = Record(name, number, architecture, calls[name], kept, max_bytes)
        calls[name] += 1
        (on_record or trace.records.append)(record)

    return in_this_thread(emit)  # adapters may hear by hooks of their own, which every thread runs


def _detached(recurrence: Recurrence) -> Recurrence:
    """Off the graph; initial states copied, since caches are written in place afterwards."""
    tensors: dict[str, Any] = {
        name: value.detach() for name, value in vars(recurrence).items() if isinstance(value, Tensor)
    }
    copies = {name: value.clone() for name, value in tensors.items() if name.startswith("initial_")}
    return replace(recurrence, **tensors | copies | {"positions": recurrence.positions.to(recurrence.k.device)})


@contextmanager
def _watched(name: str, module: nn.Module, calls: Counter[str], elsewhere: set[str]) -> Iterator[None]:
    """Notices a layer that ran and told nothing, since its library has another path now, or in another thread."""
    counts: list[int] = []  # how many calls there were when the forwards began that run now
    thread = this_thread()

    def enter(*_: object) -> None:
        if this_thread() == thread:
            counts.append(calls.get(name, 0))
        elif not recomputing():  # what a backward pass runs again was heard by the thread that ran it first
            elsewhere.add(name)

    def leave(_module: nn.Module, _args: object, output: object) -> None:
        told = not counts or calls.get(name, 0) > counts.pop()  # no count: it was entered before the capture
        if not told and output is not None and not recomputing():
            raise SeamError(f"{name} ran without calling the function that the lens reads; {_tested()}")

    first = module.register_forward_pre_hook(enter)
    with first, module.register_forward_hook(in_this_thread(leave), always_call=True):
        yield


def _check_threads(unheard: set[str]) -> None:
    if unheard:
        warnings.warn(
            f"{min(unheard)} ran in another thread and was not captured ({len(unheard)} such layers); a capture hears "
            "its own thread alone: open it in the thread that runs the model",
            stacklevel=4,
        )


def _choose_layers(layers: Selection, numbers: Sequence[int], ungated: Sequence[Ungated]) -> list[int]:
    if isinstance(layers, slice):
        return list(numbers)[layers]
    wanted = [layers] if isinstance(layers, int) else list(layers or ())
    wrong = [number for number in wanted if number not in numbers]
    if wrong:
        kind = next((f" but attention ({each.kind})" for each in ungated if each.layer == wrong[0]), "")
        raise ValueError(f"layer {wrong[0]} is not a gated layer{kind}; gated layers are {list(numbers)}")
    return wanted


def _check_transformers(model: nn.Module) -> None:
    if not any(cls.__module__.startswith("transformers.") for m in model.modules() for cls in type(m).__mro__):
        return
    import transformers

    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    oldest, newest = TESTED
    if version < oldest:
        raise SeamError(f"transformers {transformers.__version__} has its scans elsewhere; {_tested()}")
    if version > newest:
        warnings.warn(
            f"transformers {transformers.__version__} is newer than the lens was tested with; {_tested()}; "
            "look at each record's reconstruction_error",
            stacklevel=3,
        )


def _tested() -> str:
    oldest, newest = (".".join(map(str, version)) for version in TESTED)
    return f"the lens was tested with transformers {oldest} to {newest}"
