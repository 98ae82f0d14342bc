"""Which form and backend run, what fla would be given, and what is said where something is missing."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from ops_cases import BACKENDS, inputs, run, tensors
from torch import Tensor

from gladient.ops import Gates, _library, choose, dispatch, fla, gated_linear_attention
from tolerances import TOLERANCES

x = torch.randn(1, 20, 2, 16)
GATES = {
    "none": Gates(),
    "scalar": Gates(g=torch.zeros(1, 20, 2)),
    "key": Gates(gk=torch.zeros(1, 20, 2, 16)),
    "value": Gates(gv=torch.zeros(1, 20, 2, 16)),
    "full": Gates(G=torch.zeros(1, 20, 2, 16, 16)),
}


def test_auto_takes_the_form_from_the_shapes() -> None:
    assert choose(x[:, :1], x[:, :1], x[:, :1], Gates()).form == "step"
    assert choose(x[:, :1], x, x, Gates()).form == "last_query"
    choice = choose(x, x, x, GATES["key"])
    assert (choice.form, choice.backend) == ("chunked", BACKENDS[-1])
    assert "20 queries for 20 tokens" in choice.reason


def test_auto_in_plain_torch_takes_all_pairs_of_short_sequences() -> None:
    assert choose(x, x, x, GATES["scalar"], backend="torch").form == "parallel"
    assert choose(x[:, :16], x[:, :16], x[:, :16], Gates(gk=x[:, :16]), backend="torch").form == "parallel"
    for family in ("key", "value", "full"):
        assert choose(x, x, x, GATES[family], backend="torch").form == "chunked"
    both = Gates(gk=x[:, :16], G=torch.zeros(1, 16, 2, 16, 16))
    assert choose(x[:, :16], x[:, :16], x[:, :16], both, backend="torch").form == "chunked"
    assert choose(x, x, x, GATES["scalar"], form="chunked", backend="torch").form == "chunked"
    many = x[..., :4].expand(4096, -1, -1, -1)
    assert choose(many, many, many, Gates(g=many[..., 0]), backend="torch").form == "chunked"


def test_without_a_compiler_torch_computes_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(_library.shutil, "which", lambda name: None)
    _library.library.cache_clear()
    _library.why_unavailable.cache_clear()
    given = tensors(inputs("key", 20))
    try:
        choice = choose(given["q"], given["k"], given["v"], GATES["key"])
        assert choice.backend == "torch"
        assert "install g++ or clang++" in choice.reason
        assert "backend='torch' computes the same, more slowly" in caplog.text
        with pytest.raises(RuntimeError, match=r"backend='native' cannot run this: .*no C.. compiler"):
            run(given, backend="native")
        slow = run(given)
    finally:
        _library.library.cache_clear()
        _library.why_unavailable.cache_clear()
    monkeypatch.undo()
    torch.testing.assert_close(run(given), slow, **TOLERANCES[torch.float64])


@pytest.mark.parametrize(
    ("family", "form", "read", "name"),
    [
        ("none", "chunked", "after", "chunk_simple_gla"),
        ("scalar", "chunked", "after", "chunk_simple_gla"),
        ("scalar", "recurrent", "after", "fused_recurrent_simple_gla"),
        ("key", "chunked", "after", "chunk_gla"),
        ("key", "step", "after", "fused_recurrent_gla"),
        ("value", "recurrent", "after", "fused_recurrent_gla"),
        ("key", "chunked", "before", "chunk_rwkv6"),
        ("scalar", "recurrent", "before", "fused_recurrent_rwkv6"),
        ("value", "chunked", "after", None),
        ("full", "recurrent", "after", None),
        ("none", "chunked", "before", None),
        ("key", "last_query", "after", None),
    ],
)
def test_what_fla_holds(family: str, form: str, read: str, name: str | None) -> None:
    assert fla.kernel(GATES[family], form, read) == name


def test_fla_is_given_its_own_names_and_our_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {}

    def chunk_gla(**arguments: Any) -> tuple[Tensor, None]:
        calls.update(arguments)
        return arguments["v"], None

    module = ModuleType("fla.ops.gla")
    module.chunk_gla = chunk_gla  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fla.ops.gla", module)
    monkeypatch.setattr(dispatch.fla, "require", lambda: None)
    monkeypatch.setattr(dispatch.fla, "why_not", lambda *_: None)
    g, gk = torch.full((1, 20, 1), -1.0), torch.full((1, 20, 2, 16), -2.0)
    gated_linear_attention(x, x[:, :, :1], x, g=g, gk=gk, backend="fla")
    assert calls["scale"] == 1.0
    assert calls["k"].shape == x.shape
    assert calls["g"].shape == x.shape
    assert calls["g"].unique().item() == -3.0
    assert "cu_seqlens" not in calls


def test_rwkv6_gets_its_bonus_or_zeros() -> None:
    u = torch.randn(2, 16)
    assert fla.arguments(x, x, x, GATES["key"], "chunk_rwkv6", u)["u"] is u
    assert not fla.arguments(x, x, x, GATES["key"], "chunk_rwkv6", None)["u"].any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_fla_asked_for_but_absent() -> None:
    with pytest.raises(ImportError, match="backend='fla' needs"):
        gated_linear_attention(x, x, x, backend="fla")
    assert "Triton kernels run on CUDA" in str(fla.why_not(x, x, GATES["key"], "chunked", "after"))


def test_native_says_what_it_does_not_hold() -> None:
    with pytest.raises(RuntimeError, match="form 'parallel' is plain torch"):
        gated_linear_attention(x, x, x, form="parallel", backend="native")
