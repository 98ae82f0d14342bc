"""This package's operators, whichever module calls them: all gates, delta rules, rotations, the last query alone.

Its own layers are run by models past their forward, through the methods named here.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gladient.lens.adapter import Adapter, Emit, Given
from gladient.lens.handing import write_call, write_mamba3
from gladient.lens.operands import recurrence_of
from gladient.lens.recurrence import Recurrence
from gladient.lens.turning import Turn, mamba3_recurrence, unturned
from gladient.ops import dispatch, rotation
from gladient.seams import on_function, on_method

__all__ = ["ADAPTER", "OPERATORS"]

_TURNS = 4  # rotations that are kept until the call comes that they are for: queries, keys, two to erase by
_PAST_FORWARD = ("scan", "read_last", "written")


@contextmanager
def _attach(module: nn.Module, emit: Emit) -> Iterator[None]:
    turns = deque[Turn](maxlen=_TURNS)

    def turn(heard: Given, result: list[Tensor]) -> list[Tensor]:
        pairs = zip(result, heard["given"], strict=True)
        turns.extend(Turn(after, before, heard["phase"], heard["pairs"]) for after, before in pairs)
        return result

    def listen(heard: Given, result: Any) -> Any:
        call = heard["call"]
        state = heard["initial_state"] if call.inplace else call.initial_state
        call, phase, pairs = unturned(call, turns)
        turns.clear()
        found = recurrence_of(call, result[0], state, phase)
        answer = emit(found if phase is None else replace(found, pairs=pairs))
        return result if answer is None else write_call(heard, result, answer)

    def read_mamba3(heard: Given, result: Any) -> Recurrence:
        turns.clear()
        return mamba3_recurrence(heard["call"], result[0])

    options: Any = {"replace": emit.replace}
    with (
        on_function(module, "run_call", listen, home=dispatch, changes=("initial_state",), **options),
        on_function(module, "turned", turn, home=rotation, **options),
        on_function(module, "run_mamba3", emit.listener(read_mamba3, write_mamba3), home=rotation, **options),
    ):
        yield


@contextmanager
def _attach_layer(layer: nn.Module, emit: Emit) -> Iterator[None]:
    with ExitStack() as seams:
        for name in _PAST_FORWARD:
            seams.enter_context(on_method(layer, name, _ignore))
        seams.enter_context(_attach(layer, emit))
        yield


def _ignore(call: dict[str, Any], result: Any) -> None:
    """Hears nothing: the seam is there so that the layer counts as running."""


ADAPTER = Adapter(name="gladient", modules=("GatedLinearAttention",), attach=_attach_layer, package="gladient")
"""This package's own layer."""
OPERATORS = Adapter(name="gladient.ops", modules=(), attach=_attach)
"""Any layer that calls `gladient.ops`."""
