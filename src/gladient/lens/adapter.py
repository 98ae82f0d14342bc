"""What an adapter is: which modules it reads, and how it turns their calls into recurrences, and back."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import nn

from gladient.lens.answer import Answer
from gladient.lens.recurrence import Recurrence
from gladient.seams import Listener

__all__ = ["Adapter", "Emit", "Given", "Read", "Write"]

Given = dict[str, Any]
"""The arguments of a call, by name."""
Read = Callable[[Given, Any], Recurrence]
"""From a call and its result to the recurrence that it is."""
Write = Callable[[Given, Any, Answer], Any]
"""From a call, its result and what its changed recurrence computes to the result to hand on."""


@dataclass(frozen=True)
class Emit:
    """Where an adapter's recurrences go: to a capture, or to an intervention, which may answer.

    Attributes:
        hear: is told of each recurrence; returns the answer to hand on, None for no change.
        replace: whether it may answer; seams are opened with it, `on_function(…, replace=emit.replace)`.
    """

    hear: Callable[[Recurrence], Answer | None]
    replace: bool = False

    def __call__(self, x: Recurrence) -> Answer | None:
        """Tells of one recurrence."""
        return self.hear(x)

    def listener(self, read: Read, write: Write) -> Listener:
        """What hears a seam: it reads each call, and writes the answer, if there is one, into what is handed on."""

        def listen(call: Given, result: Any) -> Any:
            answer = self(read(call, result))
            return result if answer is None else write(call, result, answer)

        return listen


@dataclass(frozen=True)
class Adapter:
    """How the lens reads one kind of layer, and changes it; see `register` and `gladient.seams`.

    Attributes:
        name: the architecture, for records and lists.
        modules: class names of the layers that it reads.
        attach: while the context it returns lasts, every call of the layer emits one recurrence.
        package: the package that defines these classes, where others have classes of the same name; "" for any.
    """

    name: str
    modules: tuple[str, ...]
    attach: Callable[[nn.Module, Emit], AbstractContextManager[None]]
    package: str = ""

    def reads(self, cls: type) -> bool:
        """Whether it reads layers of this class.

        >>> adapter = Adapter("linear", ("Linear",), attach=lambda layer, emit: None, package="torch")
        >>> adapter.reads(nn.Linear), adapter.reads(nn.ReLU)
        (True, False)
        """
        return cls.__name__ in self.modules and self.package in ("", cls.__module__.split(".")[0])
