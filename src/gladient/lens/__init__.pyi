from . import page, pictures
from .adapter import Adapter, Emit
from .answer import Answer
from .capturing import SeamError, Trace, capture
from .corpus import MemoryLengths, memory_lengths
from .gate_changes import fix_gates, mix_gates, patch_gates, scale_gates
from .gate_worth import HeadWorth, Rise, Worth, worth
from .intervening import Change, intervene
from .layers import Ungated, gated_layers, register, supported, ungated_layers
from .operands import record
from .proof import Reconstruction
from .records import Record
from .recurrence import Recurrence
from .summary import Summary
from .token_changes import ablate, drop_tokens, keep_window, knock_out, scale_erase, set_weights
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
    # changing what it computes
    "intervene",
    "Change",
    "scale_gates",
    "fix_gates",
    "mix_gates",
    "patch_gates",
    "knock_out",
    "keep_window",
    "drop_tokens",
    "scale_erase",
    "set_weights",
    "ablate",
    # what a gate is worth
    "worth",
    "Worth",
    "HeadWorth",
    "Rise",
    # over many texts
    "memory_lengths",
    "MemoryLengths",
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
    "Emit",
    "Answer",
    # what is shown
    "page",
    "pictures",
]
