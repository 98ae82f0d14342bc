"""The command line: `gladient <command> …`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from tyro.extras import subcommand_cli_from_dict

import gladient
from gladient.cli._ending import end_well, errors_in_one_line
from gladient.cli.bench import Bench
from gladient.cli.certify import Certify
from gladient.cli.lens import Lens
from gladient.cli.map import Map
from gladient.cli.reproduce import Reproduce
from gladient.cli.risk import Risk
from gladient.cli.sweep import Sweep
from gladient.cli.train import Train

__all__ = ["main"]

# One dataclass a command, with its options as fields and a `run()`; what `run` needs it imports itself, so that
# `gladient --help` and `gladient risk` stay fast.
COMMANDS: dict[str, Callable[..., Any]] = {
    "reproduce": Reproduce,
    "sweep": Sweep,
    "train": Train,
    "risk": Risk,
    "certify": Certify,
    "map": Map,
    "bench": Bench,
    "lens": Lens,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, 2 for bad input (one line on stderr), 130 when interrupted.

    Bad options leave by SystemExit(2), as with argparse. GLADIENT_TRACEBACK=1 shows where an error was raised.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return end_well(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"gladient {gladient.__version__}")
        return 0
    with errors_in_one_line(arguments, COMMANDS):
        command = subcommand_cli_from_dict(
            COMMANDS,
            args=arguments,
            prog="gladient",
            description="Gated linear attention, shown as the gradient descent it performs. --version: which one.",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    return command.run() or 0
