"""`gladient lens` on the folders that people have: hybrids, caches, no tokenizer, code beside the model."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gladient import lens
from gladient.cli import main
from gladient.experiments.demo import models as demo
from gladient.lens import bounds

transformers = pytest.importorskip("transformers")
IDS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
MAMBA2 = {"num_heads": 4, "head_dim": 8, "hidden_size": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8}
NEXT = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
NEXT |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 6}
NEXT |= {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 2, "num_experts_per_tok": 1}
XLSTM = {"hidden_size": 16, "num_heads": 2, "num_blocks": 2, "num_hidden_layers": 2, "chunk_size": 8}


def mamba2(**options: Any) -> Any:
    return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**MAMBA2 | IDS | options))


def qwen3_next(*kinds: str) -> Any:
    sizes = {"layer_types": list(kinds), "num_hidden_layers": len(kinds), "vocab_size": 8}
    return transformers.Qwen3NextForCausalLM(transformers.Qwen3NextConfig(**NEXT | IDS | sizes))


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(model: Any, *, tokenizer: bool = True) -> Path:
        from tokenizers import Tokenizer, models, pre_tokenizers

        torch.manual_seed(0)
        path = tmp_path / "model"
        model.save_pretrained(path)
        words = Tokenizer(models.WordLevel({"?": 0, "gates": 1, "weigh": 2, "tokens": 3}, unk_token="?"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        if tokenizer:
            transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(path)
        return path

    return save


def look(path: Path, *options: str) -> int:
    return main(["lens", str(path), "--text", "gates weigh tokens gates", "--json", *options])


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")


def test_only_its_own_lines_are_printed(save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(mamba2(vocab_size=8, num_hidden_layers=2))
    capfd.readouterr()
    assert look(path) == 0
    assert capfd.readouterr().err.splitlines() == [f"loading {path} …", "layers of model …"]
    logging = transformers.utils.logging
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == logging.WARNING


@pytest.mark.parametrize("kind", ["config.json", "tokenizer_config.json"])
def test_code_beside_a_model_never_runs(
    kind: str, save: Save, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, mark = save(mamba2(vocab_size=8, num_hidden_layers=1)), tmp_path / "it ran"
    (path / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\n", "utf-8")
    names = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
    mapped: dict[str, Any] = names if kind == "config.json" else {"AutoTokenizer": ["theirs.Tokenizer", None]}
    changed(path / kind, auto_map=mapped, model_type="theirs", tokenizer_class="Theirs")
    asked: list[str] = []

    def answer(*_: object) -> str:
        asked.append("y")
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    code = look(path)
    assert not asked
    assert not mark.exists()
    if kind == "config.json":
        assert code == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert "needs code that lies beside it, which is never run here" in error
        assert "gladient.lens.capture" in error


@pytest.mark.parametrize("reason", ["its vocabulary is empty", "that can be read"])
def test_a_missing_tokenizer_is_named(reason: str, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(mamba2(vocab_size=8, num_hidden_layers=1), tokenizer=False)
    if reason == "that can be read":
        (path / "tokenizer.json").write_text("{", "utf-8")
    assert look(path) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "has no tokenizer" in error
    assert reason in error
    assert "tokenizer.save_pretrained" in error


@pytest.mark.parametrize("name", ["xlstm", "linear layers alone"])
def test_models_whose_cache_would_fail(name: str, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    linear = ["linear_attention"] * 2
    config = transformers.xLSTMConfig(vocab_size=8, **XLSTM, **IDS)
    model = transformers.xLSTMForCausalLM(config) if name == "xlstm" else qwen3_next(*linear)
    assert look(save(model)) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert [layer["layer"] for layer in found["layers"]] == [0, 1]
    assert found["not_gated"] == []


def test_attention_of_hybrids_is_named(save: Save, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = save(qwen3_next("linear_attention", "full_attention", "linear_attention", "full_attention"))
    assert look(path) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    kind = "Qwen3NextAttention"
    assert found["not_gated"] == [
        {"layer": layer, "module": f"model.layers.{layer}.self_attn", "kind": kind} for layer in (1, 3)
    ]
    out = str(tmp_path / "lens.html")
    assert main(["lens", str(path), "--text", "gates weigh", "--out", out]) == 0
    assert f"; not gated: {kind} (layers 1, 3)" in capsys.readouterr().out
    assert look(path, "--layers", "3") == 2
    assert f"layer 3 is not a gated layer but attention ({kind}); gated layers are [0, 2]" in capsys.readouterr().err


def _tokenizer(change: dict[str, Any]) -> Callable[[Path], None]:
    return lambda path: changed(path / "tokenizer.json", **change)


def _numbered(path: Path) -> None:
    described = json.loads((path / "tokenizer.json").read_text("utf-8"))
    described["model"]["vocab"]["gates"] = 10**9
    (path / "tokenizer.json").write_text(json.dumps(described), "utf-8")


def _written(name: str, text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / name).write_text(text, "utf-8")

    return write


def _configured(**values: Any) -> Callable[[Path], None]:
    return lambda path: changed(path / "config.json", **values)


def _pipe(path: Path) -> None:
    (path / "generation_config.json").unlink(missing_ok=True)
    os.mkfifo(path / "generation_config.json")


def _cut(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    del weights["backbone.layers.0.mixer.A_log"]
    weights["backbone.layers.0.mixer.D"] = torch.zeros(3)
    save_file(weights, path / "model.safetensors", {"format": "pt"})


SPLIT = {"type": "Split", "pattern": {"Regex": "^(([a-z ])+.)+[A-Z]([a-z])+$"}, "behavior": "Isolated", "invert": False}
TENFOLD = [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}] * 6
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a regex that blows up": (_tokenizer({"pre_tokenizer": SPLIT}), "PanicException: Onig: Regex search error"),
    "a text that multiplies": (
        _tokenizer({"normalizer": {"type": "Sequence", "normalizers": TENFOLD}}),
        "it took more than 5 s of CPU or 1 GiB of memory, or crashed",
    ),
    "a huge number": (_numbered, "gives 'gates' the number 1000000000, but the model knows 8 tokens"),
    "deep config": (_written("config.json", "[" * 10**5), "RecursionError"),
    "deep tokenizer": (_written("tokenizer.json", "[" * 10**5), "RecursionError"),
    "deep generation": (_written("generation_config.json", "[" * 10**5), "RecursionError"),
    "many layers": (_configured(num_hidden_layers=10**9), "is broken or incomplete (MemoryError"),
    "large weights": (_configured(vocab_size=10**11), "describes 3.2e+12 numbers, its files hold"),
    "no chunks": (_configured(chunk_size=0), "failed while it read the text (ZeroDivisionError"),
    "large chunks": (_configured(chunk_size=10**6), "can't allocate memory"),
    "code for attention": (_configured(attn_implementation="them/kernel"), "needs code that lies beside it"),
    "an index that leads elsewhere": (
        _written("model.safetensors.index.json", '{"weight_map": {"a": "../a.safetensors"}}'),
        "leads to '../a.safetensors'; it must name files of its own folder",
    ),
    "a pipe": (_pipe, "generation_config.json is not a file that can be read"),
    "weights cut": (_cut, "2 of its weights are absent or of another shape, backbone.layers.0.mixer.A_log among them"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_and_broken_folders_are_one_error(
    how: str, save: Save, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bounded time and memory, whatever a library does with them."""
    monkeypatch.setattr(bounds, "_SECONDS", 5)
    monkeypatch.setattr(bounds, "_BYTES", 2**30)
    path = save(mamba2(vocab_size=8, num_hidden_layers=1))
    change, message = HOSTILE[how]
    change(path)
    capfd.readouterr()
    assert main(["lens", str(path), "--text", "gates weigh tokens " + "a" * 40, "--json"]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if not line.endswith(" …")]
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a model"])
def test_an_adapter_is_named_with_its_base_and_the_cure(
    beside: bool, save: Save, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = save(mamba2(vocab_size=8, num_hidden_layers=1)) if beside else tmp_path
    described = {"peft_type": "LORA", "base_model_name_or_path": "state-spaces/\x1b[2Jmamba2"}
    (path / "adapter_config.json").write_text(json.dumps(described), "utf-8")
    assert look(path) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert r"holds an adapter (LoRA and the like) of state-spaces/\x1b[2Jmamba2, not a model" in error
    assert "merge_and_unload" in error


def test_names_of_a_model_do_not_drive_the_terminal(save: Save, capfd: pytest.CaptureFixture[str]) -> None:
    path = save(mamba2(vocab_size=8, num_hidden_layers=1))
    strange = path.rename(path.with_name("m\x1b]0;owned\x07 [bold]\u202e"))
    capfd.readouterr()
    assert main(["lens", str(strange), "--text", "gates weigh", "--out", str(path.with_name("lens.html"))]) == 0
    said = "".join(capfd.readouterr())
    assert r"layers of m\x1b]0;owned\x07 [bold]\u202e …" in said
    assert r"m\x1b]0;owned\x07 [bold]\u202e: 1 of 1 layers proved" in said
    assert not set(said) & {"\x1b", "\x07", "\u202e"}
    changed(strange / "config.json", model_type="\x1b]0;owned\x07")
    assert look(strange) == 2
    assert not set("".join(capfd.readouterr())) & {"\x1b", "\x07"}


def test_what_is_not_installed_is_named_before_anything_is_trained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    monkeypatch.setattr(demo, "_train", lambda *_: pytest.fail("it trained first"))
    assert main(["lens", "demo", "--json"]) == 2
    assert "pip install 'gladient[lens]'" in capsys.readouterr().err
    with pytest.raises(ImportError, match=r"gladient\[lens\]"):
        demo.demo_models()
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(demo, "_train", lambda *_: pytest.fail("it trained first"))
    assert main(["lens", "demo", "--json"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "lens-demo, which cannot be written (Not a directory); set XDG_CACHE_HOME to a folder that can" in error


def test_a_model_without_words_to_say_reads_a_text(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(transformers.Mamba2Model(mamba2(vocab_size=8, num_hidden_layers=2).config))
    assert look(path) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["tokens"] == 4
    assert [layer["layer"] for layer in found["layers"]] == [0, 1]


def test_inputs_by_their_names(save: Save, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In place of a text: what a model's own embeddings give of it."""
    path, file = save(mamba2(vocab_size=8, num_hidden_layers=2), tokenizer=False), tmp_path / "inputs.npz"
    model = transformers.Mamba2ForCausalLM.from_pretrained(path)
    ids = torch.tensor([[1, 2, 3, 1, 2]])
    np.savez(file, inputs_embeds=model.get_input_embeddings()(ids).detach().double().numpy())
    options = ["--json", "--change", "ablate", "--at", "1"]
    assert main(["lens", str(path), "--inputs", str(file), *options]) == 0
    before, after = json.loads(capsys.readouterr().out).values()
    with torch.no_grad(), lens.capture(model) as trace:
        model(ids)
    assert before["tokens"] == 5
    for layer, changed, record in zip(before["layers"], after["layers"], trace.records, strict=True):
        lengths = [head["memory_length"] for head in layer["heads"]]
        assert lengths == pytest.approx(record.summary().memory_length.tolist())
        assert [head["moved"] > 0 for head in changed["heads"]] == [record.layer == 1] * 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": np.zeros((1, 4))}, "model takes no pixels; give its inputs with --inputs FILE.npz, arrays by"),
        ({"input_ids": np.array([{}])}, "holds no arrays of numbers by their names; write it with numpy.savez"),
        ({"input_ids": np.ones((1, 3000), "i8")}, "the text has 3,000 tokens, more than 2,048"),
    ],
)
def test_bad_inputs(arrays: dict[str, Any], message: str, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(mamba2(vocab_size=8, num_hidden_layers=1))
    np.savez(path / "inputs.npz", **arrays)
    assert main(["lens", str(path), "--inputs", str(path / "inputs.npz"), "--json"]) == 2
    assert message in capsys.readouterr().err
