"""From what was typed to a command: short names, the nearest name, and what is wrong in one line."""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

import tyro

from gladient._text import did_you_mean
from gladient.cli.options import SHORT, Option, options

__all__ = ["known_command", "parse"]

_FRAME = re.compile(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]")


def known_command(name: str, commands: Collection[str]) -> str:
    """The name itself.

    Raises:
        ValueError: if there is no such command.
    """
    if name in commands:
        return name
    if not name or name.startswith("-"):
        raise ValueError(f"no command is given; it comes first: {', '.join(commands)}; see gladient help")
    near = did_you_mean(name, commands) or f"; the commands are {', '.join(commands)}"
    raise ValueError(_see(f"there is no command {name!r}{near}", "help"))


def parse(name: str, command: type[Any], typed: Sequence[str]) -> Any:
    """The command with the options that were typed.

    Raises:
        ValueError: if they are not its options, or one cannot be read.
    """
    known = options(command)
    names = _names(known)
    words = [_long(word, names) for word in typed]
    try:
        for head, times in Counter(map(_head, words)).items():
            if times > 1 and head in names:  # the last would win in silence
                raise ValueError(f"{head} is given {times} times; give it once")
        return _parsed(command, words, known)
    except ValueError as error:
        raise ValueError(_see(str(error), f"{name} --help")) from None


def _see(error: str, help_: str) -> str:
    return error if error.endswith("?") else f"{error}; see gladient {help_}"


def _parsed(command: type[Any], words: Sequence[str], known: Sequence[Option]) -> Any:
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(command, args=words, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stopped:
        if not stopped.code:
            raise
    raise ValueError(_message(box.getvalue(), words, known))


def _long(word: str, names: Collection[str]) -> str:
    head, equals, rest = word.partition("=")
    long = SHORT.get(head, head)
    return f"{long}{equals}{rest}" if long in names else word


def _head(word: str) -> str:
    """The name of an option, which may be typed with _ for - and = before its value."""
    return word.partition("=")[0].replace("_", "-")


def _message(box: str, words: Sequence[str], known: Sequence[Option]) -> str:
    """What tyro says in a box of several lines, in one line and our words."""
    rows = [_FRAME.sub("", row).rstrip() for row in box.splitlines()[1:]]
    parts = [list(part) for rule, part in groupby(rows, lambda row: not row.strip("- ")) if not rule]
    said = " ".join(" ".join(parts[0]).split()).rstrip(".") if parts else "bad options"
    if wrong := _unknown(words, _names(known)):  # first of all: what else is said may follow from it
        return wrong
    if said.startswith("Unrecognized options: "):
        return f"{said.partition(': ')[2]} follows no option that takes it"
    if said.startswith("Missing from"):
        # names stand 4 to 6 columns in, what explains them farther
        named = {row.split()[0] for row in parts[0] if re.match(r" {4,6}\S", row)}
        lacking = [o.name for o in known if o.required and (o.name in named or (o.has_place and named - _names(known)))]
        return f"{', '.join(lacking)} must be given"
    if choice := re.fullmatch(r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)", said):
        value, option, right = choice.groups()
        return f"{option} is {value}; choose one of {right.replace(chr(39), '')}"
    if lone := re.match(r"Missing value for argument '(.*?)'", said):
        return f"{lone[1]} stands without a value; type one after it"
    return said.removeprefix("Error parsing ")


def _names(known: Sequence[Option]) -> set[str]:
    return {option.name for option in known if not option.has_place}


def _unknown(words: Sequence[str], names: Collection[str]) -> str:
    """Which option is none of the command's; nothing if all are."""
    for word in words:
        head = _head(word)
        if re.match(r"--?[^\W\d]", head) and head not in names:  # not -0.2, nor - for standard input
            return f"there is no option {head}{did_you_mean(head, names)}"
    return ""
