"""This package's operators, whichever module calls them: every gate family, the delta rule, the last query alone.

Its own layers are run by models past their forward, through the methods named here.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from gladient.lens.adapter import Adapter, Emit
from gladient.lens.operands import recurrence_of
from gladient.ops import dispatch
from gladient.seams import on_function, on_method

__all__ = ["ADAPTER", "OPERATORS"]

_PAST_FORWARD = ("scan", "read_last", "written")


@contextmanager
def _attach(module: nn.Module, emit: Emit) -> Iterator[None]:
    def listen(heard: dict[str, Any], result: Any) -> None:
        call = heard["call"]
        state = heard["initial_state"] if call.inplace else call.initial_state
        emit(recurrence_of(call, result[0], state))

    with on_function(module, "run_call", listen, home=dispatch, changes=("initial_state",)):
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
