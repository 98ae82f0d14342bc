"""The command line: `gladient <command> …`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro
from tyro.extras import subcommand_cli_from_dict

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
    """Run one command; returns its exit code, 2 for bad input (one line on stderr), 130 when interrupted."""
    command = subcommand_cli_from_dict(
        COMMANDS,
        args=argv,
        prog="gladient",
        description="Gated linear attention, shown as the gradient descent it performs.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        return command.run() or 0
    except (ValueError, OSError) as error:
        print(f"gladient: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gladient: interrupted", file=sys.stderr)
        return 130
