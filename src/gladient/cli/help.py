"""What `gladient help` and `--help` print: a screen for each command."""

import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from gladient.cli.ending import EXIT_CODES
from gladient.cli.options import Option, options

__all__ = ["help_of_all", "help_of_one"]

_WIDEST = 100  # columns; longer lines are hard to read
_LEFT = 22  # columns of options' names; what is longer stands in a line of its own


def help_of_all(commands: Mapping[str, type[Any]]) -> str:
    """The commands, each in a sentence, and the exit codes."""
    sentences = {name: (command.__doc__ or "").split("\n", 1)[0] for name, command in commands.items()}
    sentences |= {"help COMMAND": "The options of a command, as COMMAND --help.", "version": "The version."}
    codes = {str(code): meaning for code, meaning in EXIT_CODES.items()}
    return "\n".join(
        [
            "usage: gladient COMMAND [OPTIONS]",
            "",
            *_rows(sentences.items(), left=12),
            "",
            "Exit codes:",
            *_rows(((f"{code}:", meaning) for code, meaning in codes.items()), left=4),
        ]
    )


def help_of_one(name: str, command: type[Any]) -> str:
    """What a command does, and its options."""
    known = options(command)
    places = "".join(f" {option.name}" for option in known if option.has_place)
    rows = [(option.shown, _says(option)) for option in known]
    left = min(_LEFT, max(len(shown) for shown, _ in rows))
    return "\n".join(
        [
            f"usage: gladient {name}{places} [OPTIONS]",
            "",
            *_paragraphs(inspect.getdoc(command) or ""),
            "",
            *_rows(rows, left),
        ]
    )


def _says(option: Option) -> str:
    more = f"(default: {option.default})" if option.default else "(required)" if option.required else ""
    return f"{option.says} {more}".strip()


def _rows(rows: Iterable[tuple[str, str]], left: int) -> list[str]:
    """Two columns; the right one is wrapped."""
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, _width() - left - 4, break_on_hyphens=False) or [""]
        if len(name) > left:
            lines.append(f"  {name}")
            name = ""
        lines += [
            f"  {one:{left}}  {each}".rstrip() for one, each in zip([name, *[""] * len(wrapped)], wrapped, strict=False)
        ]
    return lines


def _paragraphs(text: str) -> list[str]:
    """The text in lines of the terminal's width; lists and what is indented stay as they are."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        kept = paragraph.startswith((" ", "*"))
        lines += ["", *(paragraph.split("\n") if kept else textwrap.wrap(paragraph, _width()))]
    return lines[1:]


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _WIDEST)
