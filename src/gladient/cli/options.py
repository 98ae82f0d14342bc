"""The options of a command as its dataclass has them: names, what they take, defaults, and what they are for."""

import ast
import inspect
import textwrap
from dataclasses import MISSING, Field, dataclass, fields
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

__all__ = ["SHORT", "Option", "options"]

SHORT = {"-n": "--n", "-r": "--r", "-d": "--d", "-o": "--out"}
"""Short names of options, in every command that has the long one."""

_NAMES = {int: "INT", float: "FLOAT", str: "STR", bool: ""}


@dataclass(frozen=True)
class Option:
    """An option, or an argument that has a place and no name.

    Attributes:
        name: as it is typed, --batch-size; FILE for what has a place.
        takes: what follows it, INT; empty for a switch.
        says: what it is for.
        default: as it would be typed; empty if what is left out stays out.
        required: whether it must be given.
    """

    name: str
    takes: str
    says: str
    default: str
    required: bool

    @property
    def has_place(self) -> bool:
        """Whether it stands without a name."""
        return not self.name.startswith("-")

    @property
    def shown(self) -> str:
        """The names, and what follows them."""
        short = next((f"{short}, " for short, long in SHORT.items() if long == self.name), "")
        return f"{short}{self.name} {self.takes}".rstrip()


def options(command: type[Any]) -> list[Option]:
    """The options of a command, its own before those that it shares with others."""
    hints, says = get_type_hints(command, include_extras=True), _docstrings(command)
    own = sorted(fields(command), key=lambda field: [*says, field.name].index(field.name))
    found = [_option(field, hints[field.name], says.get(field.name, "")) for field in own]
    return sorted(found, key=lambda option: not option.has_place)


def _docstrings(command: type[Any]) -> dict[str, str]:
    """The text below each field, from the class itself up to what it inherits."""
    found: dict[str, str] = {}
    for kind in command.__mro__[:-1]:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found.setdefault(ast.unparse(field.target), " ".join(str(text.value.value).split()))
    return found


def _option(field: "Field[Any]", hint: Any, says: str) -> Option:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    default = field.default if field.default_factory is MISSING else field.default_factory()
    plain = default is MISSING or default is None or default is False or default in ("", ())
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    has_place = tyro.conf.Positional in marks
    return Option(
        name=field.name.upper() if has_place else f"--{field.name.replace('_', '-')}",
        takes="" if has_place else _takes(hint),
        says=says,
        default="" if plain else shown,
        required=default is MISSING,
    )


def _takes(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        named = [mark.metavar for mark in arguments[1:] if getattr(mark, "metavar", None)]
        return named[0] if named else _takes(arguments[0])
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin is tuple:
        return f"{_takes(arguments[0])} …"
    if origin in (Union, UnionType):
        return "|".join(_takes(each) for each in arguments if each is not NoneType)
    return _NAMES.get(hint, hint.__name__.upper())
