"""Texts with something to remember: who has what, asked for later; a new day, and what was known no longer holds."""

import random
import re
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

__all__ = ["VOCABULARY", "asked", "encode", "split_words", "story", "with_spaces"]

_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn")
_THINGS = ("key", "cup", "map", "book", "lamp", "coin")
_ASIDES = tuple(
    line.split()
    for line in (
        "the rain falls on the roof .",
        "a bird sings in the tree .",
        "the wind is cold .",
        "children play by the river .",
        "the cat sleeps .",
    )
)
VOCABULARY = (
    *(".", "?", "a", "new", "day", "who", "has", "the", *_NAMES, *_THINGS),
    *sorted({word for aside in _ASIDES for word in aside} - {"a", "the", "."}),
)
"""Every word of the stories; its place is the word's number."""
_NUMBER = {word: number for number, word in enumerate(VOCABULARY)}


def story(length: int, generator: random.Random) -> list[str]:
    """The first `length` words of days, each with one to four facts and questions about them.

    >>> " ".join(story(21, random.Random(3)))
    'a new day . Ben has the lamp . Cleo has the coin . who has the lamp ? Ben .'
    """
    words: list[str] = []
    while len(words) < length:
        words += _day(generator)
    return words[:length]


def _day(generator: random.Random) -> list[str]:
    things = generator.sample(_THINGS, generator.randint(1, 4))
    owner = dict(zip(things, generator.sample(_NAMES, len(things)), strict=True))
    lines = [[owner[thing], "has", "the", thing, "."] for thing in things]
    if generator.random() < 0.4:
        lines.insert(generator.randint(0, len(lines)), generator.choice(_ASIDES))
    for thing in generator.choices(things, k=len(things) + 1):
        lines.append(["who", "has", "the", thing, "?", owner[thing], "."])
    return ["a", "new", "day", ".", *(word for line in lines for word in line)]


def split_words(text: str) -> list[str]:
    """The words and signs of a text.

    Raises:
        ValueError: if the story's language lacks one.

    >>> split_words("Who has the key? Ada.")
    ['who', 'has', 'the', 'key', '?', 'Ada', '.']
    """
    words = [word if word in _NUMBER else word.lower() for word in re.findall(r"\w+|[^\w\s]", text)]
    words = [word.capitalize() if word.capitalize() in _NAMES else word for word in words]
    unknown = sorted({word for word in words if word not in _NUMBER})
    if unknown:
        raise ValueError(
            f"the demo's models do not know {', '.join(map(repr, unknown[:5]))}; they know: {' '.join(VOCABULARY)}"
        )
    return words


def encode(texts: Sequence[Sequence[str]]) -> Int[Tensor, "B T"]:
    """Words as numbers.

    >>> encode([["a", "new", "day"]])
    tensor([[2, 3, 4]])
    """
    return torch.tensor([[_NUMBER[word] for word in words] for words in texts])


def asked(tokens: Int[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """Where the next token answers a question."""
    return tokens == _NUMBER["?"]


def with_spaces(words: Sequence[str]) -> list[str]:
    r"""Words as they stand in a text, a day a line.

    >>> "".join(with_spaces("a new day . Ada has the key . a new day".split()))
    'a new day. Ada has the key.\na new day'
    """
    return [_space(words[place : place + 2]) + word if place else word for place, word in enumerate(words)]


def _space(words: Sequence[str]) -> str:
    """What stands before the first of two words."""
    return "" if words[0] in ".?" else "\n" if list(words) == ["a", "new"] else " "
