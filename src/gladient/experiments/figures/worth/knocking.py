"""Do answers hang on the words that they come from? Knock-outs of names, in a text and in stories that ask for them."""

import random
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor, nn

from gladient import lens
from gladient.experiments.demo.models import DEMO, demo_models
from gladient.experiments.demo.story import encode, story
from gladient.experiments.figures.worth.text import Corpus
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.lens.load import quiet_transformers

__all__ = ["KNOCKED", "Probes", "StoryAnswers", "asked_names", "knock_outs", "repeated_names"]

KNOCKED = ("source", "other name", "any word")
"""What is knocked out: the answer where it stood before, another name, any word."""
_MIXED = 4  # words that an embedding takes part in, its own and the three after it: knocked out together
_APART = 8  # the least distance of a source from the answer, which mixed embeddings do not reach
_STORY = 64  # words of a story before the answer


@dataclass(frozen=True)
class Probes:
    """Texts whose last word is a name that stood in them before, and where things stand.

    Attributes:
        texts: numbers of words, [N, T + 1].
        places: of `KNOCKED`, [N, 3].
    """

    texts: Int[Tensor, "N T"]
    places: Int[Tensor, "N 3"]


def repeated_names(text: Corpus, length: int, count: int) -> Probes:
    """Names of the held-out text that stood once in the `length` words before them; at most `count`.

    Raises:
        ValueError: if there is none.
    """
    draw, found = random.Random(0), list[tuple[int, list[int]]]()
    names = torch.isin(text.judge, torch.tensor(sorted(text.names)))
    for start in (names.nonzero()[:, 0] - length).tolist():
        before = text.judge[start : start + length] if start >= 0 else text.judge[:0]
        same = (before == text.judge[start + length]).nonzero()[:, 0].tolist()
        if len(same) == 1 and same[0] < length - _APART:
            free = [place for place in range(length - _APART) if abs(place - same[0]) >= _MIXED]
            others = [place for place in free if names[start + place]]
            if others:
                found.append((start, [same[0], draw.choice(others), draw.choice(free)]))
    if not found:
        raise ValueError(f"of {len(text.words)} words no name is repeated within {length}; take a larger vocabulary")
    kept = [found[place] for place in torch.linspace(0, len(found) - 1, min(count, len(found))).long().tolist()]
    texts = torch.stack([text.judge[start : start + length + 1] for start, _ in kept])
    return Probes(texts, torch.tensor([each for _, each in kept]))


def asked_names(count: int) -> Probes:
    """First questions of a day in stories of the demo: who has a thing, with two facts of the day or more."""
    draw, found = random.Random(0), list[tuple[list[str], list[int]]]()
    while len(found) < count:
        words = story(3 * _STORY, draw)
        ends = [place for place in range(_STORY, len(words) - 1) if words[place - 1] == "?"]
        made = [_first_question(words[end - _STORY : end + 1], draw) for end in ends]
        found += [each for each in made if each is not None][:1]
    return Probes(encode([words for words, _ in found]), torch.tensor([places for _, places in found]))


def _first_question(words: list[str], draw: random.Random) -> tuple[list[str], list[int]] | None:
    """The text and where things stand; None if the answer did not stand in it once, in a fact of the last day."""
    day = max((place for place, pair in enumerate(pairwise(words)) if pair == ("new", "day")), default=0)
    owners = [place - 1 for place in range(1, len(words)) if words[place] == "has" and words[place - 1] != "who"]
    sources = [place for place in owners if place > day and words[place] == words[-1]]
    mentions = [place for place in range(day, _STORY) if words[place] == words[-1]]
    others = [place for place in owners if place > day and words[place] != words[-1]]
    free = [place for place in range(_STORY - _APART) if sources and abs(place - sources[0]) >= _MIXED]
    if len(mentions) != 1 or mentions != sources or not others or not free:
        return None
    return words, [sources[0], draw.choice(others), draw.choice(free)]


def knock_outs(model: nn.Module, asked: Probes, *, what: str) -> list[Measurement]:
    """The log probability of each answer, and whether it is the likeliest word: as is, and with words knocked out."""

    def answers(without: str) -> Measurement:
        found = model(input_ids=asked.texts[:, :-1])
        logits = found if isinstance(found, Tensor) else found.logits
        logs, answer = logits[:, -1].log_softmax(1), asked.texts[:, -1]
        right = (logs.argmax(1) == answer).double().tolist()
        return {
            "what": what,
            "without": without,
            "logs": logs.gather(1, answer[:, None])[:, 0].tolist(),
            "right": right,
        }

    with torch.no_grad(), quiet_transformers():
        found = [answers("nothing")]
        for place, name in zip(asked.places.T, KNOCKED, strict=True):
            with lens.intervene(model, _without(place)):
                found.append(answers(name))
    return found


def _without(places: Int[Tensor, " N"]) -> lens.Change:
    """The knock-out of a word and the three after it, which it is mixed into; another one in each text."""

    def change(record: lens.Record) -> lens.Recurrence:
        x = record.recurrence
        steps = torch.arange(x.v.shape[1])
        gone = (steps >= places[:, None]) & (steps < places[:, None] + _MIXED)
        return replace(x, v=x.v.masked_fill(gone[:, :, None, None], 0.0))

    return change


@dataclass(frozen=True)
class StoryAnswers:
    """Knock-outs in a model of the demo, which was trained to answer; it is trained here if it is not kept.

    Args:
        kind: gla or mamba2.
        probes: questions.
    """

    kind: str
    probes: int
    variant: str = "story"
    seed: int = 0

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.kind}-story"

    @property
    def steps(self) -> int:
        """Those of the training."""
        return sum(config.training.steps for config in DEMO if config.kind == self.kind)

    @property
    def cost(self) -> float:
        """Texts that are read, backward passes counting twice; stories have half the words."""
        return 1.5 * self.steps * DEMO[0].training.batch_size

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The answers, as they are and with words knocked out."""
        configs = tuple(config for config in DEMO if config.kind == self.kind)
        model = demo_models(configs, on_step=lambda name, done, of: on_step(done))[0].module
        return Outcome(knock_outs(model, asked_names(self.probes), what="stories"))
