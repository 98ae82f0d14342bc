"""Options of the commands that train, and what they print at the end."""

import importlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from gladient._text import printable
from gladient.cli.numbers import Whole

if TYPE_CHECKING:
    from gladient.experiments import Experiment, Made
    from gladient.experiments.engine.experiment import C, P, R, W

__all__ = ["Engine", "ModelOptions", "RunOptions", "print_made"]


class Engine(TypedDict):
    """Where the work is done; see `experiments.make`."""

    resume: bool
    workers: int
    scheduler: str | None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where the work is done, and whether it goes on from what is there."""

    resume: bool = False
    """Go on with what the folder already holds, if anything."""
    workers: Whole = os.cpu_count() or 1
    """Processes that work side by side, one thread each."""
    scheduler: str | None = None
    """tcp://HOST:PORT of Dask workers that do it instead; left out: $GLADIENT_SCHEDULER."""
    device: str = "cpu"
    """Where to compute: cpu, cuda, cuda:0 …"""

    def engine(self) -> Engine:
        """These options as arguments of `experiments.make`."""
        scheduler = self.scheduler or os.environ.get("GLADIENT_SCHEDULER") or None
        if scheduler and not re.fullmatch(r"(\w+://)?.+:\d+", scheduler):
            raise ValueError(f"scheduler is {scheduler!r}; it must be an address with a port: tcp://HOST:8786")
        return {"resume": self.resume, "workers": self.workers, "scheduler": scheduler}


@dataclass(frozen=True, kw_only=True)
class ModelOptions(RunOptions):
    """The same, and where models of the user's own come from."""

    register: str | None = None
    """A module with models of your own, such as my_package.gates, installed or on PYTHONPATH."""

    def import_models(self) -> None:
        """Import that module.

        Raises:
            ValueError: if it is not a module's name, as a path.
            ImportError: if it cannot be imported.
        """
        if self.register is None:
            return
        if not all(part.isidentifier() for part in self.register.split(".")):
            raise ValueError(f"register is {self.register!r}; it must be the name of a module, as my_package.gates")
        try:
            importlib.import_module(self.register)
        except ImportError as error:
            raise ImportError(
                f"register is {self.register!r}, which cannot be imported ({error}); name a module that is installed "
                "or on PYTHONPATH: the current folder is not searched"
            ) from None


def print_made(figure: "Experiment[C, W, R, P]", made: "Made[R]", out: Path, *, misses: bool = True) -> int:
    """Print what was reached, and each miss if `misses`; 1 if a model missed, diverged or is undecided."""
    others = {"missed": figure.missed(made.rows), "undecided": figure.undecided(made.rows)}
    for outcome, rows in others.items() if misses else ():
        for row in rows:
            print(printable(f"{outcome}: {figure.describe(row)}"))
    for line in made.diverged:
        print(printable(f"diverged: {line}"))
    print(figure.verdict(made.rows))
    if figure.unit:
        print(f"risk: {figure.unit}")
    for line in figure.summary(figure.judged(made.rows)):
        print(printable(line))
    print(f"report: {printable(out / 'report.html')}")
    return 1 if any(others.values()) or made.diverged else 0
