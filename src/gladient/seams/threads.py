"""Whose work a thread does: seams are heard by the thread that opened them, in its backward passes too."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["in_this_thread", "recomputing", "this_thread"]

_KEY = "gladient.seams.thread"
# PyTorch 2.10 takes no reference to what is stashed, and gives one up when a thread ends: two for each stay here.
_kept: list[int] = []


def this_thread() -> int:
    """The thread that runs now, or the one for whose backward pass autograd runs it.

    PyTorch carries what is stashed under a key into the threads that autograd starts: for each GPU, and for backward
    passes nested more than 60 deep on a CPU. `threading.local` would be empty there.
    """
    if not torch._C._is_key_in_tls(_KEY):
        here = threading.get_ident()
        _kept.extend((here, here))
        torch._C._stash_obj_in_tls(_KEY, here)
    found: int = torch._C._get_obj_in_tls(_KEY)
    return found


def in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The same hook, silent in every thread but the one that asks for it now."""
    thread = this_thread()

    @functools.wraps(hook)
    def own(*heard: Any) -> Any:
        return hook(*heard) if this_thread() == thread else None

    return own


def recomputing() -> bool:
    """Whether this thread is in a backward pass: forwards that run there (checkpointing) were heard the first time."""
    return torch._C._current_graph_task_id() != -1
