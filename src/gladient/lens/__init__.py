"""The lens: the token weights that the gates of a real model induce, proved by rebuilding each layer's own output."""

from gladient.lens._adapter import Adapter
from gladient.lens._capture import Trace, capture
from gladient.lens._layers import Ungated, gated_layers, register, supported, ungated_layers
from gladient.lens._operands import record
from gladient.lens._proof import Reconstruction
from gladient.lens._record import Record
from gladient.lens._recurrence import Recurrence
from gladient.lens._summary import Summary
from gladient.lens._wpgd import WPGDView
from gladient.seams import SeamError

__all__ = [
    "Adapter",
    "Reconstruction",
    "Record",
    "Recurrence",
    "SeamError",
    "Summary",
    "Trace",
    "Ungated",
    "WPGDView",
    "capture",
    "gated_layers",
    "record",
    "register",
    "supported",
    "ungated_layers",
]
