"""`gladient lens`: the page, the summaries, and bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gladient import lens
from gladient.cli import main
from gladient.experiments.demo import models as demo
from gladient.experiments.demo.models import DEMO
from gladient.lens import HeadWorth, Rise, Worth

transformers = pytest.importorskip("transformers")
hub = pytest.importorskip("huggingface_hub")
STORY = "A new day. Ada has the key. Ben has the map. Who has the key?"


@pytest.fixture(autouse=True, scope="module")
def _small_demo(tmp_path_factory: pytest.TempPathFactory) -> object:
    small = tuple(
        replace(config, training=replace(config.training, steps=2, batch_size=2), width=16, heads=2) for config in DEMO
    )
    load = demo.load_demo
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr(demo, "cache_folder", lambda: cache)
        patch.setattr(demo, "load_demo", lambda **options: load(small, **options))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Mamba-2 of random weights with a tokenizer of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    path = tmp_path_factory.mktemp("model")
    words = {word: number for number, word in enumerate(["?", "gates", "weigh", "tokens", "."])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"num_heads": 4, "head_dim": 8, "hidden_size": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
    config = transformers.Mamba2Config(vocab_size=len(words), num_hidden_layers=3, **sizes, **ids)
    transformers.Mamba2ForCausalLM(config).save_pretrained(path)
    return path


def test_demo_writes_both_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "lens.html"
    assert main(["lens", "demo", "--text", STORY, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "gla: 2 of 2 layers proved" in printed
    assert "mamba2: 2 of 2 layers proved" in printed
    assert out.read_text("utf-8").startswith("<!doctype html>")


def test_a_folder_and_chosen_layers(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("gates weigh tokens . tokens weigh gates .", "utf-8")
    assert main(["lens", str(folder), "--file", str(text), "--layers", "2", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[folder.name]
    assert found["tokens"] == 8
    assert [layer["layer"] for layer in found["layers"]] == [0, 2]
    for layer in found["layers"]:
        assert layer["reconstruction"]["passed"]
        assert layer["reconstruction"]["error"] < 1e-6
        assert [head["head"] for head in layer["heads"]] == [0, 1, 2, 3]
        for head in layer["heads"]:
            assert 0 <= head["memory_length"] <= 7
            assert head["last"] == pytest.approx(1)  # all eight tokens
            assert set(head["closing_tokens"]) <= {"gates", "weigh", "tokens", "."}
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_layer_that_is_not_rebuilt_fails(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gladient.lens.adapters import mamba2

    step = mamba2._step
    monkeypatch.setattr(mamba2, "_step", lambda call: 1.01 * step(call))
    out = tmp_path / "lens.html"
    assert main(["lens", str(folder), "--text", "gates weigh tokens", "--out", str(out)]) == 1
    assert "0 of 3 layers proved" in capsys.readouterr().out
    assert out.exists()


def test_a_layer_with_nan_is_named_with_its_reason(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    """On the page, in words, and as JSON that every reader takes: null, and why."""
    model = transformers.Mamba2ForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.backbone.layers[1].mixer.A_log[2] = torch.nan
    broken, options = tmp_path / "broken", ["--text", "gates weigh tokens", "--out", str(tmp_path / "lens.html")]
    shutil.copytree(folder, broken)
    model.save_pretrained(broken)
    assert main(["lens", str(broken), *options]) == 1
    printed = capsys.readouterr().out
    assert "broken: 1 of 3 layers proved: rebuilt outputs equal" in printed
    assert "layer 1 is not: head 2: NaN or infinite: output, rate" in printed
    assert main(["lens", str(broken), *options, "--json"]) == 1
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["broken"]["layers"]
    proofs = [layer["reconstruction"] for layer in found]
    assert [proof["error"] is None for proof in proofs] == [False, True, True]
    assert [proof["reason"] for proof in proofs[:2]] == ["", "head 2: NaN or infinite: output, rate"]
    assert "NaN or infinite: q, k, v, output" in proofs[2]["reason"]


def test_what_is_known_of_heads_besides(capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path) -> None:
    """A change, a second text, other texts and a table of worth, as Python has them."""
    text, corpus, table = "gates weigh tokens . gates", tmp_path / "corpus.txt", tmp_path / "worth.csv"
    words = "tokens weigh gates . tokens gates weigh gates weigh . . gates weigh"
    corpus.write_text(words, "utf-8")
    half, whole = Rise(0.5, 0.25), Rise(1.0, 0.0)
    all_heads = HeadWorth(None, None, half, half, None, whole, None)
    head = HeadWorth(1, 3, Rise(0.25, 0.125), half, None, whole, Rise(-1.0, 1.0))
    worth = Worth(1.0, 2, all_heads, (head,), {}).to_pandas()
    worth.to_csv(table, index=False)
    worth.to_parquet(table.with_suffix(".parquet"), index=False)
    options = ["--change", "knock_out=1", "--at", "1.3", "--beside", "weigh .", "--corpus", str(corpus)]
    assert main(["lens", str(folder), "--text", text, *options, "--worth", str(table), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    plain, changed, beside = found.values()
    assert list(found) == [f"{folder.name}{label}" for label in ("", ", knock_out=1 at 1.3", ", “weigh .”")]
    assert beside["tokens"] == 2
    model = transformers.Mamba2ForCausalLM.from_pretrained(folder)
    numbers = {"gates": 1, "weigh": 2, "tokens": 3, ".": 4}
    ids = [torch.tensor([numbers[word] for word in each.split()]) for each in (text, words)]
    lengths = lens.memory_lengths(model, ids[1][:10].split(5))
    with torch.no_grad(), lens.capture(model) as before:
        model(ids[0][None])
    with torch.no_grad(), lens.intervene(model, lens.knock_out(1), layers=1, heads=3), lens.capture(model) as after:
        model(ids[0][None])
    for layer, (one, other) in enumerate(zip(before.records, after.records, strict=True)):
        for place in range(4):
            said, then = plain["layers"][layer]["heads"][place], changed["layers"][layer]["heads"][place]
            assert said["corpus"] == pytest.approx(
                [lengths.mean(layer)[place].item(), lengths.spread(layer)[place].item()]
            )
            was, now = (record.output(place).numpy().ravel() for record in (one, other))
            assert then["moved"] == pytest.approx(np.linalg.norm(now - was) / np.linalg.norm(was), rel=1e-4, abs=1e-7)
            assert ("worth" in said) == ((layer, place) == (1, 3))
    assert plain["layers"][1]["heads"][3]["worth"] == {
        "no_gate": [0.25, 0.125],
        "fixed": [0.5, 0.25],
        "ablated": [1.0, 0.0],
        "alone": [-1.0, 1.0],
    }
    assert main(["lens", str(folder), "--text", text, "--worth", str(table.with_suffix(".parquet")), "--json"]) == 0
    from_parquet = json.loads(capsys.readouterr().out)[folder.name]["layers"][1]["heads"][3]
    assert from_parquet["worth"] == plain["layers"][1]["heads"][3]["worth"]
    plain_table = table.read_text("utf-8").replace("\n1.0,", "\n7.0,")
    named = "\n".join(("model," if i == 0 else "other,") + line for i, line in enumerate(plain_table.splitlines()))
    for content, message in (
        (plain_table, "has layer 7, not one of the gated layers [0, 1, 2] of "),
        (named, "is of other, and has no row of "),
    ):
        table.write_text(content, "utf-8")
        assert main(["lens", str(folder), "--text", text, "--worth", str(table), "--json"]) == 2
        assert f"worth.csv {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "--text", "  \n"], "the text is empty"),
        (["demo", "--text", "Zoe has the key."], "do not know 'zoe'"),
        (["demo", "--text", STORY, "--max-tokens", "5"], "more than 5"),
        (["demo", "--text", STORY, "--file", "x"], "both --text and --file"),
        (["demo", "--file", "absent.txt"], "absent.txt"),
        (["FOLDER", "--inputs", "absent.npz"], "absent.npz"),
        (["demo", "--worth", "absent.csv"], "absent.csv"),
        (["demo", "--text", STORY, "--layers", "7"], "layer 7 is not a gated layer"),
        (["demo", "--text", STORY, "--heads", "0"], "at least 1"),
        (["demo", "--text", STORY, "--out", "absent/lens.html"], "absent is not a folder"),
        (["demo", "--text", STORY, "--inputs", "x.npz"], "both --text and --inputs are given"),
        (["demo", "--inputs", "CORPUS"], "leave demo, --beside and --corpus out"),
        (["demo", "--beside", " "], "the text is empty"),
        (["demo", "--beside", "CORPUS"], "--beside takes the text itself, and "),
        (["demo", "--text", "CORPUS"], "corpus.txt is a file; give --file "),
        (["demo", "--change", "scale_gate=2"], "there is no change 'scale_gate'; did you mean scale_gates?"),
        (["demo", "--change", "ablate=2"], "ablate takes nothing; type ablate"),
        (["demo", "--change", "keep_window"], "keep_window takes a value; type keep_window=VALUE"),
        (["demo", "--change", "keep_window=0"], "--change keep_window=0: the window has a width of 0"),
        (["demo", "--change", "ablate", "--at", "1.x"], "--at is '1.x'; it is a layer, 3, or one of its heads, 3.1"),
        (["demo", "--at", "1"], "--at says where a change is made, and there is none"),
        (["demo", "--text", STORY, "--change", "knock_out=99"], "there is no token 99"),
        (["demo", "--text", STORY, "--corpus", "CORPUS"], "has 4 tokens; at least two texts as long as the one shown"),
        (
            ["demo", "--text", STORY, "--worth", "CORPUS"],
            "has no column model; give what gladient worth --out FILE",
        ),
        (["FOLDER"], "no text is given"),
        (["FOLDER", "--text", ""], "the text is empty"),
        (["./absent", "--text", "a"], "./absent is not a folder; give a local folder"),
        (["PAGE", "--text", "a"], "is broken or incomplete"),
    ],
)
def test_bad_input(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "corpus.txt").write_text("Ada has the key", "utf-8")
    names = {"FOLDER": str(folder), "PAGE": str(tmp_path), "CORPUS": str(folder / "corpus.txt")}
    assert main(["lens", *[names.get(word, word) for word in arguments]]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.splitlines()[-1].startswith("gladient: error: ")
    assert list(tmp_path.iterdir()) == []


def test_the_hub_out_of_reach_is_one_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someones" / "model").mkdir(parents=True)
    answers = {
        OSError("No route\nto the hub. Try later."): "the hub cannot be reached (No route to the hub); did you mean",
        hub.errors.HFValidationError("no name"): "the hub has no such model; did you mean someones/model?",
    }
    for refuse, said in answers.items():
        monkeypatch.setattr(hub, "model_info", lambda *_, refuse=refuse, **__: (_ for _ in ()).throw(refuse))
        assert main(["lens", "someone/model", "--text", "a"]) == 2
        loading, error = capsys.readouterr().err.splitlines()
        assert loading == "loading someone/model …"
        assert f"someone/model is not a folder here, and {said}" in error


@pytest.mark.parametrize(
    "name", ["models/tinny", "models/tiny/x", "./models/tiyn", "/nowhere/at/all", "~/nothing here"]
)
def test_a_path_that_is_none_is_refused_without_asking_the_hub(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "model_info", pytest.fail)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", pytest.fail)
    assert main(["lens", name, "--text", "a"]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"gladient: error: {name} is not a folder; ")
    assert ("did you mean models/tiny?" in error) == ("tinny" in name or "tiyn" in name)


def test_without_transformers_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    assert main(["lens", str(folder), "--text", "gates"]) == 2
    assert "pip install 'gladient[lens]'" in capsys.readouterr().err


def test_a_model_without_gates_lists_the_supported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"?": 0, "a": 1}, unk_token="?"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(tmp_path)
    assert main(["lens", str(tmp_path), "--text", "a"]) == 2
    error = capsys.readouterr().err
    assert "no gated layer" in error
    assert "mamba2" in error
