"""Options as people type them: 1e9 is a whole number, 25,25 is a list like 25 25, and files to read and write."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from gladient.answers import numbers, real, whole

__all__ = ["AnyFile", "AnyReal", "AnyWhole", "Floats", "Real", "Whole", "Wholes", "html_file"]


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


def _one(read: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: read(texts[0]),
        is_instance=lambda value: True,  # defaults are checked by mypy
        str_from_instance=lambda value: [str(value)],
    )


def _list(read: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec[Any]:
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{metavar} …",
        instance_from_str=lambda texts: numbers(" ".join(texts), read),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [str(entry) for entry in value],
    )


Whole: TypeAlias = Annotated[int, _one(whole, "INT")]
Real: TypeAlias = Annotated[float, _one(real, "FLOAT")]
if TYPE_CHECKING:
    AnyFile: TypeAlias = Path | None
    AnyWhole: TypeAlias = int | None
    AnyReal: TypeAlias = float | None
    Wholes: TypeAlias = tuple[int, ...]
    Floats: TypeAlias = tuple[float, ...]
else:  # tyro holds defaults to unions and to `tuple[int, ...]` with typeguard, which takes long to import
    AnyFile = Annotated[object, _one(Path, "FILE")]
    AnyWhole = Annotated[object, _one(whole, "INT")]
    AnyReal = Annotated[object, _one(real, "FLOAT")]
    Wholes = Annotated[tuple, _list(whole, "INT")]
    Floats = Annotated[tuple, _list(real, "FLOAT")]
