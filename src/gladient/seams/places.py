"""Functions of modules and classes that are replaced for a while: one wrapper for all users, undone without a trace."""

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

__all__ = ["Home", "Run", "around", "original", "stand_in"]

Home = ModuleType | type | nn.Module
"""What holds a function under a name."""
Run = Callable[..., Any]
"""Gets the function that it is put around or stands in for, then the call's arguments; returns the result."""


@dataclass
class _Place:
    """A replaced function and its users: stand-ins, of which the last one runs, and what is around it, inside first."""

    home: Home
    name: str
    original: Any
    stand_ins: tuple[Run, ...] = ()
    arounds: tuple[Run, ...] = ()
    wrapper: Any = None


_places: dict[tuple[int, str], _Place] = {}
_lock = threading.RLock()  # reentrant: setting an attribute may collect garbage, which may hold an open seam


def stand_in(home: Home, name: str, run: Run) -> ExitStack:
    """From now on `run` stands in for a function, in every thread; listeners hear it as they hear the function.

    Of several the one entered last stands in. Whoever keeps the wrapper, or wraps it, calls the function afterwards.

    Args:
        home: the module or class that holds the function.
        name: the function.
        run: gets the function, then the call's arguments.

    Returns:
        What ends it: a context for a `with` block, or `close()`. Until then it lasts, whether this is kept or not.

    >>> import math
    >>> with stand_in(math, "sqrt", lambda sqrt, x: sqrt(x) if x > 0 else 0.0):
    ...     math.sqrt(4), math.sqrt(-1)
    (2.0, 0.0)
    """
    return _use(home, name, "stand_ins", run)


def around(home: Home, name: str, run: Run) -> ExitStack:
    """From now on `run` is around a function and its stand-ins, outside of what was entered before; else as these."""
    return _use(home, name, "arounds", run)


def original(home: Home, name: str) -> Any:
    """The function that stands there when no seam is open; None if there is none.

    >>> import math
    >>> sqrt = math.sqrt
    >>> with stand_in(math, "sqrt", lambda sqrt, x: 0.0):
    ...     math.sqrt is sqrt, original(math, "sqrt") is sqrt
    (False, True)
    """
    place = _places.get((id(home), name))
    return getattr(home, name, None) if place is None else place.original


def _use(home: Home, name: str, kind: str, run: Run) -> ExitStack:
    user, leave = functools.partial(run), ExitStack()  # an object of its own, should two users bring the same `run`
    with _lock:
        place = _places.get((id(home), name)) or _open(home, name)
        setattr(place, kind, (*getattr(place, kind), user))
    leave.callback(_leave, place, kind, user)
    return leave


def _leave(place: _Place, kind: str, user: Run) -> None:
    with _lock:
        setattr(place, kind, tuple(each for each in getattr(place, kind) if each is not user))
        if not place.stand_ins and not place.arounds:
            del _places[id(place.home), place.name]
            if vars(place.home).get(place.name) is place.wrapper:  # else somebody wrapped it meanwhile, and keeps it
                setattr(place.home, place.name, place.original)


def _open(home: Home, name: str) -> _Place:
    place = _Place(home, name, vars(home)[name])

    @functools.wraps(place.original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        run = place.original
        for user in (*place.stand_ins[-1:], *place.arounds):
            run = functools.partial(user, run)
        return run(*args, **kwargs)

    place.wrapper = wrapper
    setattr(home, name, wrapper)
    _places[id(home), name] = place
    return place
