"""Listeners to functions that a model's module calls, and to forwards of its parts; they may change what these return.

Each hears the thread that opened it alone: others may run the same modules, with listeners of their own.
"""

import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from gladient.seams.places import Home, around
from gladient.seams.threads import in_this_thread, recomputing, this_thread

__all__ = ["WRITTEN", "Listener", "SeamError", "on_enter", "on_forward", "on_function", "on_method"]


class SeamError(RuntimeError):
    """A model's library does not have the place where a seam is to be."""


Listener = Callable[[dict[str, Any], Any], Any]
"""Is called with the bound arguments and the result.

What it computes is off the graph, what it returns is ignored, and it changes neither. With `replace=True` it gets both
on the graph and returns the result to hand on: the same object for no change.
"""

WRITTEN = "(written)"
"""Under this name, which no argument has, a call holds those that the function wrote to, as they are after it, by name.

A listener with `replace=True` writes to them what it would have the function write.
"""

_running = threading.local()  # .stack: modules whose forward runs in this thread, innermost last


@contextmanager
def on_function(
    module: nn.Module,
    name: str,
    listener: Listener,
    *,
    home: ModuleType | None = None,
    changes: tuple[str, ...] = (),
    replace: bool = False,
) -> Iterator[None]:
    """Tells `listener` of every call that `module`'s forward makes of a function.

    Listeners are told in the order in which they were entered: inside of one that replaces, the result that it hands on
    is heard; outside of it, the result before. What a backward pass computes again (gradient checkpointing) is replaced
    again, as the change is part of the function, and is not heard again: run that pass inside the block, too.

    Args:
        module: the layer.
        name: the function.
        listener: gets the bound arguments, defaults filled in, and the result; see `Listener`.
        home: the Python module that looks the function up by this name; that of the layer's class if not given.
        changes: arguments that the function writes to: the listener gets them as they were before; see `WRITTEN`.
        replace: whether what the listener returns is handed on as the result.

    Raises:
        SeamError: if there is no such function, or None in its place, as where a package that has it is missing.
        TypeError: when the module runs, if a replacing listener returns None in place of a result.

    >>> heard, layer = [], nn.ReLU()
    >>> with on_function(layer, "relu", lambda call, result: heard.append(result.tolist()), home=nn.functional):
    ...     _ = layer(torch.tensor([-1.0, 2.0]))
    >>> heard
    [[0.0, 2.0]]
    >>> with on_function(layer, "relu", lambda call, result: -result, home=nn.functional, replace=True):
    ...     layer(torch.tensor([-1.0, 2.0]))
    tensor([-0., -2.])
    """
    homes = [sys.modules[cls.__module__] for cls in type(module).__mro__ if cls.__module__ in sys.modules]
    home = next((each for each in ([home] if home else homes) if callable(vars(each).get(name))), None)
    if home is None:
        raise SeamError(f"{type(module).__module__} has no function {name!r}")
    with _listening(home, name, module, listener, changes, replace):
        yield


@contextmanager
def on_method(
    module: nn.Module, name: str, listener: Listener, *, changes: tuple[str, ...] = (), replace: bool = False
) -> Iterator[None]:
    """Tells `listener` of every call of `module`'s method `name`, or of a function that it holds under that name.

    Arguments are those of `on_function`; a method's include self. What a method calls counts as called by the module,
    so that layers are read that others run past their forward.

    Raises:
        SeamError: if there is no such method.

    >>> class Double(nn.Module):
    ...     def forward(self, x):
    ...         return self.scale(x, by=2)
    ...     def scale(self, x, by):
    ...         return by * x
    >>> heard, layer = [], Double()
    >>> with on_method(layer, "scale", lambda call, result: heard.append((call["x"], call["by"], result))):
    ...     _ = layer(3)
    >>> heard
    [(3, 2, 6)]
    """
    owners: list[Any] = [module, *type(module).__mro__]
    owner = next((each for each in owners if name in vars(each)), None)
    if owner is None:
        raise SeamError(f"{type(module).__name__} has no method {name!r}")
    with _listening(owner, name, module, listener, changes, replace):
        yield


@contextmanager
def on_forward(module: nn.Module, listener: Listener, *, replace: bool = False) -> Iterator[None]:
    """Tells `listener` of every forward of `module`: its bound arguments and its output; `replace` as in `on_function`.

    >>> heard, layer = [], nn.Linear(2, 4)
    >>> with on_forward(layer, lambda call, output: heard.append((list(call), tuple(output.shape)))):
    ...     _ = layer(torch.zeros(3, 2))
    >>> heard
    [(['input'], (3, 4))]
    """
    signature = inspect.signature(module.forward)

    def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        return _tell(listener, _bind(signature, args, kwargs), output, replace=replace)

    with module.register_forward_hook(in_this_thread(hook), with_kwargs=True):
        yield


@contextmanager
def on_enter(module: nn.Module, listener: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Tells `listener` of every start of a forward of `module`: its bound arguments, before it writes to any.

    >>> heard, layer = [], nn.Linear(2, 4)
    >>> with on_enter(layer, lambda call: heard.append(list(call))):
    ...     _ = layer(torch.zeros(3, 2))
    >>> heard
    [['input']]
    """
    signature = inspect.signature(module.forward)

    def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
        _tell(lambda call, _: listener(call), _bind(signature, args, kwargs), None)

    with module.register_forward_pre_hook(in_this_thread(hook), with_kwargs=True):
        yield


@contextmanager
def _listening(
    home: Home, name: str, module: nn.Module, listener: Listener, changes: tuple[str, ...], replace: bool
) -> Iterator[None]:
    """Calls of `module` alone are heard: those that its forward makes, or those of its own method."""
    signature, thread, of_class = inspect.signature(vars(home)[name]), this_thread(), isinstance(home, type)

    def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        who = args[:1] if of_class else getattr(_running, "stack", [])[-1:]
        if not who or who[0] is not module or this_thread() != thread:
            return function(*args, **kwargs)
        call = _bind(signature, args, kwargs)
        written = {each: call[each] for each in changes if isinstance(call.get(each), Tensor)}
        call |= {each: (x if replace else x.detach()).clone() for each, x in written.items()} | {WRITTEN: written}
        with _runs(module) if of_class else nullcontext():
            result = function(*args, **kwargs)
        return _tell(listener, call, result, replace=replace)

    with around(home, name, run), _announced(module):
        yield


def _tell(listener: Listener, call: dict[str, Any], result: Any, *, replace: bool = False) -> Any:
    """The result to hand on; what a listener computes is no call of the module that it listens to."""
    if replace:
        with _runs(None):
            found = listener(call, result)
        if found is None and result is not None:
            who = getattr(listener, "__qualname__", repr(listener))
            raise TypeError(f"the listener {who} has replace=True and returned None; for no change, return the result")
        return found
    if not recomputing():
        with torch.no_grad(), _runs(None):
            listener(call, result)
    return result


def _bind(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    extra = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), "")
    call = dict(bound.arguments)
    return call | call.pop(extra, {})


@contextmanager
def _announced(module: nn.Module) -> Iterator[None]:
    """While it lasts, the thread knows when `module`'s forward is running."""

    def enter(module: nn.Module, *_: Any) -> None:
        _running.stack = [*getattr(_running, "stack", []), module]

    def leave(module: nn.Module, *_: Any) -> None:
        stack = getattr(_running, "stack", [])
        if stack and stack[-1] is module:  # else it was entered before the seam was open
            _running.stack = stack[:-1]

    first = module.register_forward_pre_hook(in_this_thread(enter), prepend=True)
    with first, module.register_forward_hook(in_this_thread(leave), always_call=True):
        yield


@contextmanager
def _runs(module: nn.Module | None) -> Iterator[None]:
    """While it lasts, `module` counts as running, or none."""
    before = getattr(_running, "stack", [])
    _running.stack = [*before, module]
    try:
        yield
    finally:
        _running.stack = before
