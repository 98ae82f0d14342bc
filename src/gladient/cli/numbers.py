"""Options as people type them: 1e9 is a whole number, 25,25 is a list like 25 25, and files to read and write."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

__all__ = ["File", "Floats", "Whole", "Wholes", "html_file", "number"]

# Floats end at 309 digits. An int of more raises OverflowError wherever it meets one; as a float it is infinite, which
# the checks behind this refuse by name.
_DIGITS = 300


def number(text: str) -> int | float:
    """The number that `text` spells; a whole one is exact.

    Raises:
        ValueError: if it spells none.

    >>> number("25"), number("1e9"), number("-0.5")
    (25, 1000000000.0, -0.5)
    """
    if len(text) <= _DIGITS:
        try:
            return int(text)
        except ValueError:
            pass
    return float(text)


def html_file(out: Path | None, default: str | None) -> Path | None:
    """The page that --out names, or the default, which may be none.

    Raises:
        ValueError: if it is a folder, or not in one: to be known before the work, not after it.
    """
    path = out or (None if default is None else Path(default))
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        wrong = f"{path} is a folder" if path.is_dir() else f"{path.parent} is not a folder"
        raise ValueError(f"{wrong}; --out names the HTML file to write, in a folder that exists")
    return path


def _whole(text: str) -> int:
    try:
        value = number(text)
        exact = int(value)
    except (ValueError, OverflowError):  # infinity overflows
        exact, value = 0, 0.5  # two that differ, for the message below
    if exact != value:
        raise ValueError(f"{text!r} is not a whole number; type 25 or 1e9")
    return exact


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; type 0.5 or 1e-3") from None


def _one(read: Callable[[str], Any], metavar: str, kind: Any) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: read(texts[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def _list(read: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{metavar} [{metavar} ...]",
        instance_from_str=lambda texts: tuple(read(part) for text in texts for part in text.split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [str(entry) for entry in value],
    )


File: TypeAlias = Annotated[Path, _one(Path, "FILE", Path)]
Whole: TypeAlias = Annotated[int, _one(_whole, "INT", int | float)]
if TYPE_CHECKING:
    Wholes: TypeAlias = tuple[int, ...]
    Floats: TypeAlias = tuple[float, ...]
else:  # tyro holds defaults to `tuple[int, ...]` and to `Path | None` with typeguard, which takes long to import
    Wholes = Annotated[tuple, _list(_whole, "INT")]
    Floats = Annotated[tuple, _list(_float, "FLOAT")]
