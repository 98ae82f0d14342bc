import ast
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from lens_cases import run_case
from tiny import MODELS
from tiny._fla_kernels import KERNELS
from tiny.fla import AVAILABLE
from torch import Tensor, nn
from torch.nn import functional

from gladient import _optional, lens
from gladient.lens.adapters import mamba3
from gladient.lens.adapters.fla import ADAPTER
from gladient.nn import GatedLinearAttention

B, T, H, K, V = 2, 9, 2, 3, 4


def chunk_gla(q: Any, k: Any, v: Any, g: Any, scale: Any = None, initial_state: Any = None, cu_seqlens: Any = None,
              state_v_first: bool = False) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["chunk_gla"](locals())


def chunk_simple_gla(q: Any, k: Any, v: Any, g: Any, initial_state: Any = None) -> tuple[Tensor, Any]:
    return KERNELS["chunk_simple_gla"](locals())


def chunk_retention(q: Any, k: Any, v: Any, scale: Any = None, initial_state: Any = None) -> tuple[Tensor, Any]:
    return KERNELS["chunk_retention"](locals())


def chunk_rwkv6(r: Any, k: Any, v: Any, w: Any, u: Any, scale: Any = None, initial_state: Any = None) -> Any:
    return KERNELS["chunk_rwkv6"](locals())


def chunk_linear_attn(q: Any, k: Any, v: Any, initial_state: Any = None, normalize: bool = True) -> tuple[Tensor, Any]:
    return KERNELS["chunk_linear_attn"](locals())


def chunk_hgrn(x: Any, g: Any, initial_state: Any = None) -> tuple[Tensor, Any]:
    return KERNELS["chunk_hgrn"](locals())


def chunk_delta_rule(q: Any, k: Any, v: Any, beta: Any, use_qk_l2norm_in_kernel: bool = False,
                     initial_state: Any = None) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["chunk_delta_rule"](locals())


def chunk_gated_delta_rule(q: Any, k: Any, v: Any, g: Any, beta: Any, use_qk_l2norm_in_kernel: bool = False,
                           initial_state: Any = None, **kwargs: Any) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["chunk_gated_delta_rule"](locals() | kwargs)


def chunk_kda(q: Any, k: Any, v: Any, g: Any, beta: Any, use_qk_l2norm_in_kernel: bool = False,
              initial_state: Any = None, lower_bound: Any = None, **kwargs: Any) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["chunk_kda"](locals() | kwargs)


def chunk_gdn2(q: Any, k: Any, v: Any, g: Any, b: Any, w: Any, use_qk_l2norm_in_kernel: bool = False,
               initial_state: Any = None) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["chunk_gdn2"](locals())


def chunk_comba(q: Any, k: Any, v: Any, p: Any, g: Any, beta: Any, use_qk_l2norm_in_kernel: bool = False,
                initial_state: Any = None) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["chunk_comba"](locals())


def chunk_rwkv7(r: Any, w: Any, k: Any, v: Any, a: Any, b: Any, scale: float = 1.0,
                initial_state: Any = None) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["chunk_rwkv7"](locals())


def fused_mul_recurrent_rwkv7(r: Any, w: Any, k: Any, v: Any, kk: Any, a: Any, scale: float = 1.0,
                              initial_state: Any = None) -> tuple[Tensor, Any]:  # fmt: skip
    return KERNELS["fused_mul_recurrent_rwkv7"](locals())


def layer_like_theirs(name: str, kernel: Any, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    home = ModuleType("fla.layers.like_theirs")
    monkeypatch.setitem(sys.modules, home.__name__, home)
    setattr(home, kernel.__name__, kernel)

    def forward(self: nn.Module, **operands: Any) -> Tensor:
        return getattr(home, kernel.__name__)(**operands)[0]

    return type(name, (nn.Module,), {"__module__": home.__name__, "forward": forward})()


def operands(*names: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    gates = functional.logsigmoid(torch.randn(B, T, H, K))
    made = {name: torch.randn(B, T, H, V if name == "v" else K) for name in ("q", "k", "v", "r")}
    made |= {"g": gates, "w": gates, "u": torch.randn(H, K), "initial_state": torch.randn(B, H, K, V)}
    return {name: made[name] for name in (*names, "k", "v", "initial_state")}


def caught(layer: nn.Module, **given: Any) -> lens.Record:
    with lens.capture(layer) as trace:
        layer(**given)
    (record,) = trace.records
    assert record.architecture == "fla"
    return record


@pytest.mark.parametrize(
    ("name", "kernel", "names", "scale"),
    [
        ("GatedLinearAttention", chunk_gla, ("q", "g"), None),
        ("MultiScaleRetention", chunk_retention, ("q",), None),
        ("RWKV6Attention", chunk_rwkv6, ("r", "w", "u"), 1.0),
    ],
)
def test_arguments_of_their_kernels_are_read(
    name: str, kernel: Any, names: tuple[str, ...], scale: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = caught(layer_like_theirs(name, kernel, monkeypatch), **operands(*names), scale=scale)
    assert record.shape == (B, T, H, T)
    assert record.reconstruction_error.passed


LEFT_TO_THE_KERNEL = {"use_gate_in_kernel": True, "use_beta_sigmoid_in_kernel": True}


@pytest.mark.parametrize("options", [{}, {"use_qk_l2norm_in_kernel": True}])
@pytest.mark.parametrize("heads", [H, 2 * H])
@pytest.mark.parametrize(
    ("name", "kernel", "gates", "left"),
    [
        ("DeltaNet", chunk_delta_rule, None, {}),
        ("GatedDeltaNet", chunk_gated_delta_rule, (), {}),
        ("GatedDeltaNet", chunk_gated_delta_rule, (), LEFT_TO_THE_KERNEL | {"allow_neg_eigval": True}),
        ("KimiDeltaAttention", chunk_kda, (K,), {}),
        ("KimiDeltaAttention", chunk_kda, (K,), LEFT_TO_THE_KERNEL),
        ("KimiDeltaAttention", chunk_kda, (K,), LEFT_TO_THE_KERNEL | {"lower_bound": -5.0}),
    ],
)
def test_the_delta_rule_is_read(
    name: str,
    kernel: Any,
    gates: tuple[int, ...] | None,
    left: dict[str, Any],
    heads: int,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = operands("q") | options | left
    given |= {"v": torch.randn(B, T, heads, V), "initial_state": torch.randn(B, heads, K, V)}
    given["beta"] = torch.randn(B, T, heads) if left else torch.rand(B, T, heads)
    given["k"] = given["k"] if options else functional.normalize(given["k"], dim=3)
    if gates is not None:
        given["g"] = functional.logsigmoid(torch.randn(B, T, heads, *gates))
    if left:
        given |= {"A_log": torch.rand(heads), "dt_bias": torch.randn(heads, *gates or ()).flatten()}
    record = caught(layer_like_theirs(name, kernel, monkeypatch), **given)
    assert record.shape == (B, T, heads, T)
    assert record.reconstruction_error.passed
    assert record.recurrence.beta is not None
    lost = replace(record, recurrence=replace(record.recurrence, beta=record.recurrence.beta * 1.01))
    assert not lost.reconstruction_error.passed


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_linear_attention_is_read(normalise: bool, started: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {name: x.abs() for name, x in operands("q").items()}
    state = given.pop("initial_state")
    if started:
        given["initial_state"] = (state, torch.rand(B, 1, H, K)) if normalise else state
    record = caught(layer_like_theirs("LinearAttention", chunk_linear_attn, monkeypatch), **given, normalize=normalise)
    assert record.reconstruction_error.passed


@pytest.mark.parametrize("normalise", [False, True])
def test_gated_delta_net_2_is_read(normalise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = operands("q", "g") | {"use_qk_l2norm_in_kernel": normalise}
    given |= {"b": torch.rand(B, T, H, K), "w": torch.rand(B, T, H, V)}
    record = caught(layer_like_theirs("GatedDeltaNet2", chunk_gdn2, monkeypatch), **given)
    assert record.reconstruction_error.passed


@pytest.mark.parametrize("heads", [H, 2 * H])
def test_comba_is_read(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = operands("q") | {"use_qk_l2norm_in_kernel": True, "p": torch.randn(B, T, H, K)}
    given |= {"v": torch.randn(B, T, heads, V), "initial_state": torch.randn(B, heads, K, V)}
    given |= {"beta": torch.rand(B, T, heads), "g": functional.logsigmoid(torch.randn(B, T, heads))}
    record = caught(layer_like_theirs("Comba", chunk_comba, monkeypatch), **given)
    assert record.reconstruction_error.passed
    read, place = record.erase_cosines()
    wanted = functional.cosine_similarity(given["p"], given["k"], dim=3).repeat_interleave(heads // H, 2)
    torch.testing.assert_close(read, wanted.double())
    torch.testing.assert_close(place, torch.ones_like(place))
    alike = caught(layer_like_theirs("Comba", chunk_comba, monkeypatch), **given | {"p": None})
    torch.testing.assert_close(alike.summary().erase_query, torch.ones(heads).double())
    late = replace(record.recurrence, erase_query=record.recurrence.erase_query.roll(1, 1))  # type: ignore[union-attr]
    assert not replace(record, recurrence=late).reconstruction_error.passed


@pytest.mark.parametrize("kernel", [chunk_rwkv7, fused_mul_recurrent_rwkv7])
def test_rwkv7_is_read(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands("r")
    kk, a = functional.normalize(torch.randn(B, T, H, K), dim=3), torch.rand(B, T, H, K)
    given |= {"a": -kk, "b": kk * a} if kernel is chunk_rwkv7 else {"kk": kk, "a": a}
    given["w"] = -0.6065306597126334 * torch.rand(B, T, H, K)
    record = caught(layer_like_theirs("RWKV7Attention", kernel, monkeypatch), **given)
    assert record.reconstruction_error.passed
    read, place = record.erase_cosines(1)
    torch.testing.assert_close(read[..., 0], functional.cosine_similarity(kk, given["k"], dim=3)[..., 1].double())
    torch.testing.assert_close(place[..., 0], functional.cosine_similarity(kk * a, given["k"], dim=3)[..., 1].double())
    for name in ("erase_query", "erase_key"):
        late = {name: getattr(record.recurrence, name).roll(1, 1)}
        assert not replace(record, recurrence=replace(record.recurrence, **late)).reconstruction_error.passed


def test_channels_of_hgrn_are_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, g, state = torch.randn(B, T, 5), functional.logsigmoid(torch.randn(B, T, 5)), torch.randn(B, 5)
    record = caught(layer_like_theirs("HGRNAttention", chunk_hgrn, monkeypatch), x=x, g=g, initial_state=state)
    assert record.shape == (B, T, 5, T)
    assert record.reconstruction_error.passed


def test_scalar_gates_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands("q") | {"g": functional.logsigmoid(torch.randn(B, T, H))}
    record = caught(layer_like_theirs("SimpleGatedLinearAttention", chunk_simple_gla, monkeypatch), **given)
    assert record.family == "scalar"
    assert record.reconstruction_error.passed


def test_packed_rows_are_rows_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = operands("q", "g")
    packed: dict[str, Any] = {name: x.flatten(0, 1)[None, :14] for name, x in given.items() if name != "initial_state"}
    packed |= {
        "initial_state": given["initial_state"].mT,
        "state_v_first": True,
        "cu_seqlens": torch.tensor([0, 9, 14]),
    }
    record = caught(layer_like_theirs("HGRN2Attention", chunk_gla, monkeypatch), **packed)
    assert record.shape == (2, 9, H, 9)
    assert record.reconstruction_error.passed
    assert not record.output()[1, :4].any()  # the second row has 5 tokens: they stand at its end
    assert not record.implicit_attention()[1, :, 4:, :4].any()


def test_layers_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = layer_like_theirs("GatedLinearAttention", chunk_gla, monkeypatch), GatedLinearAttention(4)
    found = lens.gated_layers(nn.ModuleList([theirs, ours]))
    assert [adapter.name for _, _, _, adapter in found] == ["fla", "gladient"]


def test_their_own_layers_are_read() -> None:
    if not AVAILABLE:
        pytest.skip("flash-linear-attention's layers need Triton; install them with: pip install 'gladient[gpu]'")
    assert "fla" in MODELS
    modules = [record.module for record in run_case("fla", "L=70")[1]]
    assert modules == [f"layers.{number}" for number in range(15)]


ATTENTION = "attention to all tokens, or to some that it picks: no state"
SLOTS = "two recurrences with a softmax over slots between them"
SECOND = "its feature map may be taken in a kernel of its own: by default it is"
ELSEWHERE = "its kernels are those of mamba_ssm; transformers' layers of the same kind are read"
PART = "a part of the layer that is read"
REASONS = {
    "ABCAttention": SLOTS,
    "Attention": ATTENTION,
    "BasedLinearAttention": SECOND,
    "BitAttention": ATTENTION,
    "CyclicFlowAttention": "its memory moves from slot to slot: no gate times what was written",
    "DDLerpLinear": PART,
    "DeltaFormerAttention": ATTENTION,
    "ForgettingAttention": ATTENTION,
    "GatedDeltaProduct": "several writes for each token",
    "GatedSlotAttention": SLOTS,
    "LerpLinear": PART,
    "LightNetAttention": "its gates are made in its kernel, of all keys so far",
    "LoRA": PART,
    "LogLinearMamba2": "as many states as the tokens' logarithm",
    "Mamba": ELSEWHERE,
    "Mamba2": ELSEWHERE,
    "MesaNet": "solves for the best state at every token: its weights depend on all keys together",
    "MoBA": ATTENTION,
    "MomAttention": "routes tokens to several states, packed in another order",
    "MomentumDeltaNet": "two coupled states",
    "MultiheadLatentAttention": ATTENTION,
    "NativeSparseAttention": ATTENTION,
    "PaTHAttention": ATTENTION,
    "Parallax": ATTENTION,
    "PrecondGatedDeltaNet": "a second recurrence conditions its writes",
    "PrecondKDA": "a second recurrence conditions its writes",
    "Raven": SLOTS,
    "ReBasedLinearAttention": SECOND,
    "SlidingWindowSharedKeyAttention": ATTENTION,
    "StickBreakingAttention": ATTENTION,
    "WallAttention": ATTENTION,
    "YOCOCrossAttention": ATTENTION,
    "YOCOSharedKVBuilder": PART,
}


def test_each_of_their_layers_is_read_or_has_its_reason() -> None:
    """Their package does not import without Triton: its files are read."""
    where = {"needed_for": "this test", "install": "pip install flash-linear-attention"}
    files = _optional.find_file("fla", "layers/gla.py", **where).parent.glob("*.py")
    parts = [part for file in files for part in ast.walk(ast.parse(file.read_text("utf-8")))]
    classes = [part for part in parts if isinstance(part, ast.ClassDef)]
    layers = {each.name for each in classes if "nn.Module" in map(ast.unparse, each.bases)}
    assert len(layers) > 30
    read = {*ADAPTER.modules, *mamba3.FLA.modules}
    assert layers == read | set(REASONS)
    assert not read & set(REASONS)
