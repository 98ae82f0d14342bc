"""Where the lens looks in: functions that a model's module calls, and forwards of its parts; nothing stays patched.

Each seam hears the thread that opened it alone: others may run the same modules, with captures of their own.
"""

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Listener",
    "SeamError",
    "in_this_thread",
    "on_enter",
    "on_forward",
    "on_function",
    "on_method",
    "recomputing",
]

Listener = Callable[[dict[str, Any], Any], None]
"""Is called with the bound arguments and the result."""


class SeamError(RuntimeError):
    """A model's library does not have the place where the lens looks in."""


@dataclass
class _Patch:
    """One replaced function, and who listens to it: by the module whose forward is running, or whose method it is."""

    original: Any
    of_class: bool
    listeners: list[tuple[nn.Module, int, tuple[str, ...], Listener]] = field(default_factory=list)  # and the thread


_patches: dict[tuple[int, str], _Patch] = {}
_lock = threading.RLock()
_running = threading.local()  # .stack: modules whose forward runs in this thread, innermost last


def in_this_thread(hook: Callable[..., None]) -> Callable[..., None]:
    """The same hook, silent in every thread but the one that asks for it now."""
    thread = threading.get_ident()

    @functools.wraps(hook)
    def own(*heard: Any) -> None:
        if threading.get_ident() == thread:
            hook(*heard)

    return own


def recomputing() -> bool:
    """Whether this thread is in a backward pass: forwards that run there (checkpointing) were heard the first time."""
    return torch._C._current_graph_task_id() != -1


@contextmanager
def on_function(
    module: nn.Module, name: str, listener: Listener, *, home: ModuleType | None = None, changes: tuple[str, ...] = ()
) -> Iterator[None]:
    """Tells `listener` of every call that `module`'s forward makes of a function.

    Args:
        module: the layer.
        name: the function.
        listener: gets the bound arguments, defaults filled in, and the result; it must change neither.
        home: the Python module that looks the function up by this name; that of the layer's class if not given.
        changes: arguments that the function writes to: the listener gets them as they were before.

    Raises:
        SeamError: if there is no such function.

    >>> heard, layer = [], nn.ReLU()
    >>> with on_function(layer, "relu", lambda call, result: heard.append(result.tolist()), home=nn.functional):
    ...     _ = layer(torch.tensor([-1.0, 2.0]))
    >>> heard
    [[0.0, 2.0]]
    """
    homes = [sys.modules[cls.__module__] for cls in type(module).__mro__ if cls.__module__ in sys.modules]
    home = next((each for each in ([home] if home else homes) if name in vars(each)), None)
    if home is None:
        raise SeamError(f"{type(module).__module__} has no function {name!r}")
    with _listening(home, name, module, listener, changes), _announced(module):
        yield


@contextmanager
def on_method(module: nn.Module, name: str, listener: Listener, *, changes: tuple[str, ...] = ()) -> Iterator[None]:
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
    with _listening(owner, name, module, listener, changes), _announced(module):
        yield


@contextmanager
def on_forward(module: nn.Module, listener: Listener) -> Iterator[None]:
    """Tells `listener` of every forward of `module`: its bound arguments and its output.

    >>> heard, layer = [], nn.Linear(2, 4)
    >>> with on_forward(layer, lambda call, output: heard.append((list(call), tuple(output.shape)))):
    ...     _ = layer(torch.zeros(3, 2))
    >>> heard
    [(['input'], (3, 4))]
    """
    signature = inspect.signature(module.forward)

    def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        _tell(listener, _bind(signature, args, kwargs), output)

    handle = module.register_forward_hook(in_this_thread(hook), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


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
        _tell(listener, _bind(signature, args, kwargs))

    handle = module.register_forward_pre_hook(in_this_thread(hook), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _listening(
    home: ModuleType | type | nn.Module, name: str, module: nn.Module, listener: Listener, changes: tuple[str, ...]
) -> Iterator[None]:
    key, entry = (id(home), name), (module, threading.get_ident(), changes, listener)
    with _lock:
        if key not in _patches:
            _patches[key] = _Patch(vars(home)[name], isinstance(home, type))
            setattr(home, name, _wrapper(_patches[key]))
        _patches[key].listeners.append(entry)
    try:
        yield
    finally:
        with _lock:
            patch = _patches[key]
            patch.listeners = [other for other in patch.listeners if other is not entry]
            if not patch.listeners:
                setattr(home, name, _patches.pop(key).original)


def _wrapper(patch: _Patch) -> Callable[..., Any]:
    signature = inspect.signature(patch.original)

    @functools.wraps(patch.original)
    def call(*args: Any, **kwargs: Any) -> Any:
        who, thread = args[:1] if patch.of_class else getattr(_running, "stack", [])[-1:], threading.get_ident()
        heard = [entry[2:] for entry in patch.listeners if who and entry[0] is who[0] and entry[1] == thread]
        bound = _bind(signature, args, kwargs) if heard else {}
        before = {name for changes, _ in heard for name in changes}
        bound |= {name: bound[name].detach().clone() for name in before if isinstance(bound.get(name), Tensor)}
        with _runs(args[0]) if heard and patch.of_class else nullcontext():
            result = patch.original(*args, **kwargs)
        for _, listener in heard:
            _tell(listener, bound, result)
        return result

    return call


def _tell(listener: Callable[..., None], *heard: Any) -> None:
    """What a listener computes stays off the graph, and is no call of the module that it listens to."""
    if not recomputing():
        with torch.no_grad(), _runs(None):
            listener(*heard)


def _bind(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    extra = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    values = dict(bound.arguments)
    return {**values, **values.pop(extra, {})} if extra else values


@contextmanager
def _announced(module: nn.Module) -> Iterator[None]:
    """While it lasts, the thread knows when `module`'s forward is running."""

    def enter(module: nn.Module, *_: Any) -> None:
        _running.stack = [*getattr(_running, "stack", []), module]

    def leave(module: nn.Module, *_: Any) -> None:
        stack = getattr(_running, "stack", [])
        if stack and stack[-1] is module:  # else it was entered before the seam was open
            _running.stack = stack[:-1]

    with ExitStack() as hooks:
        hooks.callback(module.register_forward_pre_hook(in_this_thread(enter), prepend=True).remove)
        hooks.callback(module.register_forward_hook(in_this_thread(leave), always_call=True).remove)
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
