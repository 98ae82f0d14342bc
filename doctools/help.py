"""A fence of the site's pages: the command in it, with what it prints."""

import html
import io
import os
import shlex
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

from gladient.cli import main

__all__ = ["fence"]


def fence(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **_: Any) -> str:
    """What pymdownx.superfences calls with `gladient … --help`."""
    program, *arguments = shlex.split(source)
    if program != "gladient" or arguments[-1:] != ["--help"]:
        raise ValueError(f"a fence of type {language} holds {source!r}; it takes 'gladient … --help'")
    printed = io.StringIO()
    with redirect_stdout(printed), patch.dict(os.environ, COLUMNS="80"):
        main(arguments)
    shown = html.escape(f"$ {source}\n{printed.getvalue()}")
    return f'<div class="{css_class} highlight"><pre><code>{shown}</code></pre></div>'
