"""The command line: `gladient <command> …`."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import gladient
from gladient.cli.ending import end_well

__all__ = ["main"]

# A module and a dataclass each, with the options as fields and a `run()`. Only the command that is run is imported, and
# what its `run` needs it imports itself, so that `gladient risk` stays fast.
COMMANDS = ("reproduce", "sweep", "train", "risk", "certify", "map", "explore", "data", "lens", "worth")

_HELP = ("help", "--help", "-h")
_MOVED = "bench left the package; in a clone of the repository it is `python -m benchmarks.operators`"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, one of `EXIT_CODES`.

    GLADIENT_TRACEBACK=1 shows where an error was raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return end_well(lambda: _execute(*arguments))


def _execute(name: str = "", *typed: str) -> int:
    if name in ("version", "--version"):
        print(f"gladient {gladient.__version__}")
        return 0
    if name == "bench":
        raise ValueError(_MOVED)
    if name in _HELP or not {"--help", "-h"}.isdisjoint(typed):
        return _help(*(typed[:1] if name in _HELP else [name]))
    from gladient.cli.typed import known_command, parse

    return parse(name, _command(known_command(name, COMMANDS)), typed).run() or 0


def _help(name: str = "") -> int:
    from gladient.cli.help import help_of_all, help_of_one
    from gladient.cli.typed import known_command

    if name:
        print(help_of_one(name, _command(known_command(name, COMMANDS))))
    else:
        print(help_of_all({each: _command(each) for each in COMMANDS}))
    return 0


def _command(name: str) -> type[Any]:
    found: type[Any] = getattr(import_module(f"gladient.cli.{name}"), name.capitalize())
    return found
