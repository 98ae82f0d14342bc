"""Which modules call this package's operators, read off the names in their code."""

import dis
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from gladient.ops import Decoder, gated_delta_rule, gated_linear_attention, generalized_delta_rule, mamba3
from gladient.ops.dispatch import operate

__all__ = ["calls_operators"]

_OPERATORS = (gated_linear_attention, gated_delta_rule, generalized_delta_rule, mamba3, operate, Decoder)
_LIBRARIES = {"torch", "transformers", "numpy", "scipy", *sys.stdlib_module_names}  # these do not call us


def calls_operators(module: nn.Module) -> bool:
    """Whether what the module holds, its methods, or functions that these use, lead to an operator by name.

    >>> class Mixer(nn.Module):
    ...     def forward(self, q, k, v):
    ...         return gated_linear_attention(q, k, v)[0]
    >>> calls_operators(Mixer()), calls_operators(nn.Linear(2, 2))
    (True, False)
    """
    seen: set[int] = set()
    cls: Any = type(module)
    return any(_leads(value, seen) for value in vars(module).values()) or _class_calls(cls)


@cache
def _class_calls(cls: type) -> bool:
    seen: set[int] = set()
    own = [base for base in cls.__mro__ if _package(base) not in _LIBRARIES]
    return any(_leads(value, seen) for base in own for value in vars(base).values())


def _leads(value: Any, seen: set[int]) -> bool:
    """Whether a value is an operator or a function whose code leads to one."""
    value = _bare(value)
    if isinstance(value, Decoder) or any(value is operator for operator in _OPERATORS):
        return True
    if not isinstance(value, FunctionType) or id(value) in seen or _package(value) in _LIBRARIES:
        return False
    seen.add(id(value))
    named = list(_named(value.__code__))
    used = [value.__globals__[name] for name, of in named if of == "LOAD_GLOBAL" and name in value.__globals__]
    for cell in value.__closure__ or ():
        with suppress(ValueError):  # an empty one
            used.append(cell.cell_contents)
    homes = [home for home in used if isinstance(home, ModuleType)]
    held = _held(homes, {name for name, of in named if of != "LOAD_GLOBAL"})
    return any(_leads(each, seen) for each in (*used, *held))


def _held(homes: list[ModuleType], names: set[str]) -> list[Any]:
    """What Python modules, and those inside them, hold under these names."""
    found = [vars(home)[name] for home in homes for name in names & vars(home).keys()]
    inner = [value for value in found if isinstance(value, ModuleType) and value not in homes]
    return found + (_held(inner, names) if inner else [])


def _bare(value: Any) -> Any:
    """The function in a method, a property or a partial."""
    if isinstance(value, staticmethod | classmethod | MethodType):
        return value.__func__
    return value.fget if isinstance(value, property) else value.func if isinstance(value, partial) else value


def _package(value: Any) -> str:
    return str(value.__module__).split(".")[0]


def _named(code: CodeType) -> Iterator[tuple[str, str]]:
    """Names of globals and attributes with what loads them, in functions inside too."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_ATTR", "LOAD_METHOD"):
            yield step.argval, step.opname
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _named(part)
