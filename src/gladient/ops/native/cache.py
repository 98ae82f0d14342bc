"""Compiled libraries on disk: kept in the user's cache, written whole, and loaded only where no one else could write.

Beside each library NAME stands NAME.sha256, which `sha256sum --check` reads.
"""

import atexit
import hashlib
import logging
import os
import shutil
import stat
import sys
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
    path = (folder / name).resolve()  # once: what is checked is what is loaded
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
    """Why a library must not be loaded: whoever can write it, its record or a folder above runs code as this user.

    Args:
        path: the library, resolved, so that what is checked here is what is loaded: none of its folders may be a link.
        like: a file that is trusted already, beside whose folder the library was installed; who can write there, may.

    Returns:
        None if it may be loaded: it belongs to this user or root, no one else can write it or put another into its
        place, and it is as recorded.
    """
    trusted = like and like.resolve()
    try:
        for x, other in ((path.parent, trusted and trusted.parent), (path, trusted), (record(path), trusted)):
            if reason := _open_to_others(x, other):
                return reason
        if reason := _replaceable(path.parent, trusted):
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
    folder = folder.resolve()
    info = folder.stat()
    if hasattr(os, "getuid") and info.st_uid == os.getuid() and info.st_mode & _OTHERS:
        folder.chmod(info.st_mode & 0o777 & ~_OTHERS)  # made under a generous umask by an earlier version
    if reason := _open_to_others(folder, None) or _replaceable(folder, None):
        raise OSError(reason)
    return folder


def _open_to_others(path: Path, trusted: Path | None, others: int = _OTHERS) -> str | None:
    if not hasattr(os, "getuid"):
        return None
    info = path.lstat()
    # The last is whom / belongs to: inside a user namespace root has another number.
    owners = {0, os.getuid(), Path(path.anchor).stat().st_uid}
    if trusted:
        owners, others = owners | {trusted.stat().st_uid}, others & ~trusted.stat().st_mode
    if stat.S_ISLNK(info.st_mode):
        return f"{path} is a link, which may lead elsewhere tomorrow"
    if info.st_uid not in owners:
        return f"{path} belongs to user {info.st_uid}, not to {os.getuid()}"
    return f"{path} can be written by others (mode {info.st_mode & 0o777:o})" if info.st_mode & others else None


def _replaceable(folder: Path, trusted: Path | None) -> str | None:
    """Why another user could put a folder of theirs into the place of this one, or of one above it.

    In a sticky folder, as /tmp, names belong to their owners. Above a file that is trusted already nothing is asked.
    """
    for x in folder.parents:
        if trusted and x in trusted.parents:
            return None
        kept = hasattr(os, "getuid") and (x.stat().st_mode & stat.S_ISVTX or _group_of_one(x))
        if reason := _open_to_others(x, None, 0 if kept else _OTHERS):
            return reason
    return None


def _group_of_one(folder: Path) -> bool:
    """Whether a folder is this user's and its group too: many systems give each user a group, and umask 002."""
    import grp
    import pwd

    info = folder.stat()
    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(info.st_gid)
    except KeyError:
        return False
    alone = group.gr_gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    return alone and info.st_uid == user.pw_uid and not info.st_mode & stat.S_IWOTH


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
        # The library first. Where the process dies between the two, its old record does not fit and it is made again.
        for x, goal in ((made, path), (record(made), record(path))):
            _flush(x)
            x.replace(goal)
    _flush(path.parent)


def _flush(path: Path) -> None:
    if path.is_dir() and sys.platform == "win32":  # opens no folder, and flushes only what could be written
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_for_this_process(name: str, make: Callable[[Path], None], reason: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gladient-")).resolve()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if danger := _replaceable(folder, None):
        raise OSError(
            f"{danger}, so nothing is compiled below it: set XDG_CACHE_HOME or TMPDIR to a folder of your own"
        )
    _log.warning(
        "the native kernels are compiled for this process alone, because there is no cache to keep them in (%s); "
        "to compile once, set XDG_CACHE_HOME to a folder that belongs to you and that you can write",
        reason,
    )
    make(folder / name)
    return folder / name
