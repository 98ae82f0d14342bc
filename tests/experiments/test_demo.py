"""The demo: its story, its training with a few steps, its cache, and a text of the user's."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gladient.experiments.demo import models as demo
from gladient.experiments.demo import story as stories
from gladient.experiments.demo.models import DEMO, cache_folder, demo_models, load_demo
from gladient.lens.load import look

SMALL = tuple(
    replace(config, training=replace(config.training, steps=3, batch_size=2), width=16, heads=2) for config in DEMO
)


def test_every_answer_follows_from_the_day() -> None:
    words = stories.story(5000, random.Random(1))
    known: dict[str, str] = {}
    for place, word in enumerate(words[:-1]):
        if words[place : place + 2] == ["a", "new"]:
            known = {}
        if word == "has" and words[place - 1] != "who":
            known[words[place + 2]] = words[place - 1]
        if word == "?":
            assert words[place + 1] == known[words[place - 1]]
    assert stories.asked(stories.encode([words])).sum() > 300


def test_a_text_goes_there_and_back() -> None:
    words = stories.story(200, random.Random(2))
    assert stories.split_words("".join(stories.with_spaces(words))) == words


def test_models_are_trained_once(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    random_state = torch.get_rng_state()
    first = demo_models(SMALL, folder=tmp_path, on_step=lambda *step: steps.append(step))
    assert steps == [(config.kind, done + 1, 3) for config in SMALL for done in range(3)]
    assert torch.equal(torch.get_rng_state(), random_state)
    second = demo_models(SMALL, folder=tmp_path, on_step=lambda *step: steps.append(step))
    assert len(steps) == 6
    words = stories.encode([stories.story(20, random.Random(3))])
    for a, b in zip(first, second, strict=True):
        assert (a.name, a.recall, a.questions) == (b.name, b.recall, b.questions)
        assert torch.equal(demo._logits(a.module, words), demo._logits(b.module, words))


def test_a_damaged_or_other_cache_is_made_again(tmp_path: Path) -> None:
    steps: list[int] = []
    gla = SMALL[0]
    (model,) = demo_models((gla,), folder=tmp_path)
    file = tmp_path / f"{gla.kind}.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    demo_models((gla,), folder=tmp_path, on_step=lambda name, done, of: steps.append(done))
    assert steps == [1, 2, 3]
    assert file.read_bytes() == whole
    demo_models((replace(gla, seed=1),), folder=tmp_path, on_step=lambda name, done, of: steps.append(done))
    assert len(steps) == 6
    assert model.questions > 100


def test_a_killed_training_leaves_nothing_half_done(tmp_path: Path) -> None:
    def stop(name: str, done: int, of: int) -> None:
        if (name, done) == (SMALL[1].kind, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_models(SMALL, folder=tmp_path, on_step=stop)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [f"{SMALL[0].kind}.safetensors"]
    again: list[str] = []
    demo_models(SMALL, folder=tmp_path, on_step=lambda name, done, of: again.append(name))
    assert set(again) == {SMALL[1].kind}


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "gladient" / "lens-demo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "gladient" / "lens-demo"


def test_every_layer_of_the_demo_is_rebuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "cache_folder", lambda: tmp_path)
    for loaded in load_demo(SMALL):
        view = look(loaded, "A new day. Ada has the key. Who has the key?", max_bytes=2**30)
        assert view.tokens[-1] == "?"
        assert view.position == len(view.tokens) - 1
        assert len(view.records) == 2
        assert all(record.reconstruction_error.passed for record in view.records)
