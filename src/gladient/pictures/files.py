"""Pictures as files, and as an element of a page."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gladient._files import write_atomically

__all__ = ["save_figure", "svg_text"]


def save_figure(figure: Figure, stem: Path, *, dpi: int) -> None:
    """Write STEM.png and STEM.svg, the same bytes for the same figure."""
    for suffix in ("png", "svg"):
        write_atomically(stem.with_name(f"{stem.name}.{suffix}"), _saved(figure, suffix, dpi=dpi))


def svg_text(figure: Figure, *, fonts: bool = False) -> str:
    """The picture as an <svg> element.

    Args:
        figure: the picture.
        fonts: whether the browser sets the words in its fonts; else they are outlines, which look the same everywhere.
    """
    found = _saved(figure, "svg", fonttype="none" if fonts else "path").decode()
    return found[found.index("<svg") :]


def _saved(figure: Figure, suffix: str, *, fonttype: str = "path", **options: Any) -> bytes:
    buffer = io.BytesIO()
    # SVG has the date of its making, and ids from a random salt: without both the same figure is the same bytes
    dated: dict[str, Any] = {"metadata": {"Date": None}} if suffix == "svg" else {}
    with mpl.rc_context({"svg.hashsalt": "gladient", "svg.fonttype": fonttype}):
        figure.savefig(buffer, format=suffix, **dated, **options)
    return buffer.getvalue()
