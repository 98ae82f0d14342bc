"""Files written whole or not at all."""

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_figure", "write_atomically"]


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write to a temporary file beside `path`, flush it to disk, then rename it into place."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_figure(figure: "Figure", stem: Path, *, dpi: int) -> None:
    """Write STEM.png and STEM.svg, the same bytes for the same figure."""
    import matplotlib as mpl

    formats: dict[str, dict[str, Any]] = {"png": {"dpi": dpi}, "svg": {"metadata": {"Date": None}, "dpi": dpi}}
    with mpl.rc_context({"svg.hashsalt": "gladient", "svg.fonttype": "path"}):
        for suffix, options in formats.items():
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, **options)
            write_atomically(stem.with_name(f"{stem.name}.{suffix}"), buffer.getvalue())
