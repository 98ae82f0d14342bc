"""Files written whole or not at all, and the folder of what is kept between runs."""

import hashlib
import os
import secrets
from pathlib import Path

__all__ = ["sha256", "user_cache", "write_atomically"]


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place.

    The file gets the permissions that the umask leaves. A kill may leave the temporary file, whose name begins with a
    dot; nothing reads it.
    """
    # beside the file, as only within one file system a rename replaces a file at once
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # a full disk does not name the file
        raise


def sha256(content: bytes) -> str:
    """The checksum of a file's content, in hexadecimal digits.

    >>> sha256(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(content).hexdigest()


def user_cache() -> Path:
    """The folder for what gladient keeps between runs: ~/.cache/gladient on Linux. It is not made here.

    Raises:
        RuntimeError: for a user without a home.
    """
    import platformdirs

    folder = platformdirs.user_cache_path("gladient", appauthor=False)
    if not folder.is_absolute():  # early releases take "~" for a folder's name where there is no home
        raise RuntimeError(f"no home folder to keep a cache in, only {folder}; set HOME or XDG_CACHE_HOME")
    return folder
