"""The page as marimo serves it, on this machine alone."""

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from gladient._optional import require

__all__ = ["NOTEBOOK", "command"]

NOTEBOOK = Path(str(files("gladient.explore") / "notebook.py"))
"""The page, a marimo notebook."""


def command(port: int, *, browser: bool, edit: bool = False) -> list[str]:
    """The command that serves the page until Ctrl-C, with nothing that asks other hosts.

    Args:
        port: of this machine; 0: the first free one from 2718 on.
        browser: whether to open the page in one.
        edit: as a notebook: a copy of the page, explore.py in this folder, made if there is none.

    Raises:
        ImportError: if marimo is absent.
    """
    require("marimo", needed_for="gladient explore", install="pip install 'gladient[explore]'")
    page = NOTEBOOK
    if edit:
        page = Path("explore.py")
        if not page.exists():
            shutil.copyfile(NOTEBOOK, page)
    options = ["--host", "127.0.0.1", *(["--port", str(port)] if port else []), *([] if browser else ["--headless"])]
    kind = ["edit", "--skip-update-check"] if edit else ["run"]
    # -P: this folder may hold a file called marimo.py or random.py; -y: Ctrl-C ends it without a question
    return [sys.executable, "-P", "-m", "gladient.explore.guarded", "-y", *kind, str(page), *options]
