"""This package's operators, whichever module calls them: all gates, delta rules, rotations, the last query alone.

Its own layers are run by models past their forward, through the methods named here.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit
from gladient.lens.operands import recurrence_of
from gladient.lens.turning import Turn, mamba3_recurrence, unturned
from gladient.ops import dispatch, rotation
from gladient.seams import SeamError, on_function, on_method

__all__ = ["ADAPTER", "OPERATORS"]

_TURNS = 4  # rotations that are kept until the call comes that they are for: queries, keys, two to erase by
_PAST_FORWARD = ("scan", "read_last", "written")


@contextmanager
def _attach(module: nn.Module, emit: Emit, *, ours: bool = False) -> Iterator[None]:
    """Rotations are heard in `rotate`; `ours` are layers that turn in their own module, too."""
    turns = deque[Turn](maxlen=_TURNS)

    def turn(heard: dict[str, Any], result: Tensor) -> None:
        turns.append(Turn(result, heard["x"], heard["phase"], heard["pairs"]))

    def listen(heard: dict[str, Any], result: Any) -> None:
        call = heard["call"]
        state = heard["initial_state"] if call.inplace else call.initial_state
        call, phase, pairs = unturned(call, turns)
        turns.clear()
        found = recurrence_of(call, result[0], state, phase)
        emit(found if phase is None else replace(found, pairs=pairs))

    def listen_mamba3(heard: dict[str, Any], result: Any) -> None:
        turns.clear()
        emit(mamba3_recurrence(heard["call"], result[0]))

    with ExitStack() as seams:
        seams.enter_context(on_function(module, "run_call", listen, home=dispatch, changes=("initial_state",)))
        seams.enter_context(on_function(module, "turned", turn, home=rotation))
        seams.enter_context(on_function(module, "run_mamba3", listen_mamba3, home=rotation))
        if ours:
            with suppress(SeamError):  # a module that does not turn
                seams.enter_context(on_function(module, "turned", turn))
        yield


@contextmanager
def _attach_layer(layer: nn.Module, emit: Emit) -> Iterator[None]:
    with ExitStack() as seams:
        for name in _PAST_FORWARD:
            seams.enter_context(on_method(layer, name, _ignore))
        seams.enter_context(_attach(layer, emit, ours=True))
        yield


def _ignore(call: dict[str, Any], result: Any) -> None:
    """Hears nothing: the seam is there so that the layer counts as running."""


ADAPTER = Adapter(name="gladient", modules=("GatedLinearAttention",), attach=_attach_layer, package="gladient")
"""This package's own layer."""
OPERATORS = Adapter(name="gladient.ops", modules=(), attach=_attach)
"""Any layer that calls `gladient.ops`."""
