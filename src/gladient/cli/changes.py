"""A change of what gates weigh, and inputs of a model, as they are typed."""

import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gladient._text import did_you_mean
from gladient.answers import numbers, real, whole

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["CHANGES", "read_change", "read_inputs"]


def _tokens(text: str) -> tuple[int, ...]:
    return numbers(text, whole)


CHANGES: Mapping[str, Callable[[str], Any] | None] = {
    "scale_gates": real,
    "fix_gates": real,
    "scale_erase": real,
    "keep_window": whole,
    "knock_out": _tokens,
    "drop_tokens": _tokens,
    "ablate": None,
}
"""The ready-made changes of `gladient.lens` that take a number, tokens or nothing."""


def read_change(text: str, at: str | None) -> "Callable[[nn.Module], AbstractContextManager[None]]":
    """What changes a model, from NAME=VALUE and LAYER or LAYER.HEAD.

    Raises:
        ValueError: if there is no such change, it takes another value, or that is no place.
    """
    from gladient import lens

    name, equals, value = text.partition("=")
    if name not in CHANGES:
        near = did_you_mean(name, CHANGES) or f"; the changes are {', '.join(CHANGES)}"
        raise ValueError(f"--change: there is no change {name!r}{near}")
    read = CHANGES[name]
    if (read is None) == bool(equals):
        takes = "nothing" if read is None else "a value"
        raise ValueError(f"--change: {name} takes {takes}; type {name}{'' if read is None else '=VALUE'}")
    try:
        change = getattr(lens, name)(*([] if read is None else [read(value)]))
    except ValueError as error:
        raise ValueError(f"--change {text}: {error}") from None
    layer, head = _place(at)
    return lambda model: lens.intervene(model, change, layers=layer, heads=head)


def _place(at: str | None) -> tuple[int | None, int | None]:
    """The layer, and the head, of LAYER or LAYER.HEAD; None for all.

    >>> _place("3.1"), _place("3"), _place(None)
    ((3, 1), (3, None), (None, None))
    """
    parts = [] if at is None else at.split(".")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"--at is {at!r}; it is a layer, 3, or one of its heads, 3.1")
    layer, head = [*map(int, parts), None, None][:2]
    return layer, head


def read_inputs(path: Path) -> "dict[str, Tensor]":
    """The arrays of an .npz file by their names, as a model's inputs; none of them is unpickled.

    Raises:
        ValueError: if it is no such file, or holds something else than numbers.
    """
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except (ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
        raise ValueError(f"{path} holds no arrays of numbers by their names; write it with numpy.savez") from None
