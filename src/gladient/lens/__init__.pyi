from . import page, pictures
from .adapter import Adapter
from .capturing import SeamError, Trace, capture
from .layers import Ungated, gated_layers, register, supported, ungated_layers
from .operands import record
from .proof import Reconstruction
from .records import Record
from .recurrence import Recurrence
from .summary import Summary
from .wpgd import WPGDView

__all__ = [
    # looking into a model
    "capture",
    "Trace",
    "SeamError",
    "supported",
    "gated_layers",
    "ungated_layers",
    "Ungated",
    # one layer
    "record",
    "Record",
    "Recurrence",
    "Reconstruction",
    "Summary",
    "WPGDView",
    # layers of one's own
    "register",
    "Adapter",
    # what is shown
    "page",
    "pictures",
]
