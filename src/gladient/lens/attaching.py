"""Attaches to a model's gated layers: every call is told of as a record, after what was attached before changed it."""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from gladient.lens.adapter import Adapter, Emit
from gladient.lens.answer import Answer
from gladient.lens.layers import Ungated, gated_layers, ungated_layers
from gladient.lens.records import Record
from gladient.lens.recurrence import Recurrence, Selection
from gladient.seams import SeamError, in_this_thread, recomputing, this_thread
from gladient.seams.architectures import TESTED

__all__ = ["Hear", "attached", "chosen_layers", "ran_elsewhere"]

Hear = Callable[[Record], Answer | None]
"""Is told of every call of a layer; returns the answer to hand on, None for no change."""

_open = threading.local()  # .sites: for each module what is attached to it in this thread, innermost last


@dataclass(eq=False)
class _Site:
    """One layer of one attachment.

    Attributes:
        below: what was attached to the layer before, and so is told of each call first.
        made: what its last call computes, after all changes so far; kept where somebody attached above asks for it.
        heard: whether somebody does.
        pending: the answer to its last call.
        calls: how many calls it was told of.
        elsewhere: whether the layer ran in another thread.
    """

    name: str
    number: int
    module: nn.Module
    adapter: Adapter
    below: "_Site | None" = None
    made: Recurrence | None = None
    heard: bool = False
    pending: Answer | None = None
    calls: int = 0
    elsewhere: bool = False

    def stand_on(self, below: "_Site | None") -> None:
        """From now on, asks what is attached there."""
        self.below = below
        if below is not None:
            below.heard = True

    def tell(self, hear: Hear, x: Recurrence) -> Answer | None:
        """Of a call, as what is attached below made it."""
        changed = self.below.made if self.below is not None else None
        x = x if changed is None else changed
        if x.positions.device != x.k.device:
            x = replace(x, positions=x.positions.to(x.k.device))
        again = recomputing()
        call = self.calls if not again else 0 if self.calls == 1 else -1  # of several, which one it is is not known
        self.calls += not again
        self.pending = answer = hear(Record(self.name, self.number, self.adapter.name, call, x))
        self.made = None if not self.heard else x if answer is None else answer.made
        return answer


@contextmanager
def attached(model: nn.Module, layers: Selection, hear: Hear, *, replace: bool = False) -> Iterator[list[_Site]]:
    """While the `with` lasts, `hear` is told of every call of the model's gated layers in this thread.

    Args:
        model: a model with gated layers.
        layers: numbers of the layers: one, some, or None for all.
        hear: is told.
        replace: whether its answers are handed on; it is then told on the graph, and of what a backward pass runs
            again, too, as call 0, or as call -1 where there were several and which one it is is not known.

    Raises:
        ValueError: if the model has no gated layer, or a layer does not exist.
        SeamError: if the installed transformers lacks a function that an adapter reads, or a layer ran without it.
    """
    sites = [_Site(*each) for each in chosen_layers(model, layers)]
    _check_transformers(model)
    with ExitStack() as entered:
        for site in sites:
            entered.enter_context(_announced(site, replace))
            # Adapters may hear by hooks of their own, which every thread runs.
            emit = Emit(in_this_thread(partial(site.tell, hear)), replace)
            try:
                entered.enter_context(site.adapter.attach(site.module, emit))
            except SeamError as error:
                raise SeamError(f"{site.name}: {error}; {_tested()}") from None
            if site.adapter.modules:  # others are read off their code, which may not call the operators every time
                entered.enter_context(_watched(site))
        yield sites


@contextmanager
def _announced(site: _Site, replace: bool) -> Iterator[None]:
    """Finds what is below the layer's site in this thread, and lets what is attached later find the site."""
    stacks: dict[int, list[_Site]] = _open.__dict__.setdefault("sites", {})
    stack = stacks.setdefault(id(site.module), [])
    site.stand_on(stack[-1] if stack else None)
    if replace:  # what only listens changes nothing for others
        stack.append(site)
    try:
        yield
    finally:
        site.made = None
        stack[:] = [each for each in stack if each is not site]
        for each in stack:
            if each.below is site:
                each.stand_on(site.below)
        if not stack:
            stacks.pop(id(site.module), None)


@contextmanager
def _watched(site: _Site) -> Iterator[None]:
    """Notices a layer that ran and told nothing, since its library has another path now, or in another thread."""
    counts: list[int] = []  # how many calls there were when the forwards began that run now
    thread = this_thread()

    def enter(*_: object) -> None:
        if this_thread() == thread:
            counts.append(site.calls)
        elif not recomputing():  # what a backward pass runs again was heard by the thread that ran it first
            site.elsewhere = True

    def leave(_module: nn.Module, _args: object, output: object) -> None:
        told = not counts or site.calls > counts.pop()  # no count: it was entered before this was attached
        if output is None or recomputing():
            return
        if not told:
            raise SeamError(f"{site.name} ran without calling the function that the lens reads; {_tested()}")
        if site.pending is not None and not site.pending.taken:
            raise SeamError(
                f"{site.name}: its adapter {site.adapter.name!r} only listens, so that nothing was changed; have it "
                "hear by emit.listener(read, write), on a seam with replace=emit.replace"
            )
        site.pending = None  # a graph may hang on it

    first = site.module.register_forward_pre_hook(enter)
    with first, site.module.register_forward_hook(in_this_thread(leave), always_call=True):
        yield


def ran_elsewhere(sites: Sequence[_Site], done: str) -> None:
    """Warns of layers that ran in other threads only, where nothing is heard; `done`: what was not done to them."""
    unheard = [site.name for site in sites if site.elsewhere and not site.calls]
    if unheard:
        warnings.warn(
            f"{min(unheard)} ran in another thread and was not {done} ({len(unheard)} such layers); the lens hears "
            "its own thread alone: open it in the thread that runs the model",
            stacklevel=4,
        )


def chosen_layers(model: nn.Module, layers: Selection) -> list[tuple[str, int, nn.Module, Adapter]]:
    """Name, number, module and adapter of the chosen of a model's gated layers.

    Raises:
        ValueError: if the model has none, or a chosen one does not exist.
    """
    found = gated_layers(model)
    numbers = sorted({number for _, number, _, _ in found})
    wanted = numbers if layers is None else _choose_layers(layers, numbers, ungated_layers(model))
    return [entry for entry in found if entry[1] in wanted]


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
        raise SeamError(
            f"transformers {transformers.__version__} has its scans elsewhere; {_tested()}: "
            f"pip install --upgrade 'transformers>={'.'.join(map(str, oldest))}'"
        )
    if version > newest:
        warnings.warn(
            f"transformers {transformers.__version__} is newer than the lens was tested with; {_tested()}; "
            "look at each record's reconstruction_error",
            stacklevel=6,
        )


def _tested() -> str:
    oldest, newest = (".".join(map(str, version)) for version in TESTED)
    return f"the lens was tested with transformers {oldest} to {newest}"
