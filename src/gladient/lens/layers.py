"""Which layers a model has: those that the lens reads, and those of attention, which has no gates."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from gladient.lens.adapter import Adapter
from gladient.lens.adapters import ADAPTERS
from gladient.lens.adapters.gladient import OPERATORS
from gladient.lens.callers import calls_operators

__all__ = ["Ungated", "gated_layers", "register", "supported", "ungated_layers"]

_registered: list[Adapter] = []  # newest first


@dataclass(frozen=True)
class Ungated:
    """A layer of attention, which has no gates to show.

    Attributes:
        layer: its number in the model.
        module: its name in the model.
        kind: its class.
    """

    layer: int
    module: str
    kind: str


def register(adapter: Adapter) -> None:
    """Teaches the lens a kind of layer, for as long as the process lives; it goes before those that it knows already.

    Raises:
        ValueError: if another adapter has its name, or it names no class.
    """
    if not adapter.modules:
        raise ValueError(f"the adapter {adapter.name!r} names no class; modules are the names of the classes it reads")
    others = [other.name for other in (*_registered, *ADAPTERS) if other != adapter]
    if adapter.name in others:
        raise ValueError(f"there is another adapter {adapter.name!r}; give this one a name of its own")
    if adapter not in _registered:
        _registered.insert(0, adapter)


def supported() -> dict[str, tuple[str, ...]]:
    """The architectures that the lens reads, with the classes of their layers.

    It reads besides any module that calls the operators of `gladient.ops`.

    >>> supported()["mamba2"][0]
    'Mamba2Mixer'
    """
    return {adapter.name: adapter.modules for adapter in (*_registered, *ADAPTERS)}


def gated_layers(model: nn.Module) -> list[tuple[str, int, nn.Module, Adapter]]:
    """Name, number, module and adapter of every gated layer of a model.

    Raises:
        ValueError: if it has none that the lens reads.
    """
    found = _read_layers(model)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no gated layer that the lens reads; supported: "
            f"{', '.join(sorted(supported()))}, and modules that call gladient.ops; for others see lens.register"
        )
    numbers = _numbers([name for name, _, _ in found])
    return [(name, number, module, adapter) for number, (name, module, adapter) in zip(numbers, found, strict=True)]


def ungated_layers(model: nn.Module) -> list[Ungated]:
    """The layers of attention that a hybrid has beside its gated ones.

    >>> ungated_layers(nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 1)))
    [Ungated(layer=1, module='1', kind='MultiheadAttention')]
    """
    gated, found = [name for name, _, _ in _read_layers(model)], dict[str, str]()
    for name, module in model.named_modules(remove_duplicate=False):
        kind = type(module).__name__
        apart = not any(_holds(other, name) or _holds(name, other) for other in gated)
        if kind.endswith("Attention") and apart and not any(_holds(other, name) for other in found):
            found[name] = kind
    return [Ungated(number, *entry) for number, entry in zip(_numbers(list(found)), found.items(), strict=True)]


def _read_layers(model: nn.Module) -> list[tuple[str, nn.Module, Adapter]]:
    found = []
    for name, module in model.named_modules():
        adapter = _adapter(module)
        if adapter is not None:
            found.append((name, module, adapter))
    return found


def _adapter(module: nn.Module) -> Adapter | None:
    known = [*_registered, *ADAPTERS]
    named = next((each for cls in type(module).__mro__ for each in known if each.reads(cls)), None)
    return named or (OPERATORS if calls_operators(module) else None)


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}.")


def _numbers(names: Sequence[str]) -> list[int]:
    """The last number in each module's name where these tell the layers apart, else their order.

    >>> _numbers(["layers.1.mixer", "layers.3.mixer"]), _numbers(["groups.0.blocks.0.scan", "groups.1.blocks.0.scan"])
    ([1, 3], [0, 1])
    """
    last = [[int(part) for part in name.split(".") if part.isdigit()][-1:] for name in names]
    told = [number for numbers in last for number in numbers]
    return told if len(set(told)) == len(names) else list(range(len(names)))
