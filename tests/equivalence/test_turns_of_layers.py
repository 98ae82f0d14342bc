"""Weights → layer that turns → weights: equal predictions, the theory's risks, what trained layers learned."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gladient import landscape
from gladient.equivalence import (
    Extraction,
    construct_rotating_delta,
    construct_rotating_gate,
    extract,
    extract_stack,
    residual_model,
    turns,
)
from gladient.experiments import MODELS
from gladient.nn import InContextRegressor, LayerConfig, ResidualModel
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.training import TrainingConfig, train
from gladient.wpgd import WPGD, Step, risk_given_features

SETTING = MultitaskSetting.isotropic([3, 1, 4], [0.3, 0.5, 0.4], d=4, sigma2=0.1)
SAMPLER = PromptSampler([SETTING], dtype=torch.float64)
LAYOUT = SAMPLER.layout
TOKENS = SAMPLER.draw(20, [torch.Generator().manual_seed(0)]).tokens


def weighted(P: torch.Tensor, omega: torch.Tensor, tokens: torch.Tensor, layout: PromptLayout) -> torch.Tensor:
    """xᵀ P Σ_k ω_k Σ_j x_j y_j in a loop over tasks."""
    x, y = tokens[0, ..., : layout.d], tokens[0, ..., layout.d]
    sums = [
        weight * torch.einsum("bjd,bj->bd", x[:, block], y[:, block])
        for weight, block in zip(omega, layout.blocks, strict=True)
    ]
    return torch.einsum("bd,de,be->b", x[:, -1], P, torch.stack(sums).sum(0))


def found_in(model: InContextRegressor, tokens: torch.Tensor = TOKENS, layout: PromptLayout = LAYOUT) -> Extraction:
    return extract(residual_model(model, layout), tokens, layout)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=15)
def test_any_weights_are_made_and_found_again(seed: int) -> None:
    """Of any order, sign and scale, a half turn and 0 among them."""
    rng = np.random.default_rng(seed)
    P = torch.as_tensor(rng.normal(size=(4, 4)))
    omega = torch.as_tensor(rng.normal(size=3) * rng.choice([0.0, 1e-3, 1.0, 30.0], size=3))
    model = construct_rotating_gate(P, omega, LAYOUT)
    expected = weighted(P, omega, TOKENS, LAYOUT)
    assert (model(TOKENS)[0] - expected).abs().max() <= 1e-10 * expected.abs().max()
    if not omega.any():
        return
    found, largest = found_in(model), omega.abs().max()
    assert found.explained > 1 - 1e-12
    assert max(found.cross_blocks, abs(found.moving_gates)) < 1e-12
    factor, sign = found.factors[0], torch.sign((found.factors[0].omega * omega).sum())
    torch.testing.assert_close(factor.omega, sign * omega / largest, rtol=0, atol=1e-12)
    torch.testing.assert_close(factor.P, sign * P * largest, rtol=1e-12, atol=1e-12 * largest.item())
    later = turns(model, LAYOUT)[0, :, 0].flip(0).cumsum(0).flip(0)
    torch.testing.assert_close(largest * later.cos(), omega, rtol=0, atol=1e-12 * largest.item())


@pytest.mark.parametrize("omega", [[1.0, -1.0, 1.0], [-2.0, 0.0, 0.0], [0.1, 0.2, -0.3]])
def test_the_weights_are_those_of_the_algorithm(omega: list[float]) -> None:
    """A layer's predictions beside those of `wpgd.Step` with value gates, which make any weights too."""
    eye, weights = torch.eye(4).double(), torch.tensor(omega).double()
    x, y = TOKENS[0, ..., :4], TOKENS[0, ..., 4]
    algorithm = WPGD((Step.scaled(eye, eye / 8, weights, LAYOUT, "value"),))
    predicted = construct_rotating_gate(eye / 8, weights, LAYOUT)(TOKENS)[0]
    torch.testing.assert_close(predicted, algorithm(x, y).prediction, rtol=1e-10, atol=1e-12)


def label_weights(model: InContextRegressor, tokens: torch.Tensor, d: int) -> torch.Tensor:
    """What each label counts in the prediction, from its slope."""
    tokens = tokens.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(tokens).sum(), tokens)
    return slope[0, ..., d]


def assert_risk(model: InContextRegressor, setting: MultitaskSetting, exact: float, batch: int = 6000) -> None:
    """The mean risk given the features beside the exact one."""
    sampler = PromptSampler([setting], dtype=torch.float64)
    tokens = sampler.draw(batch, [torch.Generator().manual_seed(1)]).tokens
    weights = label_weights(model, tokens, setting.d)
    risks = risk_given_features(weights, tokens[0, ..., : setting.d], setting)
    assert abs(risks.mean() - exact) < 4 * risks.std() / batch**0.5


@pytest.mark.parametrize("Sigma", [np.eye(4), np.diag([3, 1.5, 0.7, 0.2])])
@pytest.mark.parametrize("r", [(0.8, 0.2), (0.7, -0.3)])
def test_the_optimum_reaches_its_risk_without_training(r: tuple[float, float], Sigma: Any) -> None:
    """In an order, or with signs, that no scalar gate can make."""
    setting = MultitaskSetting([6, 3], np.eye(2), r, Sigma, 0.1)
    best, layout = landscape.optimum(setting), PromptLayout.of(setting)
    exact = landscape.rotating_gate(setting)
    model = construct_rotating_gate(best.P, best.omega, layout)
    assert_risk(model, setting, exact.risk)
    assert exact.turns is not None
    made = turns(model, layout)[0, :, 0].numpy()
    np.testing.assert_allclose(np.cos(made), np.cos(exact.turns), atol=1e-12)
    np.testing.assert_allclose(np.sin(made), np.sin(exact.turns), atol=1e-12)


PLANES = [
    ([5, 5], [0.8, 0.2], 0.0),
    ([6, 3], [0.2, 0.8], 0.0),
    ([5, 5], [0.3, 0.7], 0.6),
    ([4, 6], [0.6, -0.3], 0.4),
    ([4, 4], [0.5, -0.5], -1.0),
    ([7], [0.9], 0.0),
]


@pytest.mark.parametrize(("n", "r", "rho"), PLANES)
def test_the_rotating_delta_rule_is_at_the_floor_without_training(n: Any, r: Any, rho: float) -> None:
    R = np.eye(len(n)) + rho * (1 - np.eye(len(n)))
    setting = MultitaskSetting(n, R, r, 0.7 * np.eye(4), 0.0)
    best = landscape.delta.rotating_delta_rule(setting)
    assert best.risk == landscape.filter_floor(setting).risk
    assert_risk(construct_rotating_delta(setting), setting, best.risk)


def test_the_rotating_delta_rule_is_its_loop() -> None:
    """Keys turned in the plane, one example after the other, in plain loops; features of any common variance."""
    setting = MultitaskSetting([3, 2], [[1.0, 0.3], [0.3, 1.0]], [0.7, -0.2], 1e-3 * np.eye(3), 0.0)
    sampler = PromptSampler([setting], dtype=torch.float64)
    layout, best = sampler.layout, landscape.delta.rotating_delta_rule(setting)
    assert best.turns is not None
    assert best.gain is not None
    tokens = sampler.draw(6, [torch.Generator().manual_seed(2)]).tokens
    predicted = construct_rotating_delta(setting)(tokens)[0]
    for prompt, value in zip(tokens[0].numpy(), predicted.tolist(), strict=True):
        S, angle, step = np.zeros((2, 3)), 0.0, best.steps[0]
        for t, token in enumerate(prompt):
            if t in layout.delimiter_places:
                angle += best.turns[layout.delimiter_places.index(t)]
                continue
            h, x = np.array([math.cos(angle), math.sin(angle)]), token[:3]
            S = S - step * np.outer(h, x) * (h @ S @ x - token[3])
        read = best.gain * np.array([math.sin(angle), -math.cos(angle)])
        assert value == pytest.approx(read @ S @ prompt[-1, :3], rel=1e-10)


CONFIGS = {
    "an angle per pair": LayerConfig(rotation="token", key_dim=6, value_dim=2),
    "pairs that stand still": LayerConfig(rotation="token", turned_pairs=1, key_dim=6, value_dim=1, heads=2),
    "fixed": LayerConfig(gate="fixed", decays=(0.9,), rotation="fixed", key_dim=4, value_dim=2, scale=0.5),
    "value gates": LayerConfig(gate="value", rotation="token", shared_angle=True, key_dim=4, value_dim=2),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_any_layer_that_turns_is_steps_of_twice_the_directions(kind: str) -> None:
    """Random weights without cross blocks: each prompt's own Ω explains everything, two layers deep."""
    model = ResidualModel(LAYOUT.width, [CONFIGS[kind], CONFIGS[kind]]).double()
    with torch.no_grad():
        for layer in model.layers:
            for weight in (layer.attention.W_q, layer.attention.W_k):
                assert weight is not None
                weight[:, 4:] = 0
            layer.attention.W_v[:, :4] = 0
            layer.attention.W_v[:, 5:] = 0
            layer.W_o[:, :, :4] = 0
            layer.W_o[:, :, 5:] = 0
        model.readout.zero_()[0, 4] = -1
    found = extract(model, TOKENS, LAYOUT)
    assert found.cross_blocks < 1e-20
    assert found.algorithm.steps[0].P_k.shape[1] == 2 * (CONFIGS[kind].key_dim or 0) * CONFIGS[kind].heads


@pytest.mark.slow
@pytest.mark.parametrize("r", [(0.8, 0.2), (0.8, -0.2)])
def test_a_trained_layer_turns_by_what_the_theory_says(r: tuple[float, float]) -> None:
    """Its weights are the best ones, which no scalar gate can make."""
    setting = MultitaskSetting.isotropic([10, 10], r, d=5)
    sampler, fresh = PromptSampler([setting]), [torch.Generator().manual_seed(0)]
    layout = sampler.layout
    model = MODELS["rotating_gate"].build(layout, [0], key_channels=2)

    def loss(model: Any) -> torch.Tensor:
        drawn = sampler.draw(256, fresh)
        return (model(drawn.tokens) - drawn.targets).square().mean(1)

    config = TrainingConfig(steps=700, batch_size=256, learning_rate=0.03, gate_learning_rate=0.03, gate_rest=0.1)
    train(model, loss, config, generators=fresh)
    tokens = sampler.draw(256, [torch.Generator().manual_seed(1)]).tokens
    found, best = found_in(model, tokens, layout), landscape.rotating_gate(setting)
    assert found.explained > 0.97
    assert found.factors[0].share > 0.97
    np.testing.assert_allclose(found.factors[0].omega.numpy(), best.omega, atol=0.06)
    # the first delimiter's turn is what lies between both tasks' angles
    assert best.turns is not None
    assert abs(turns(model, layout)[0, 0, 0]) > 0.5


def test_bad_arguments() -> None:
    P, omega = torch.eye(4).double(), torch.tensor([1.0, 0.5, 0.2]).double()
    with pytest.raises(ValueError, match=r"omega has shape \[2\] and the values"):
        construct_rotating_gate(P, omega[:2], LAYOUT)
    with pytest.raises(ValueError, match=r"P has shape \[3, 4\]"):
        construct_rotating_gate(P[:3], omega, LAYOUT)
    with pytest.raises(ValueError, match="all must be finite"):
        construct_rotating_gate(P, omega / 0, LAYOUT)
    for changed in ({"contextual": False}, {"delimiters": False}):
        with pytest.raises(ValueError, match="turns are made from the delimiters' contextual features"):
            construct_rotating_gate(P, omega, replace(LAYOUT, **changed))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 tasks; a plane has room"):
        construct_rotating_delta(SETTING)
    with pytest.raises(ValueError, match="solved without noise"):
        construct_rotating_delta(MultitaskSetting.isotropic([2, 2], [0.2, 0.8], d=4, sigma2=0.1))
    with pytest.raises(ValueError, match="rotation is 'none' and write 'plain'; turns are those of a layer"):
        turns(InContextRegressor(LAYOUT.width), LAYOUT)
    made = construct_rotating_gate(P, omega, LAYOUT)
    with pytest.raises(ValueError, match="in tokens of 9"):
        turns(made, replace(LAYOUT, n=(3, 1)))
    with pytest.raises(ValueError, match="layer 0 has rotation='token'; the layers of a stack have none"):
        extract_stack(residual_model(made, LAYOUT), LAYOUT)
