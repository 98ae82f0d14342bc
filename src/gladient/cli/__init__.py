"""The command line: `gladient <command> …`."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import tyro

import gladient
from gladient.cli.ending import EXIT_CODES, end_well, errors_in_one_line

__all__ = ["main"]

# A module and a dataclass each, with the options as fields and a `run()`. Only the command that is run is imported, and
# what its `run` needs it imports itself, so that `gladient risk` stays fast.
COMMANDS = ("reproduce", "sweep", "train", "risk", "certify", "map", "explore", "data", "lens")

_MOVED = "bench left the package; in a clone of the repository it is `python -m benchmarks.operators`"

_CODES = "; ".join(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items())
_DESCRIPTION = (
    "Gated linear attention, shown as the gradient descent it performs. --version prints the version. "
    f"Exit codes: {_CODES}."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, one of `EXIT_CODES`.

    Bad options leave by SystemExit(2), as with argparse. GLADIENT_TRACEBACK=1 shows where an error was raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return end_well(lambda: _execute(arguments))


def _execute(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"gladient {gladient.__version__}")
        return 0
    if arguments[:1] == ["bench"]:
        raise ValueError(_MOVED)
    with errors_in_one_line(arguments, COMMANDS):
        command = _parse(arguments)
    return command.run() or 0


def _parse(arguments: Sequence[str]) -> Any:
    config = (tyro.conf.FlagCreatePairsOff,)
    if arguments and arguments[0] in COMMANDS:
        name, *options = arguments
        return tyro.cli(_command(name), args=options, prog=f"gladient {name}", config=config)
    return tyro.extras.subcommand_cli_from_dict(
        {name: _command(name) for name in COMMANDS},
        args=arguments,
        prog="gladient",
        description=_DESCRIPTION,
        config=config,
    )


def _command(name: str) -> type[Any]:
    found: type[Any] = getattr(import_module(f"gladient.cli.{name}"), name.capitalize())
    return found
