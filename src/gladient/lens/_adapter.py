"""What an adapter is: which modules it reads, and how it turns their calls into recurrences."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from gladient.lens._recurrence import Recurrence

__all__ = ["Adapter", "Emit"]

Emit = Callable[[Recurrence], None]


@dataclass(frozen=True)
class Adapter:
    """How the lens reads one kind of layer.

    Attributes:
        name: the architecture, for records and lists.
        modules: class names of the layers that it reads.
        attach: while the context it returns lasts, every call of the layer emits one recurrence.
    """

    name: str
    modules: tuple[str, ...]
    attach: Callable[[nn.Module, Emit], AbstractContextManager[None]]
