"""The figure of what gates are worth, in its quick size on a text made here; its means, texts and knock-outs."""

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gladient import lens
from gladient.cli import main
from gladient.experiments import judging
from gladient.experiments.figures.worth import text
from gladient.experiments.figures.worth.figure import Worth
from gladient.experiments.figures.worth.findings import found_rows, mean_error
from gladient.experiments.figures.worth.knocking import StoryAnswers, _without, asked_names
from gladient.experiments.figures.worth.trained import VARIANTS, Variant, WordSizes
from gladient.experiments.figures.worth.work import TrainedWords
from gladient.experiments.work import Measurement

SIZES = WordSizes(words=40, length=12, width=8, layers=2, heads=2)
CHAPTERS = text._chapters  # before the text that is made here takes its place


@pytest.fixture(scope="module", autouse=True)
def _small_text() -> object:
    """Forty chapters of few words, some of them names."""
    draw = random.Random(0)
    words = ["and", "the", "went", "unto", "said", ",", ".", "David", "Moses", "Saul", "Ruth"]
    chapters = [" ".join(draw.choices(words, k=120)) for _ in range(40)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_chapters", lambda: chapters)
        text.corpus.cache_clear()
        yield
    text.corpus.cache_clear()


def test_parts_do_not_meet() -> None:
    found = text.corpus(40)
    assert found.words[0] == text.RARE
    assert [len(part) for part in (found.train, found.judge, found.calibrate)] == [32 * 120, 4 * 120, 4 * 120]
    assert {found.words[name] for name in found.names} == {"David", "Moses", "Saul", "Ruth"}
    assert found.encode(["David", "Goliath"]).tolist() == [found.words.index("David"), 0]


@pytest.mark.parametrize("kind", ["mamba2", "gla", "gated_deltanet"])
def test_variants_compute_what_they_are_called(kind: str) -> None:
    """The parameters of a model with gates, under the changes by hand, and one whose decays are its own mean gates."""
    words = torch.randint(40, (2, 12), generator=torch.Generator().manual_seed(0))
    gates = Variant(kind, "gates", SIZES, seed=0)
    with torch.no_grad():
        for layer in gates.model.stack.layers:
            layer.attention.gate_parameters()[0].zero_()  # gates stay where decays start
    by_hand = {"none": lens.fix_gates(0.0), "no_erase": lens.scale_erase(0.0)}
    for variant in VARIANTS[1:]:
        if variant == "no_erase" and kind != "gated_deltanet":
            continue
        other = Variant(kind, variant, SIZES, seed=0)
        other.load_state_dict(gates.state_dict(), strict=False)
        with torch.no_grad():
            found, plain = other(words), gates(words)
            if variant in by_hand:
                with lens.intervene(gates.model, by_hand[variant]):
                    plain = gates(words)
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_decays_are_learned_each_for_itself() -> None:
    model = Variant("gla", "fixed", SIZES, seed=0)
    model(torch.ones(1, 5, dtype=torch.long)).square().sum().backward()
    first, second = (rate.grad for rate in model.rates)
    assert first.abs().sum() > 0
    assert second.abs().sum() > 0
    assert model.rates[0].data_ptr() != model.rates[1].data_ptr()


def test_the_error_of_a_mean_over_seeds_and_texts() -> None:
    draw = np.random.default_rng(0)
    found = np.array([mean_error(_sample(draw)) for _ in range(400)])
    assert found[:, 0].std() == pytest.approx(np.sqrt((found[:, 1] ** 2).mean()), rel=0.15)


def _sample(draw: np.random.Generator) -> np.ndarray:
    return draw.normal(size=(5, 1)) + draw.normal(size=(1, 20)) + 0.1 * draw.normal(size=(5, 20))


def test_shares_are_of_the_gain() -> None:
    """Losses by hand: gates gain 1, a decay keeps 3/4 when retrained and 1/4 when fitted."""
    config, measured = Worth.quick, dict[TrainedWords | StoryAnswers, list[Measurement]]()
    texts = np.linspace(0.0, 1.0, 8)
    for work in Worth().work(config):
        assert isinstance(work, TrainedWords)
        above = {"gates": 0.0, "fixed": 0.25, "none": 1.0, "no_erase": 0.5}[work.variant]
        measured[work] = [{"what": "loss", "losses": (texts + above).tolist()}]
        if work.variant == "gates":
            measured[work].append({"what": "fitted", "losses": (texts + 0.75).tolist()})
    rows = {(row.family, row.measure): row.value for row in found_rows(measured)}
    assert rows["gla", "kept by decays, retrained"] == pytest.approx(0.75)
    assert rows["gla", "kept by decays, fitted"] == pytest.approx(0.25)
    assert rows["gated_deltanet", "rise, retrained without erasing"] == pytest.approx(0.5)
    assert ("gla", "rise, retrained without erasing") not in rows


def test_a_knock_out_of_each_text_is_that_of_the_lens() -> None:
    model, words = Variant("gla", "gates", SIZES, seed=0), torch.randint(40, (2, 12))
    with torch.no_grad():
        with lens.intervene(model.model, _without(torch.tensor([1, 6]))):
            both = model(words)
        for row, place in enumerate((1, 6)):
            with lens.intervene(model.model, lens.knock_out(range(place, place + 4))):
                torch.testing.assert_close(model(words[row : row + 1])[0], both[row])


def test_questions_are_answered_by_their_source() -> None:
    from gladient.experiments.demo.story import VOCABULARY

    asked = asked_names(20)
    for words, (source, other, _) in zip(asked.texts.tolist(), asked.places.tolist(), strict=True):
        told = [VOCABULARY[word] for word in words]
        assert told[source : source + 2] == [told[-1], "has"]
        assert told[source + 3] == told[-3]  # the thing that is asked for
        assert told[other + 1] == "has"
        assert told[other] != told[-1]


def test_the_quick_figure_and_one_of_its_models(
    tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = replace(Worth.quick, sizes=replace(SIZES, length=24), asked=replace(Worth.quick.asked, texts=6))
    monkeypatch.setattr(Worth, "quick", quick)
    monkeypatch.setenv("GLADIENT_SCHEDULER", scheduler)
    out = tmp_path / "out"
    assert main(["reproduce", "--figure", "worth", "--quick", "--out", str(out)]) == 0
    assert "the rank correlation of heads' worth and memory is" in capsys.readouterr().out
    rows = list(csv.DictReader((out / "results.csv").read_text("utf-8").splitlines()))
    assert {row["family"] for row in rows} == {"mamba2", "gla", "gated_deltanet"}
    assert len(list((out / "weights").glob("*.safetensors"))) == 10
    work = next(each for each in Worth().work(quick) if each.name == "gla-gates-seed0")
    again = json.loads(json.dumps(work.run(tmp_path).measurements))
    assert again == json.loads((out / "points" / "gla-gates-seed0.json").read_text("utf-8"))["records"]

    damaged = tmp_path / "a.safetensors"
    (model,) = judging.load_models(str(out / "weights" / "gla-gates-seed0.safetensors"))
    assert model.name == "gla-gates-seed0"
    assert model.encode("And David said")[0].shape == (1, 3)
    with pytest.raises(ValueError, match=r"was trained with its gates taken away \(none\)"):
        judging.load_models(str(out / "weights" / "gla-none-seed0.safetensors"))
    damaged.write_text("x", "utf-8")
    for name, message in (("b.safetensors", "is not a file"), (str(damaged), "not a whole gladient checkpoint")):
        with pytest.raises(ValueError, match=message):
            judging.load_models(name)


def test_the_text_of_the_package() -> None:
    pytest.importorskip(text.PACKAGE)
    chapters = CHAPTERS()
    assert len(chapters) > 1000
