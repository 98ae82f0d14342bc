"""What an adapter is: which modules it reads, and how it turns their calls into recurrences."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import nn

from gladient.lens.recurrence import Recurrence

__all__ = ["Adapter", "Emit"]

Emit = Callable[[Recurrence], None]


@dataclass(frozen=True)
class Adapter:
    """How the lens reads one kind of layer; see `register` and `gladient.seams`.

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
