"""`gladient explore`: one setting on a local page, moved by hand."""

import os
import sys
from dataclasses import dataclass

from gladient.cli.numbers import Whole

__all__ = ["Explore"]


@dataclass(frozen=True, kw_only=True)
class Explore:
    """A page on which sliders set the prompt, and ladder, weights, stationary points and gain map follow.

    Example: gladient explore

    A button trains a small model while its risk falls onto the exact line. The page is served to this machine alone
    and asks no other host for anything; Ctrl-C ends it.
    """

    port: Whole = 0
    """Port of the page on 127.0.0.1; 0: the first free one from 2718 on."""
    no_browser: bool = False
    """Print the page's address and do not open it."""
    edit: bool = False
    """Open it as a marimo notebook: a copy, explore.py in this folder, made if there is none."""

    def run(self) -> None:
        """Become the process that serves it until Ctrl-C."""
        from gladient.explore.server import command

        if not 0 <= self.port < 2**16:
            raise ValueError(f"--port is {self.port}; it must be between 0 and 65535, and 0 takes one that is free")
        served = command(self.port, browser=not self.no_browser, edit=self.edit)
        sys.stdout.flush()
        os.execv(served[0], served)
