"""One clear error for each way to be wrong."""

from fractions import Fraction
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
import torch
from ops_cases import BACKENDS

from gladient.ops import (
    Backend,
    LayoutWarning,
    choose,
    gated_delta_rule,
    gated_linear_attention,
    generalized_delta_rule,
)

B, T, H, K, V = 2, 6, 4, 3, 5


def call(**changes: Any) -> None:
    given: dict[str, Any] = {"q": torch.randn(B, T, H, K), "k": torch.randn(B, T, H, K), "v": torch.randn(B, T, H, V)}
    function: Any = gated_delta_rule if "beta" in changes else gated_linear_attention
    function = generalized_delta_rule if "a" in changes else function
    unwrap(function)(**(given | changes))  # as users call it, without the tests' type checker


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": torch.randn(B, T, K)}, r"q has shape \(2, 6, 3\); it must be \[B, T, heads, channels\]"),
        ({"q": torch.randn(B, 5, H, K)}, "q has 5 steps and k has 6; they must agree"),
        ({"k": torch.randn(B, T, H, 4)}, r"k has shape .* it must be \[2, 6, heads, 3\]"),
        ({"k": torch.randn(B, T, 3, K)}, "k has 3 heads and there are 4; its number of heads must divide that"),
        ({"v": torch.randn(B, 5, H, V)}, r"v has shape .* it must be \[2, 6, heads, 5\]"),
        ({"g": torch.zeros(B, T, H, K)}, r"g has shape .* it must be \[2, 6, heads\] or, for a fixed decay"),
        ({"g": torch.zeros(3)}, "g has 3 heads and there are 4"),
        ({"gk": torch.zeros(B, T, H, V)}, r"gk has shape .* it must be \[2, 6, heads, 3\]"),
        ({"gv": torch.zeros(B, T, H)}, r"gv has shape .* it must be \[2, 6, heads, 5\]"),
        ({"G": torch.zeros(B, T, H, V, K)}, r"G has shape .* it must be \[2, 6, heads, 3, 5\]"),
        ({"initial_state": torch.zeros(B, H, V, K)}, r"it must be \[sequences, H, K, V\] = \(2, 4, 3, 5\)"),
        ({"bonus": torch.zeros(H, K)}, "bonus came with read='after'"),
        ({"bonus": torch.zeros(K), "read": "before"}, r"bonus has shape \(3,\); it must be \[H, K\]"),
        ({"bonus": torch.zeros(1, H, K), "read": "before"}, r"apart for each row, \[B, H, K\]"),
        ({"g": torch.zeros(B, T, H, K)}, "this is a shape of gk="),
        ({"gk": torch.zeros(B, T, H)}, "this is a shape of g="),
        ({"A": torch.zeros(H, K, V)}, "A came without dt; rates A"),
        ({"dt": torch.zeros(B, T, H, V)}, "dt came without A"),
        ({"A": torch.zeros(H, V, K), "dt": torch.zeros(B, T, H, V)}, r"A has shape .* it must be \[heads, K, V\]"),
        ({"A": torch.zeros(H, K, V), "dt": torch.zeros(B, T, H, K)}, r"dt has shape .* it must be \[2, 6, heads, 5\]"),
        ({"A": torch.zeros(3, K, V), "dt": torch.zeros(B, T, H, V)}, "A has 3 heads and there are 4"),
        ({"form": "parallel", "A": torch.zeros(H, K, V), "dt": torch.zeros(B, T, H, V)}, "does not hold full gates"),
        (
            {"dt": torch.full((B, T, H, V), -1.0), "A": torch.zeros(H, K, V), "check_values": True},
            "dt holds a step below 0",
        ),
        ({"initial_state": torch.zeros(B, 3, K, V)}, r"it must be \[sequences, H, K, V\] = \(2, 4, 3, 5\)"),
        ({"inplace": True, "initial_state": torch.zeros(B, H, K, V)}, "inplace=True came with form 'chunked'"),
        ({"read": "during"}, "read is 'during'; it must be one of after, before"),
        ({"form": "fast"}, "form is 'fast'; it must be one of auto, recurrent"),
        ({"backend": "cuda"}, "backend is 'cuda'; it must be one of auto, eager"),
        ({"form": "step"}, "form='step' takes one token and got 6"),
        ({"form": "parallel", "G": torch.zeros(B, T, H, K, V)}, "form='parallel' does not hold full gates"),
        ({"k": torch.zeros(B, T, 0, K)}, r"k has shape \(2, 6, 0, 3\), without heads; it needs one or more"),
        ({"chunk_size": 0}, "chunk_size is 0; it must be a whole number"),
        ({"cu_seqlens": [0, 6]}, "cu_seqlens came with a batch of 2"),
        ({"q": torch.full((B, T, H, K), torch.nan), "check_values": True}, "q holds NaN or infinity"),
        ({"g": torch.full((B, T, H), 0.1), "check_values": True}, "g holds NaN or a log gate above 0"),
        ({"gk": torch.full((B, T, H, K), torch.nan), "check_values": True}, "gk holds NaN"),
        ({"bonus": torch.full((H, K), torch.nan), "read": "before", "check_values": True}, "bonus holds NaN"),
        (
            {"initial_state": torch.full((B, H, K, V), torch.inf), "check_values": True},
            "initial_state holds NaN or inf",
        ),
        ({"beta": torch.zeros(B, T)}, r"beta has shape \(2, 6\); .* \[2, 6, heads\], or one strength per channel of v"),
        ({"beta": torch.zeros(B, T, H, K), "erase": torch.zeros(B, T, H)}, r"it must be \[2, 6, heads, 5\]"),
        ({"beta": torch.zeros(B, T, H), "erase": torch.zeros(B, T, H, V)}, r"it must be \[2, 6, heads, 3\]"),
        ({"beta": torch.zeros(B, T, 3)}, "beta has 3 heads and there are 4"),
        (
            {"beta": torch.zeros(B, T, H), "erase_keys": torch.zeros(B, T, H, V)},
            r"erase_keys has shape .* it must be \[2, 6, heads, 3\]",
        ),
        ({"a": torch.zeros(B, T, H, V), "b": torch.zeros(B, T, H, K)}, r"a has shape .* it must be \[2, 6, heads, 3\]"),
        (
            {"a": torch.ones(B, T, H, K), "b": torch.ones(B, T, H, K), "check_values": True},
            r"a·b goes from 3 to 3; it must lie in \[-2, 0\]",
        ),
        ({"a": torch.zeros(B, T, H, K), "b": torch.zeros(B, T, H, K), "form": "parallel"}, "does not hold delta rules"),
        ({"beta": torch.zeros(B, T, H, V)}, "a strength per value channel, which cannot erase: pass erase too"),
        ({"beta": torch.zeros(B, T, H), "form": "parallel"}, "form='parallel' does not hold delta rules"),
        ({"beta": torch.full((B, T, H), 2.5), "check_values": True}, r"beta goes from 2\.5 to 2\.5; it must lie in"),
        ({"beta": torch.full((B, T, H), -0.5), "check_values": True}, r"beta goes from -0\.5 to -0\.5"),
        ({"beta": torch.full((B, T, H), torch.nan), "check_values": True}, "beta holds NaN"),
        ({"k": torch.zeros(1, T, H, K)}, r"k has shape .* it must be \[2, 6, heads, 3\]"),
        ({"k": torch.zeros(B, T, H, K, device="meta")}, "k is on meta and q on cpu; they must agree"),
        ({"initial_state": torch.zeros(B, H, K, V, device="meta")}, "initial_state is on meta and q on cpu"),
        ({"bonus": torch.zeros(H, K, device="meta"), "read": "before"}, "bonus is on meta and q on cpu"),
    ],
)
def test_wrong_shapes_and_names(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(**changes)


@pytest.mark.parametrize("borders", [[0, 3], [1, 6], [0, 4, 2, 6], [0]])
def test_wrong_borders(borders: list[int]) -> None:
    x = torch.randn(1, T, H, K)
    with pytest.raises(ValueError, match="it must rise from 0 to T = 6"):
        gated_linear_attention(x, x, x, cu_seqlens=borders)


def test_wrong_kinds() -> None:
    with pytest.raises(TypeError, match=r"k has dtype torch\.int64; it must hold real floating-point numbers"):
        call(k=torch.zeros(B, T, H, K, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"v has dtype torch\.complex64"):
        call(v=torch.zeros(B, T, H, V, dtype=torch.complex64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": None}, "k is NoneType; it must be a torch.Tensor"),
        ({"beta": None}, r"beta is NoneType; it must be a torch.Tensor of write strengths"),
        ({"beta": 0.5}, r"beta is float; it must be a torch.Tensor of write strengths, \[B, T, heads\]"),
        ({"beta": torch.zeros(B, T, H, dtype=torch.int64)}, "beta has dtype torch.int64"),
        ({"g": -0.1}, "g is float; it must be a torch.Tensor"),
        ({"initial_state": [1.0]}, "initial_state is list; it must be a torch.Tensor"),
        ({"initial_state": torch.zeros(B, H, K, V, dtype=torch.int64)}, "initial_state has dtype torch.int64"),
        ({"bonus": torch.zeros(H, K, dtype=torch.int64), "read": "before"}, "bonus has dtype torch.int64"),
        ({"scale": "fast"}, "scale is str; it must be a real number, or None"),
        ({"scale": np.array([0.5])}, "scale is ndarray; it must be a real number"),
        ({"scale": 1j}, "scale is complex; it must be a real number"),
        ({"scale": torch.tensor(0.5)}, "scale is a Tensor and would get no gradient; pass a number"),
        ({"cu_seqlens": torch.tensor([0, 2.5, 6])}, r"cu_seqlens is \[0\.0, 2\.5, 6\.0\]; it must be whole numbers"),
        ({"cu_seqlens": torch.tensor([[0, 6]])}, "it must be whole numbers that rise from 0 to T = 6"),
    ],
)
def test_wrong_types(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(**changes)


SHAPES = {"q": (B, T, H, K), "k": (B, T, H, K), "v": (B, T, H, V), "g": (B, T, H), "gk": (B, T, H, K)}
SHAPES |= {"gv": (B, T, H, V), "G": (B, T, H, K, V), "initial_state": (B, H, K, V), "bonus": (H, K), "beta": (B, T, H)}


@pytest.mark.parametrize("name", SHAPES)
def test_one_precision_for_all(name: str) -> None:
    options = {"read": "before"} if name == "bonus" else {}
    with pytest.raises(
        TypeError, match=r"has dtype torch\.float\d\d and q torch\.float\d\d; all or none may be float64"
    ):
        call(**{name: torch.zeros(SHAPES[name], dtype=torch.float64)}, **options)
    if name != "q":
        call(**{name: torch.zeros(SHAPES[name], dtype=torch.bfloat16)}, **options)  # counts as float32


def test_minus_infinity_is_a_good_log_gate() -> None:
    call(g=torch.full((B, T, H), -torch.inf), check_values=True)


def test_head_first_tensors_are_noticed() -> None:
    x = torch.randn(2, 3, 40, 8)  # [B, H, T, K]
    with pytest.warns(LayoutWarning, match=r"fewer tokens than the 40 heads: .* call \.transpose\(1, 2\)"):
        gated_linear_attention(x, x, x)


def test_no_scale_is_that_of_flash_linear_attention() -> None:
    x = torch.randn(1, 6, 2, 16)
    o, _ = gated_linear_attention(x, x, x, scale=None)
    torch.testing.assert_close(o, gated_linear_attention(x, x, x, scale=0.25)[0])


@pytest.mark.parametrize("half", [np.float32(0.5), np.array(0.5), Fraction(1, 2)])
def test_a_scale_is_any_real_number(half: Any) -> None:
    x = torch.randn(1, 6, 2, 16)
    o, expected = (unwrap(gated_linear_attention)(x, x, x, scale=scale)[0] for scale in (half, 0.5))
    torch.testing.assert_close(o, expected, rtol=0, atol=0)


def test_a_chunk_size_is_never_ignored() -> None:
    x = torch.randn(1, 6, 2, 16)
    assert choose(x, x, x, form="chunked", chunk_size=8).backend == "eager"
    with pytest.raises(RuntimeError, match="chunk_size=8 is for the eager backend"):
        gated_linear_attention(x, x, x, chunk_size=8, backend="native")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_in_place(backend: Backend) -> None:
    x, state = torch.randn(2, 1, 3, 4), torch.randn(2, 3, 4, 4)
    o, expected = gated_linear_attention(x, x, x, gk=-x.abs(), initial_state=state, output_final_state=True)
    found = gated_linear_attention(
        x, x, x, gk=-x.abs(), initial_state=state, output_final_state=True, inplace=True, backend=backend
    )
    assert found[1] is state
    torch.testing.assert_close(found, (o, expected))
    with pytest.raises(ValueError, match="inplace=True came with a state of 1 heads; the new one has 3"):
        gated_linear_attention(x, x, x, initial_state=state[:, :1], inplace=True, backend=backend)
    with pytest.raises(ValueError, match="inplace=True came with tensors that require gradients"):
        gated_linear_attention(x, x, x.requires_grad_(), initial_state=state, inplace=True, backend=backend)
