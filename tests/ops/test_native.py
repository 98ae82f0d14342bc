"""What only the native backend has: vectors with surplus lanes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import BACKENDS, assert_law, inputs, run, tensors
from torch import Tensor

from gladient.ops import gated_linear_attention
from gladient.ops.native import operators
from gladient.ops.native.registry import named

needs_kernels = pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
NAMES = ("q", "k", "v", "g", "gk", "gv")


def guarded(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A tensor of NaN, and the memory that it lies in, between ones."""
    memory = torch.ones(int(np.prod(shape)) + 64, dtype=dtype)
    return memory[32:-32].view(shape).fill_(torch.nan), memory


@needs_kernels
@pytest.mark.filterwarnings("ignore::gladient.ops.LayoutWarning")
@settings(max_examples=120, deadline=None)
@given(
    dtype=st.sampled_from([torch.float32, torch.float64]),
    family=st.sampled_from(["none", "scalar", "key", "value", "key×value"]),
    T=st.integers(1, 70),
    H=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (20, 1)]),
    K=st.integers(1, 40),
    V=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_last_query_writes_its_tensors_and_nothing_around_them(
    dtype: torch.dtype, family: str, T: int, H: tuple[int, int], K: int, V: int, seed: int
) -> None:
    made = inputs(family, T, B=2, H=H[0], K=K, V=V, heads=H[1], state=False, seed=seed)
    last = {name: torch.tensor(x[:, -1:] if name == "q" else x, dtype=dtype) for name, x in made.items()}
    d_o = torch.randn(2, 1, H[0], V, dtype=dtype)
    results = {"o": guarded(tuple(d_o.shape), dtype)}
    results |= {f"d_{name}": guarded(tuple(x.shape), dtype) for name, x in last.items()}
    arguments = [last.get(name) for name in NAMES]
    given = named(arguments, operators.LAST)
    operators._run_last_query(given, {"o": results["o"][0]}, 0.5)
    operators._run_last_query(given, {"d_o": d_o} | {name: x for name, (x, _) in results.items() if name != "o"}, 0.5)
    leaves = {name: x.double().requires_grad_() for name, x in last.items()}  # of torch's form, held to the plain loops
    o, _ = gated_linear_attention(**leaves, scale=0.5, form="last_query", backend="eager")  # type: ignore[arg-type]
    gradients = torch.autograd.grad(o, list(leaves.values()), d_o.double())
    expected = {"o": o.detach()} | {f"d_{name}": x for name, x in zip(leaves, gradients, strict=True)}
    scale = 1e-12 if dtype == torch.float64 else 1e-5
    for name, (found, around) in results.items():
        size = max(1.0, expected[name].abs().max().item())
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=scale * size, err_msg=name)
        assert (torch.cat([around[:32], around[-32:]]) == 1).all(), name


@needs_kernels
def test_results_can_be_resized() -> None:
    x = torch.randn(8, 400, 2, 16)
    o, final = gated_linear_attention(x, x, x, output_final_state=True, backend="native")
    assert final is not None
    for result in (o, final):
        result.resize_(2 * len(result), *result.shape[1:]).zero_()


@needs_kernels
def test_gradients_outlive_the_next_step() -> None:
    given = tensors(inputs("scalar", 400, B=8, K=16, V=16, state=False), torch.float32)
    steps = []
    for _ in range(3):
        o, _ = run(given, backend="native")
        steps.append(torch.autograd.grad(o.square().sum(), list(given.values())))
    for gradients in steps[1:]:
        torch.testing.assert_close(gradients, steps[0], rtol=0, atol=0)
    assert len({x.data_ptr() for gradients in steps for x in gradients}) == 12


@needs_kernels
@pytest.mark.parametrize("V", [20, 24])  # an odd number of vectors of 32 and of 64 bytes
def test_one_head_on_two_threads(V: int) -> None:  # threads that shared its value channels wrote over one another's
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for seed in range(20):
            assert_law(inputs("none", 65, B=1, H=1, K=7, V=V, seed=seed), "chunked", "native", None)
    finally:
        torch.set_num_threads(before)
