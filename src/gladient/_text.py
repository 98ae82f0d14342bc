"""Text for others to read: what other people's files say, safe to print, and JSON that every reader takes."""

import json
import math
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["did_you_mean", "finite", "json_text", "plus_minus", "printable"]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """What follows a name that nothing has: the known one that is most like it, if one is.

    >>> did_you_mean("rsik", ["risk", "train"]), did_you_mean("xyz", ["risk", "train"])
    ('; did you mean risk?', '')
    """
    near = get_close_matches(word, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def printable(text: object) -> str:
    r"""The text in one line; what a terminal would obey or hide (escapes, line ends, turns of direction) spelled out.

    >>> printable("a\x1b[2J b\r\n\u202e c"), printable("naïve, 日本, שלום")
    ('a\\x1b[2J b\\r\\n\\u202e c', 'naïve, 日本, שלום')
    """
    # Spaces of every width are fine to look at, though Python counts all but one of them as unprintable.
    shown = (c if c.isprintable() or unicodedata.category(c) == "Zs" else _spelled(c) for c in str(text))
    return "".join(shown)


def plus_minus(value: float, error: float) -> str:
    """A number and its standard error, with as many decimals as their size leaves readable.

    >>> plus_minus(0.5, 0.01), plus_minus(-1234.5, 20.0), plus_minus(3.0e9, 2.0e8)
    ('0.5000 ± 0.0100', '-1234.5 ± 20.0', '3.000e+09 ± 2.000e+08')
    """
    size = max(abs(value), abs(error))
    form = ".4f" if size < 100.0 else ".1f" if size < 1e6 else ".3e"
    return f"{value:{form}} ± {error:{form}}"


def json_text(value: Any, **options: Any) -> str:
    """JSON with null for numbers that are not finite, which JSON has no words for; what lacks them says why beside it.

    >>> json_text({"error": float("nan"), "tolerance": (1e-6, float("inf"))})
    '{"error": null, "tolerance": [1e-06, null]}'
    """
    return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """The same JSON value with None for numbers that are not finite.

    >>> finite([1.0, float("-inf")])
    [1.0, None]
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")  # surrogates too, which UTF-8 cannot write
