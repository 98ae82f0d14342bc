"""What the name of a model means: a folder, or a model on the hub that can be asked for."""

import os
import re
from importlib import import_module
from itertools import islice
from pathlib import Path

from gladient._text import did_you_mean

__all__ = ["GIVE", "find_folder", "require_on_hub"]

GIVE = "give a local folder with the model and its tokenizer, owner/name on the hub, or demo"
_WAIT = 10.0  # seconds for an answer of the hub; a name that is mistyped is not worth more
_LOOKED_AT = 2000  # folders whose names are compared with a mistyped one


def find_folder(name: str) -> Path | None:
    """The folder of that name, or None if the name can only be one on the hub.

    Raises:
        ValueError: if it is a path, and no folder; with the nearest that is.

    >>> find_folder("owner/name") is None
    True
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    beside = path.parent != Path() and path.parent.is_dir()
    if beside or path.exists() or name.startswith(".") or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"{name} is not a folder{_nearest(path) or f'; {GIVE}'}")
    return None


def require_on_hub(name: str) -> None:
    """Ask the hub once whether it has the model, unless it was fetched before.

    Raises:
        ValueError: if it has not, or cannot be reached; says that no folder is called so.
    """
    hub = import_module("huggingface_hub")
    if isinstance(hub.try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        hub.model_info(name, timeout=_WAIT)
    except Exception as error:  # whatever the network and its library raise
        missing = isinstance(error, hub.errors.RepositoryNotFoundError | hub.errors.HFValidationError)
        said = "has no such model" if missing else f"cannot be reached ({_sentence(error)})"
        near = _nearest(Path(name)) or f"; {GIVE}"
        raise ValueError(f"{name} is not a folder here, and the hub {said}{near}") from None


def _sentence(error: Exception) -> str:
    """What it says up to its first full stop, which never ends within a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.split(r"(?<=\w)\.(?= |$)", text, maxsplit=1)[0]


def _nearest(path: Path) -> str:
    """The folder whose name is most like the path's: beside it, or here and one level deeper."""
    around = [path.parent] if path.parent != Path() and path.parent.is_dir() else [Path(), *_inside(Path())]
    return did_you_mean(str(path), map(str, islice((f for folder in around for f in _inside(folder)), _LOOKED_AT)))


def _inside(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in islice(entries, _LOOKED_AT) if entry.is_dir()]
    except OSError:  # not ours to read
        return []
