"""Text of other people's files, made safe to print."""

import unicodedata

__all__ = ["printable"]


def printable(text: object) -> str:
    r"""The text in one line; what a terminal would obey or hide (escapes, line ends, turns of direction) spelled out.

    >>> printable("a\x1b[2J b\r\n\u202e c"), printable("naïve, 日本, שלום")
    ('a\\x1b[2J b\\r\\n\\u202e c', 'naïve, 日本, שלום')
    """
    # Spaces of every width are fine to look at, though Python counts all but one of them as unprintable.
    shown = (c if c.isprintable() or unicodedata.category(c) == "Zs" else _spelled(c) for c in str(text))
    return "".join(shown)


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")  # surrogates too, which UTF-8 cannot write
