"""Options as people type them: 1e9 is a whole number, 25,25 is a list like 25 25, and files to read and write."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from gladient.answers import numbers, real, whole

__all__ = ["File", "Floats", "Whole", "Wholes", "html_file"]


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
        instance_from_str=lambda texts: numbers(" ".join(texts), read),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [str(entry) for entry in value],
    )


File: TypeAlias = Annotated[Path, _one(Path, "FILE", Path)]
Whole: TypeAlias = Annotated[int, _one(whole, "INT", int | float)]
if TYPE_CHECKING:
    Wholes: TypeAlias = tuple[int, ...]
    Floats: TypeAlias = tuple[float, ...]
else:  # tyro holds defaults to `tuple[int, ...]` and to `Path | None` with typeguard, which takes long to import
    Wholes = Annotated[tuple, _list(whole, "INT")]
    Floats = Annotated[tuple, _list(real, "FLOAT")]
