"""The algorithm against plain loops over its equation, and its weights against their definitions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.wpgd import WPGD, Step, TaskWeights, fixed_weights, gate_weights

LAYOUT = PromptLayout(n=(3, 1, 2), d=4)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(steps: list[tuple[np.ndarray, np.ndarray, np.ndarray]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """theory.md, section 3, for one prompt; context and query by their own lines. Ω: [T, T, m]."""
    T, d = x.shape
    b = np.zeros((T, d))
    for P_k, P_q, Omega in steps:
        new = b.copy()
        for i in range(T - 1):
            for j in range(i + 1):
                new[i] += P_q @ (P_k.T @ x[j] * Omega[i, j]) * (y[j] - x[j] @ b[j])
        new[-1] -= P_q @ (P_k.T @ x[-1] * Omega[-1, -1]) * (x[-1] @ b[-1])  # the weight decay
        for j in range(T - 1):
            new[-1] += P_q @ (P_k.T @ x[j] * Omega[-1, j]) * (y[j] - x[j] @ b[j])
        b = new
    return b


WEIGHTS: dict[str, Callable[[], torch.Tensor | TaskWeights]] = {
    "fixed": lambda: fixed_weights(normal(LAYOUT.length)),
    "gates": lambda: gate_weights(-normal(2, LAYOUT.length, 1).abs()),
    "key gates": lambda: gate_weights(-normal(2, LAYOUT.length, 3).abs()),
    "tasks": lambda: TaskWeights(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), LAYOUT),
    "rows": lambda: TaskWeights(torch.tensor([0.7, -2.0, 0.3], dtype=torch.float64), LAYOUT, "value"),
    "tasks by key": lambda: TaskWeights(normal(3, 3).abs().cumsum(0) / 9, LAYOUT, "key"),
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("L", [1, 2, 5])
def test_every_token_keeps_the_estimate_of_the_equation(name: str, L: int) -> None:
    T, m = LAYOUT.length, 3
    x, y = normal(2, T, 4, seed=1), normal(2, T, seed=2)
    y[:, -1] = 0
    steps = [Step(normal(4, m, seed=3 + 2 * s), normal(4, m, seed=4 + 2 * s), WEIGHTS[name]()) for s in range(L)]
    run = WPGD(tuple(steps))(x, y)
    for i in range(2):
        plain = [
            (s.P_k.numpy(), s.P_q.numpy(), np.broadcast_to(s.matrix.numpy()[i % len(s.matrix)], (T, T, m)))
            for s in steps
        ]
        expected = by_loops(plain, x[i].numpy(), y[i].numpy())
        np.testing.assert_allclose(run.b[-1, i].numpy(), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    torch.testing.assert_close(run.prediction, (x[:, -1] * run.b[-1, :, -1]).sum(1), rtol=1e-12, atol=0)


def test_one_step_is_weighted_least_squares_gradient() -> None:
    """β̂ = P Xᵀ(ω ⊙ y)."""
    setting = MultitaskSetting.isotropic([3, 1, 2], [0.1, 0.2, 0.3], d=4)
    tokens = PromptSampler([setting], dtype=torch.float64).draw(5, [torch.Generator().manual_seed(0)]).tokens[0]
    x, y, P = tokens[..., :4], tokens[..., 4], normal(4, 4)
    omega = torch.tensor([0.2, 0.4, 0.5], dtype=torch.float64)
    run = WPGD((Step.scaled(torch.eye(4, dtype=torch.float64), P, omega, LAYOUT),))(x, y)
    by_token = torch.zeros(LAYOUT.length, dtype=torch.float64)
    for k, block in enumerate(LAYOUT.blocks):
        by_token[block] = omega[k]
    expected = torch.einsum("de,bte,t,bt->bd", P, x, by_token, y)
    torch.testing.assert_close(run.b[0, :, -1], expected, rtol=1e-12, atol=1e-12)


def test_gates_of_zero_forget_and_are_never_nan() -> None:
    log_g = torch.full((1, 5, 2), -torch.inf, dtype=torch.float64)
    assert torch.equal(gate_weights(log_g), torch.eye(5, dtype=torch.float64)[None, :, :, None].expand(1, 5, 5, 2))


def test_weights_are_products_even_where_products_underflow() -> None:
    log_g = -1000 * normal(1, 6, 1).abs()
    Gamma = gate_weights(log_g)[0, :, :, 0]
    for i in range(6):
        for j in range(6):
            expected = torch.exp(log_g[0, j + 1 : i + 1, 0].sum()) if j <= i else torch.tensor(0.0).double()
            torch.testing.assert_close(Gamma[i, j], expected, rtol=1e-12, atol=0)


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3))
@settings(deadline=None, max_examples=50)
def test_rows_make_any_weights(omega: list[float]) -> None:
    Omega = TaskWeights(torch.tensor(omega, dtype=torch.float64), LAYOUT, "value").matrix()[0, :, :, 0]
    for m, outputs in enumerate([*LAYOUT.blocks, slice(LAYOUT.length - 1, LAYOUT.length)]):
        own = omega[m] if m < 3 else 1.0
        for k, block in enumerate(LAYOUT.blocks[:m]):
            torch.testing.assert_close(
                Omega[outputs, block], torch.full_like(Omega[outputs, block], 1 + omega[k] - own), rtol=0, atol=1e-13
            )


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
@settings(deadline=None, max_examples=50)
def test_scalar_gates_make_increasing_weights_and_nothing_else(omega: list[float]) -> None:
    if omega == sorted(omega):
        Omega = TaskWeights(torch.tensor(omega, dtype=torch.float64), LAYOUT).matrix()[0, -1, :, 0]
        for k, block in enumerate(LAYOUT.blocks):
            torch.testing.assert_close(
                Omega[block], torch.full_like(Omega[block], omega[k]), rtol=1e-12, atol=torch.finfo().tiny
            )
    else:
        with pytest.raises(ValueError, match=r"is above omega\["):
            TaskWeights(torch.tensor(omega, dtype=torch.float64), LAYOUT)


def test_bad_arguments_name_the_rule() -> None:
    eye = torch.eye(4)
    with pytest.raises(ValueError, match=r"omega\[0\] = 0\.8 is above omega\[1\] = 0\.2"):
        TaskWeights(torch.tensor([0.8, 0.2, 0.9]), LAYOUT)
    with pytest.raises(ValueError, match=r"omega\[1\]\[0\] = 0\.5 is above omega\[2\]\[0\] = 0\.25"):
        TaskWeights(torch.tensor([[0.1], [0.5], [0.25]]), LAYOUT, "key")
    with pytest.raises(ValueError, match=r"0 = 0 is above omega\[0\] = -1"):
        TaskWeights(torch.tensor([-1.0, 0.2, 0.9]), LAYOUT)
    with pytest.raises(ValueError, match=r"omega\[2\] = 2 is above 1 = 1"):
        TaskWeights(torch.tensor([0.1, 0.2, 2.0]), LAYOUT)
    with pytest.raises(ValueError, match="put the scale in P"):
        TaskWeights(torch.tensor([2.0, 2.0, 2.0]), LAYOUT, "none")
    with pytest.raises(ValueError, match=r"it must be \[3\]"):
        TaskWeights(torch.ones(2), LAYOUT)
    with pytest.raises(ValueError, match="must be finite"):
        TaskWeights(torch.tensor([0.0, torch.nan, 1.0]), LAYOUT)
    with pytest.raises(ValueError, match="gate is 'mamba'"):
        TaskWeights(torch.ones(3), LAYOUT, "mamba")
    with pytest.raises(ValueError, match="no delimiters"):
        TaskWeights(torch.ones(3), PromptLayout(n=(3, 1, 2), d=4, delimiters=False))
    with pytest.raises(ValueError, match="weights have shape"):
        Step(eye, eye, torch.ones(1, 9, 9, 3))
    with pytest.raises(ValueError, match="steps is empty"):
        WPGD(())
    with pytest.raises(ValueError, match=r"made for \[B, 10, 4\]"):
        WPGD((Step(eye, eye, torch.ones(1, 10, 10, 1)),))(torch.zeros(1, 9, 4), torch.zeros(1, 9))
