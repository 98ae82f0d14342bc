"""A model's tokenizer, and the text of each of its tokens."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from gladient._optional import require
from gladient.lens.bounds import in_child

__all__ = ["Words", "cut", "join_bytes"]

_MOST_TOKENS = 2**16  # whose text is asked for; more are refused by --max-tokens, or by memory
_LONGEST = 4  # bytes of a character
_BROKEN = "\ufffd"  # what bytes decode to that are no character
# Tokenizers that work on bytes name each by a character of its own: those that can be seen by themselves, the others,
# in their order, by those from 256 on.
_SEEN = [*range(33, 127), *range(161, 173), *range(174, 256)]
_HIDDEN = [byte for byte in range(256) if byte not in _SEEN]
_BYTES = {chr(byte): byte for byte in _SEEN} | {chr(256 + place): byte for place, byte in enumerate(_HIDDEN)}


class Words:
    """A model's tokenizer, each question to which is answered in a process of its own.

    Raises:
        BoundsError: if the tokenizer cannot be read, by each method.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def is_empty(self) -> bool:
        """Whether there are no words but special tokens."""
        found: bool = self._ask(lambda tokenizer: set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens))
        return found

    def read(self, text: str) -> tuple[list[int], list[str]]:
        """The text's tokens, and what of the text each one stands for; "" for the rest of a character."""

        def read(tokenizer: Any) -> Any:
            found = tokenizer(text, return_offsets_mapping=tokenizer.is_fast)
            ids = found["input_ids"]
            some = ids[:_MOST_TOKENS]
            if not tokenizer.is_fast:
                return ids, join_bytes(tokenizer.decode, some)
            special, words = set(tokenizer.all_special_ids), cut(text, found["offset_mapping"][:_MOST_TOKENS])
            absent = [token in special and not word for token, word in zip(some, words, strict=True)]  # from the text
            return ids, [tokenizer.decode([i]) if a else word for i, a, word in zip(some, absent, words, strict=True)]

        ids, words = self._ask(read)
        return ids, words + [""] * (len(ids) - len(words))

    def words(self, ids: list[int]) -> list[str]:
        """Each token as text, whatever stands before it; bytes that are no character as numbers."""
        found: list[str] = self._ask(lambda tokenizer: [_spell(tokenizer, token) for token in ids])
        return found

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        kind = require("transformers", needed_for="a tokenizer", install="pip install 'gladient[lens]'").AutoTokenizer
        return in_child(lambda: question(kind.from_pretrained(self._name, trust_remote_code=False)))


def cut(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The text cut where tokens end; what no token holds, as spaces, goes to the next one.

    >>> cut("an é", [(0, 2), (3, 4), (3, 4)])  # the last character has two bytes, a token each
    ['an', ' é', '']
    """
    ends = [0]
    for _, end in offsets:
        ends.append(max(ends[-1], end))
    return [text[begin:end] for begin, end in pairwise(ends)]


def join_bytes(decode: Callable[[list[int]], str], ids: Sequence[int]) -> list[str]:
    """Each token as text; a character that several make up stands at the first.

    >>> join_bytes(lambda ids: bytes(ids).decode(errors="replace"), list("né".encode()))
    ['n', 'é', '']
    """
    words, begin = [""] * len(ids), 0
    for end in range(1, len(ids) + 1):
        words[begin] = decode(list(ids[begin:end]))
        if not words[begin].endswith(_BROKEN) or end - begin == _LONGEST:
            begin = end
    return words


def _spell(tokenizer: Any, token: int) -> str:
    text: str = tokenizer.decode([token])
    if _BROKEN not in text:
        return text
    name: str = tokenizer.convert_ids_to_tokens(token)
    known = all(character in _BYTES for character in name)
    return bytes(_BYTES[character] for character in name).decode(errors="backslashreplace") if known else name
