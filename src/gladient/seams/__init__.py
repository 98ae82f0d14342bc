"""Seams: listen to what other people's models compute, change it, or compute it otherwise; nothing stays patched."""

from gladient.seams import architectures
from gladient.seams.listening import WRITTEN, Listener, SeamError, on_enter, on_forward, on_function, on_method
from gladient.seams.places import original, stand_in
from gladient.seams.threads import in_this_thread, recomputing, this_thread

__all__ = [
    "on_function",
    "on_method",
    "on_forward",
    "on_enter",
    "Listener",
    "WRITTEN",
    "SeamError",
    "stand_in",
    "original",
    "in_this_thread",
    "recomputing",
    "this_thread",
    "architectures",
]
