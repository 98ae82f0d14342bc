"""Compiled libraries on disk: kept in the user's cache, written whole, and loaded only where no one else could write.

Beside each library NAME.so stands NAME.so.sha256, which `sha256sum --check` reads.
"""

import atexit
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from gladient._files import user_cache

__all__ = ["distrust", "ready", "record"]

_log = logging.getLogger(__name__)
_OTHERS = 0o022  # group and everyone may write


def ready(name: str, make: Callable[[Path], None]) -> Path:
    """A library that may be loaded: from the cache, or made there once by `make(path)`.

    Where there is no cache that could be used, it is made in a folder of this process alone, which goes at its exit.

    Raises:
        OSError: if it cannot be made.
    """
    try:
        folder = _folder()
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        return _make_for_this_process(name, make, str(error))
    path = folder / name
    if distrust(path) is None:
        return path
    if not os.access(folder, os.W_OK | os.X_OK):
        return _make_for_this_process(name, make, f"{folder} cannot be written")
    try:
        held = FileLock(folder / "lock").acquire()  # of processes that start together one compiles, the others wait
    except (OSError, NotImplementedError) as error:
        return _make_for_this_process(name, make, f"no lock in {folder}: {error}")
    with held:
        _make_in_cache(path, make)
    return path


def distrust(path: Path, like: Path | None = None) -> str | None:
    """Why a library must not be loaded: whoever could write it, its record or its folder could run code as this user.

    Args:
        path: the library.
        like: a file that is trusted already, beside whose folder the library was installed; who can write there, may.

    Returns:
        None if it may be loaded: it belongs to this user or root, no one else can write it, and it is as recorded.
    """
    path = path.resolve()
    try:
        for x, trusted in ((path.parent, like and like.parent), (path, like), (record(path), like)):
            if reason := _open_to_others(x, trusted):
                return reason
        said = record(path).read_text("utf-8").split()[:1]
        return None if said == [_digest(path)] else f"{path} is not what {record(path).name} says"
    except (OSError, UnicodeDecodeError) as error:
        return str(error)


def record(path: Path) -> Path:
    """The file beside a library that holds its SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def _folder() -> Path:
    folder = user_cache()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.stat()
    if hasattr(os, "getuid") and info.st_uid == os.getuid() and info.st_mode & _OTHERS:
        folder.chmod(info.st_mode & 0o777 & ~_OTHERS)  # made under a generous umask by an earlier version
    if reason := _open_to_others(folder, None):
        raise OSError(reason)
    return folder


def _open_to_others(path: Path, trusted: Path | None) -> str | None:
    if not hasattr(os, "getuid"):
        return None
    info, owners, others = path.stat(), {0, os.getuid()}, _OTHERS
    if trusted:
        owners, others = owners | {trusted.stat().st_uid}, others & ~trusted.stat().st_mode
    if info.st_uid not in owners:
        return f"{path} belongs to user {info.st_uid}, not to {os.getuid()}"
    return f"{path} can be written by others (mode {info.st_mode & 0o777:o})" if info.st_mode & others else None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _make_in_cache(path: Path, make: Callable[[Path], None]) -> None:
    """Under the lock. Makes beside the target, flushes and renames, so that the target is whole or absent."""
    for left in path.parent.glob("compiling-*"):  # by a process that was killed, since no other holds the lock
        shutil.rmtree(left, ignore_errors=True)
    reason = distrust(path)
    if reason is None:
        return
    if path.exists():
        _log.warning("not loaded, compiled again: %s", reason)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="compiling-") as folder:
        made = Path(folder) / path.name
        make(made)
        made.chmod(0o755)
        record(made).write_text(f"{_digest(made)}  {path.name}\n", "utf-8")
        record(made).chmod(0o644)
        for x, goal in ((made, path), (record(made), record(path))):
            _flush(x)
            x.replace(goal)
    _flush(path.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_for_this_process(name: str, make: Callable[[Path], None], reason: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gladient-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _log.warning(
        "the native kernels are compiled for this process alone, because there is no cache to keep them in (%s); "
        "to compile once, set XDG_CACHE_HOME to a folder that belongs to you and that you can write",
        reason,
    )
    make(folder / name)
    return folder / name
