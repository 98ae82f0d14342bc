"""The text of tokens: characters of several bytes are shown once, whole, whatever tokens they fall into."""

from pathlib import Path

import pytest

from gladient.lens.words import Words, join_bytes

transformers = pytest.importorskip("transformers")
TEXT = "né, naïve  🙂\n日本 gates gates <s>é"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Words:
    """Of a tokenizer of bytes, that knows one word of several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("words")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>"], initial_alphabet=alphabet, vocab_size=264, show_progress=False
    )
    tokenizer.train_from_iterator([" gates gates"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    return Words(str(Path(folder)))


def test_tokens_put_together_are_the_text(words: Words) -> None:
    ids, found = words.read(TEXT)
    assert found[0] == "<s>"  # which the tokenizer adds
    assert "".join(found[1:]) == TEXT
    assert len(ids) == len(found)
    assert found.count("🙂") + found.count(" 🙂") == 1
    assert found[found.index("é") + 1] == ""
    assert " gates" in found
    assert not words.is_empty()


def test_a_token_alone_that_is_no_character_is_named_by_its_bytes(words: Words) -> None:
    ids, found = words.read("é a")
    assert found[1:] == ["é", "", " ", "a"]
    assert words.words(ids) == ["<s>", r"\xc3", r"\xa9", " ", "a"]


@pytest.mark.parametrize("text", ["", "né", "🙂🙂 x", "日本"])
def test_without_offsets_bytes_are_joined(text: str) -> None:
    found = join_bytes(lambda ids: bytes(ids).decode(errors="replace"), list(text.encode()))
    assert "".join(found) == text
    assert [len(word) for word in found if word] == [1] * len(text)


def test_bytes_that_are_no_text_end() -> None:
    """Four bytes are as long as a character may be."""
    found = join_bytes(lambda ids: bytes(ids).decode(errors="replace"), [0xFF] * 6)
    assert "".join(found) == "\ufffd" * 6
