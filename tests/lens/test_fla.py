import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from lens_cases import run_case
from tiny import MODELS
from tiny.fla import AVAILABLE
from torch import Tensor, nn
from torch.nn import functional

from gladient import lens
from gladient.nn import GatedLinearAttention
from gladient.ops import gated_linear_attention

B, T, H, K, V = 2, 9, 2, 3, 4


def chunk_gla(q: Any, k: Any, v: Any, g: Any, scale: Any = None, initial_state: Any = None, cu_seqlens: Any = None,
              state_v_first: bool = False) -> tuple[Tensor, None]:  # fmt: skip
    options = {"initial_state": initial_state.mT if state_v_first else initial_state, "cu_seqlens": cu_seqlens}
    return gated_linear_attention(q, k, v, gk=g, scale=scale or K**-0.5, **options)[0], None


def chunk_retention(q: Any, k: Any, v: Any, scale: Any = None, initial_state: Any = None) -> tuple[Tensor, None]:
    decays = torch.tensor([1 - 1 / 32, 1 - 1 / 64]).log()
    return gated_linear_attention(q, k, v, g=decays, scale=scale or K**-0.5, initial_state=initial_state)[0], None


def chunk_rwkv6(r: Any, k: Any, v: Any, w: Any, u: Any, scale: Any = None, initial_state: Any = None) -> Any:
    return gated_linear_attention(r, k, v, gk=w, bonus=u, read="before", scale=scale, initial_state=initial_state)


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
    assert modules == ["layers.0", "layers.1", "layers.2", "layers.3"]
