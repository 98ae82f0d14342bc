"""The lens: the token weights that the gates of a real model induce, proved by rebuilding each layer's own output."""

from gladient.lens._capture import Trace, capture
from gladient.lens._layers import Ungated, gated_layers, supported, ungated_layers
from gladient.lens._record import Reconstruction, Record
from gladient.lens._recurrence import Recurrence
from gladient.lens._seams import SeamError
from gladient.lens._summary import Summary
from gladient.lens._wpgd import WPGDView

__all__ = [
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
    "supported",
    "ungated_layers",
]
