"""Every class of the installed transformers that holds a scan is read, or named here with its reason."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import transformers
from tiny import MODELS

from gladient import lens
from gladient.seams.architectures import TESTED

ROOT = Path(__file__).parents[2]
SIGNS = (
    r"recurrent_state|conv_state|ssm_state|rnn_state|state_update|_scan\b|selective_|delta_rule|delta_attention|"
    r"linear_attention\b|linear_cache|lightning|decay|retention|mlstm|\bwkv|segment_sum|segsum|_gla\b|_kda\b|_gsa\b|"
    r"_hgrn\b|_rwkv\d|\bA_log|\bdt_bias"
)
SIGN = re.compile(
    rf"(?![A-Z][a-z]|drop_path_|.*(?:ema_|retention_mask))\w*?(?:{SIGNS})"
)  # names of classes do not count
CONVOLUTION = "a convolution over a few tokens, which a cache calls a state: nothing decays"
PART = "makes the gates of the layer that is read"
HOLDER = "holds or calls the layer that is read"
POOLED = "a flag: softmax attention to pooled keys"
STATISTICS = "a running mean of what it was trained on"
ROUNDS = "its recurrence runs over rounds of recycling, not over tokens"
REASONS = {
    "BailingHybridForgetGate": PART,
    "EsmFold2Model": ROUNDS,
    "EsmFold2Parcae": ROUNDS,
    "Glm5NextTextForgetGate": PART,
    "GradiumPhononTTSForConditionalGeneration": STATISTICS,
    "InklingShortConvolution": CONVOLUTION,
    "Inkling2DynamicShortConvolution": CONVOLUTION,
    "Inkling2ShortConvolution": CONVOLUTION,
    "KimiLinearForgetGate": PART,
    "Lfm2MoeShortConv": CONVOLUTION,
    "Lfm2ShortConv": CONVOLUTION,
    "Lfm3ShortConv": CONVOLUTION,
    "PocketTTSForConditionalGeneration": STATISTICS,
    "PvtV2ConvFeedForwardNetwork": POOLED,
    "PvtV2SelfAttention": POOLED,
    "Qwen4ExpTextNGramEmbedding": CONVOLUTION,
    "Qwen4ExpTextPLELayer": CONVOLUTION,
    "RecurrentGemmaRecurrentBlock": HOLDER,
    "RwkvLinearAttention": HOLDER,
    "ZayaCCAProjection": "shifts values by one token, and convolves: nothing decays",
    "xLSTMBackend": HOLDER,
    "xLSTMBlock": HOLDER,
    "xLSTMModel": HOLDER,
}


def scanning(source: str) -> dict[str, set[str]]:
    """Classes with a forward, and the names in each that a scan goes by."""
    found = {}
    tree = ast.parse(source)
    for node in (
        inner for part in tree.body for inner in (part, *getattr(part, "body", []), *getattr(part, "orelse", []))
    ):
        if isinstance(node, ast.ClassDef) and any(getattr(part, "name", "") == "forward" for part in node.body):
            found[node.name] = {name for name in _names(node) if SIGN.match(name)}
    return {name: signs for name, signs in found.items() if signs}


def _names(node: ast.AST) -> set[str]:
    parts = list(ast.walk(node))
    found = {part.id for part in parts if isinstance(part, ast.Name)} | {p.arg for p in parts if isinstance(p, ast.arg)}
    return found | {part.attr for part in parts if isinstance(part, ast.Attribute)}


@cache
def held() -> dict[str, str]:
    """Each such class of transformers, and the folder that it stands in."""
    files = sorted(Path(transformers.__file__).parent.glob("models/*/modeling_*.py"))
    assert len(files) > 300
    sources = {file: file.read_text("utf-8") for file in files}
    likely = {file: text for file, text in sources.items() if re.search(SIGNS, text)}
    return {name: file.parent.name for file, text in likely.items() for name in scanning(text)}


def read() -> set[str]:
    return {name for names in lens.supported().values() for name in names}


def test_every_scan_is_read_or_has_its_reason() -> None:
    unseen = {name: folder for name, folder in held().items() if name not in read() | set(REASONS)}
    assert not unseen, "write an adapter for these, or name the reason why they need none"


def test_every_class_that_is_read_is_found_by_its_signs() -> None:
    theirs = {type(layer).__name__ for layer in _layers().values() if _folder(layer)}
    assert theirs
    assert theirs <= set(held())
    assert not read() & set(REASONS)


def test_every_class_that_is_read_has_a_tiny_model() -> None:
    tried = {name: _folder(layer) for name, layer in _layers().items() if _folder(layer)}
    wanted = {name: folder for name, folder in held().items() if name in read()}
    assert wanted
    assert wanted.items() <= tried.items()


@cache
def _layers() -> dict[str, object]:
    models = [tiny.build(0) for tiny in MODELS.values()]
    return {type(layer).__name__: layer for model in models for _, _, layer, _ in lens.gated_layers(model)}


def _folder(layer: object) -> str:
    """Its folder in transformers, where the layer is theirs."""
    package, *path = type(layer).__module__.split(".")
    return path[1] if package == "transformers" else ""


@pytest.mark.skipif(tuple(map(int, transformers.__version__.split(".")[:2])) != TESTED[1], reason="another release")
def test_no_reason_outlives_its_class() -> None:
    assert set(REASONS) <= set(held())


@pytest.mark.parametrize(
    "line",
    ["chunk_foo_delta_rule(q)", "self.A_log.exp()", "cache.update_recurrent_state(q, 0)", "foo_chunk_scan(q)"],
)
def test_a_new_scan_would_be_found(line: str) -> None:
    source = f"class Foo(nn.Module):\n    def forward(self, q, cache):\n        return {line}\n"
    assert list(scanning(source)) == ["Foo"]


def test_the_docs_name_every_class_that_is_read() -> None:
    text = (ROOT / "docs" / "lens.md").read_text("utf-8")
    assert [name for name in held() if name in read() and f"`{name}`" not in text] == []
