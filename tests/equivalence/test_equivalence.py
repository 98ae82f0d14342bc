"""Algorithm → network → algorithm: equal outputs, round trips, the optimum without training, honest shares."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gladient import landscape
from gladient.equivalence import construct, extract, residual_model, solve_gates
from gladient.nn import InContextRegressor, LayerConfig, ResidualModel, presets
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.training import TrainingConfig, evaluate, train
from gladient.wpgd import WPGD, Step, TaskWeights

SETTING = MultitaskSetting.isotropic([3, 1, 4], [0.3, 0.5, 0.4], d=4, sigma2=0.1)
SAMPLER = PromptSampler([SETTING], dtype=torch.float64)
LAYOUT = SAMPLER.layout
GATES = ("none", "scalar", "key", "value")


def prompts(batch: int = 8, seed: int = 0) -> torch.Tensor:
    return SAMPLER.draw(batch, [torch.Generator().manual_seed(seed)]).tokens


def random_step(gate: str, rng: np.random.Generator, m: int | None = None) -> Step:
    m = m or int(rng.integers(1, 6))
    P_k, P_q = (torch.as_tensor(rng.normal(size=(4, m))) / 8 for _ in range(2))
    omega = {
        "none": np.ones(3),
        "scalar": np.sort(rng.uniform(size=3)),
        "key": np.sort(rng.uniform(size=(3, m)), axis=0),
        "value": rng.normal(size=3),
    }[gate]
    return Step(P_k, P_q, TaskWeights(torch.as_tensor(omega), LAYOUT, gate))


def run(algorithm: WPGD, tokens: torch.Tensor) -> Any:
    return algorithm(tokens[0, ..., :4], tokens[0, ..., 4])


def assert_equal(model: ResidualModel, algorithm: WPGD, tokens: torch.Tensor) -> None:
    """Predictions, and every context token's label y_i - x_iᵀ b_i, to 1e-10 of the largest."""
    after, expected = model.hidden(tokens)[1:], run(algorithm, tokens)
    for z, predictions in zip(after, expected.predictions, strict=True):
        labels = tokens[0, ..., 4] - predictions
        assert (z[0, ..., 4] - labels).abs().max() <= 1e-10 * labels.abs().max()
    error = (model(tokens)[0] - expected.prediction).abs().max()
    assert error <= 1e-10 * expected.prediction.abs().max()


@pytest.mark.parametrize("gate", [*GATES, "mixed"])
@pytest.mark.parametrize("L", range(1, 7))
def test_network_is_the_algorithm(gate: str, L: int) -> None:
    rng = np.random.default_rng(L)
    kinds = [GATES[i % 4] if gate == "mixed" else gate for i in range(L)]
    algorithm = WPGD(tuple(random_step(kind, rng) for kind in kinds))
    assert_equal(construct(algorithm), algorithm, prompts())


@given(st.integers(0, 2**32), st.lists(st.sampled_from(GATES), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25)
def test_round_trip_of_random_algorithms(seed: int, kinds: list[str]) -> None:
    rng = np.random.default_rng(seed)
    algorithm = WPGD(tuple(random_step(kind, rng) for kind in kinds))
    model, tokens = construct(algorithm), prompts(seed=seed % 1000)
    assert_equal(model, algorithm, tokens)
    found = extract(model, tokens, LAYOUT)
    assert max(found.cross_blocks, abs(found.moving_gates)) < 1e-18
    assert found.explained > 1 - 1e-14
    assert max(found.blocks.values()) < 1e-18
    assert abs(found.gain - 1) == 0
    for step, back in zip(algorithm.steps, found.algorithm.steps, strict=True):
        torch.testing.assert_close(back.P_k, step.P_k, rtol=1e-12, atol=0)
        torch.testing.assert_close(back.P_q, step.P_q, rtol=1e-12, atol=0)
        torch.testing.assert_close(back.matrix, step.matrix.expand_as(back.matrix), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.estimates.b, run(algorithm, tokens).b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gate", ["none", "scalar", "value"])
def test_the_factor_is_the_pair_up_to_scale(gate: str) -> None:
    step = random_step(gate, np.random.default_rng(0), m=4)
    factor = extract(construct(WPGD((step,))), prompts(), LAYOUT).factors[0]
    assert isinstance(step.weights, TaskWeights)
    P, omega = step.P_q @ step.P_k.T, step.weights.omega
    c = torch.where(P.trace() < 0, -1.0, 1.0) * omega.abs().max()
    sign = torch.sign((factor.omega * omega).sum())
    torch.testing.assert_close(factor.omega, sign * omega / omega.abs().max(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(factor.P, sign * P * c.abs(), rtol=1e-10, atol=1e-10)
    assert factor.share > 1 - 1e-12
    assert factor.P.trace() >= 0


ISOTROPIC = [((5, 5), (0.0, 1.0)), ((5, 5), (0.2, 0.8)), ((6, 3), (0.8, 0.2)), ((4, 4), (-0.6, 0.5))]


def z_score(model: ResidualModel, setting: MultitaskSetting, risk: float) -> float:
    sampler, generator = PromptSampler([setting], dtype=torch.float64), torch.Generator().manual_seed(1)

    def errors(batch: int) -> torch.Tensor:
        drawn = sampler.draw(batch, [generator])
        return (model(drawn.tokens) - drawn.targets).square()

    test = evaluate(errors, prompts=20_000)
    return ((test.risk - risk) / test.standard_error).item()


@pytest.mark.parametrize("Sigma", [np.eye(4), np.diag([3, 1.5, 0.7, 0.2])])
@pytest.mark.parametrize(("n", "r"), ISOTROPIC)
def test_the_optimum_reaches_its_risk_without_training(n: Any, r: Any, Sigma: Any) -> None:
    setting = MultitaskSetting(n=n, R=np.eye(2), r=r, Sigma=Sigma, sigma2=0.1)
    best, layout = landscape.optimum(setting), PromptLayout.of(setting)
    P, omega, eye = torch.tensor(best.P), torch.tensor(best.omega), torch.eye(4).double()
    model = construct(WPGD((Step.scaled(eye, P, omega, layout, "value"),)))
    assert abs(z_score(model, setting, best.risk)) < 4


def test_the_best_scalar_gate_reaches_its_risk_without_training() -> None:
    setting = MultitaskSetting.isotropic([5, 5], [0.2, 0.8], d=4)
    best = landscape.scalar_gate(setting)
    step = Step.scaled(torch.eye(4).double(), torch.tensor(best.P), torch.tensor(best.omega), PromptLayout.of(setting))
    assert abs(z_score(construct(WPGD((step,))), setting, best.risk)) < 4


def test_the_best_key_gates_reach_a_risk_below_the_optimum_without_training() -> None:
    """theory.md, section 7: where every channel's weights increase, key gates beat any single pair (P, ω)."""
    setting = MultitaskSetting(n=[30, 5], R=np.eye(2), r=[0.84, 0.54], Sigma=np.diag([34.0, 1, 1, 1]), sigma2=0.0)
    best = landscape.key_gate(setting)
    V, omega = torch.tensor(best.directions), torch.tensor(best.omega)
    model = construct(WPGD((Step.scaled(V, V, omega, PromptLayout.of(setting), "key"),)))
    assert abs(z_score(model, setting, best.risk)) < 4
    assert best.risk < 0.99 * landscape.optimum(setting).risk


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_gates_are_solved_from_any_independent_features(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = torch.as_tensor(rng.normal(size=(4, 6)))
    gates = torch.as_tensor(rng.uniform(size=(3, 2)))
    made = torch.sigmoid(features @ solve_gates(features, gates))
    torch.testing.assert_close(made[1:], gates, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(made[0], torch.ones(2).double(), rtol=0, atol=1e-12)


def test_shares_name_what_wpgd_is_not() -> None:
    """Each cross block that is put in is the one that is named, and gates that move with y are seen as such."""
    algorithm, tokens = WPGD((random_step("scalar", np.random.default_rng(3), m=3),)), prompts(400)
    for name in ("W_k", "W_q", "W_v"):
        model = construct(algorithm)
        with torch.no_grad():
            getattr(model.layers[0].attention, name)[0, 5 if name != "W_v" else 0] += 0.5
        found = extract(model, tokens, LAYOUT)
        assert found.explained + found.moving_gates + found.cross_blocks == pytest.approx(1)
        assert found.cross_blocks > 1e-4
        assert found.blocks[name] == pytest.approx(found.cross_blocks, rel=1e-6)
        assert all(value < 1e-18 for other, value in found.blocks.items() if other != name)
    model = construct(algorithm)
    with torch.no_grad():
        model.layers[0].attention.gate.weight[0, :5] += 1.0  # type: ignore[union-attr]
        model.layers[0].attention.gate.weight[0, 5:] /= 40  # type: ignore[union-attr]
    found = extract(model, tokens, LAYOUT)
    assert found.cross_blocks < 1e-18
    assert found.moving_gates > 0.01


def test_heads_and_full_gates_are_extracted() -> None:
    """Plain layers of any family: an algorithm with each prompt's own Ω is the network without cross blocks."""
    for config in (
        LayerConfig(gate="full", key_dim=3, value_dim=2),
        LayerConfig(gate="key", heads=2, key_dim=2, value_dim=2, scale=0.3),
        LayerConfig(gate="fixed", heads=2, key_dim=2, value_dim=1, decays=(0.5, 0.9)),
        LayerConfig(gate="scalar", heads=3, key_dim=2, value_dim=1, learn_rate=True),
    ):
        model = ResidualModel(LAYOUT.width, [config, config]).double()
        with torch.no_grad():
            for layer in model.layers:
                layer.attention.W_q[:, 4:] = 0
                layer.attention.W_k[:, 4:] = 0  # type: ignore[index]
                layer.attention.W_v[:, :4] = 0
                layer.attention.W_v[:, 5:] = 0
                layer.W_o[:, :, :4] = 0
                layer.W_o[:, :, 5:] = 0
            model.readout[0, 4] = -1
        found = extract(model, prompts(20), LAYOUT)
        assert found.cross_blocks < 1e-20


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.slow
@pytest.mark.parametrize("r", [(0.0, 1.0), (0.2, 0.8), (0.5, 0.5)])
def test_a_trained_network_is_the_optimal_algorithm(r: tuple[float, float]) -> None:
    """The figure's models at n = 20: share of variance ≥ 0.98, cosines with ω* and P* ≥ 0.99."""
    setting = MultitaskSetting.isotropic([10, 10], r, d=10)
    sampler, fresh = PromptSampler([setting]), [torch.Generator().manual_seed(0)]
    layout = sampler.layout
    config = LayerConfig(
        scale=1 / 20, value_dim=2, open_columns=layout.data_columns, delimiter_columns=layout.delimiter_columns
    )
    model = InContextRegressor(layout.width, config)

    def loss(model: Any) -> torch.Tensor:
        drawn = sampler.draw(512, fresh)
        return (model(drawn.tokens) - drawn.targets).square().mean(1)

    train(model, loss, TrainingConfig(), generators=fresh)
    tokens = sampler.draw(256, [torch.Generator().manual_seed(1)]).tokens
    found = extract(residual_model(model, layout), tokens, layout)
    best, factor = landscape.optimum(setting), found.factors[0]
    assert cosine(factor.omega.numpy(), best.omega) >= 0.99
    assert cosine(factor.P.numpy(), best.P) >= 0.99
    assert found.explained >= 0.98


@pytest.mark.slow
def test_two_trained_layers_beat_every_single_step() -> None:
    """They may also use blocks that WPGD has not: then the shares say so, and still add up."""
    setting = MultitaskSetting.isotropic([10, 10], [0.2, 0.8], d=5)
    sampler, fresh = PromptSampler([setting]), [torch.Generator().manual_seed(0)]
    layout = sampler.layout
    config = LayerConfig(
        scale=1 / 20, value_dim=2, open_columns=layout.data_columns, delimiter_columns=layout.delimiter_columns
    )
    model = ResidualModel(layout.width, [config, config])

    def errors(model: Any, batch: int) -> torch.Tensor:
        drawn = sampler.draw(batch, fresh)
        return (model(drawn.tokens) - drawn.targets).square()

    train(model, lambda model: errors(model, 256).mean(1), TrainingConfig(steps=800), generators=fresh)
    test = evaluate(lambda batch: errors(model, batch), prompts=60_000)
    best = landscape.optimum(setting).risk
    found = extract(model, sampler.draw(500, fresh).tokens, layout)
    assert found.explained + found.moving_gates + found.cross_blocks == pytest.approx(1)
    assert test.risk.item() + 4 * test.standard_error.item() < best


def test_bad_arguments() -> None:
    rng = np.random.default_rng(0)
    step = random_step("scalar", rng)
    with pytest.raises(TypeError, match="step 1 has its weights as a tensor"):
        construct(WPGD((step, Step(step.P_k, step.P_q, step.matrix))))
    bare = PromptLayout(n=LAYOUT.n, d=4, contextual=False)
    with pytest.raises(ValueError, match="have rank 0"):
        construct(WPGD((Step.scaled(step.P_k, step.P_q, torch.ones(3).double(), bare),)))
    own = PromptLayout(n=LAYOUT.n, d=4, marks="task")
    with pytest.raises(ValueError, match="marks is 'task'"):
        construct(WPGD((Step.scaled(step.P_k, step.P_q, torch.ones(3).double(), own),)))
    with pytest.raises(ValueError, match="different layouts"):
        construct(WPGD((step, Step.scaled(step.P_k, step.P_q, torch.ones(3).double(), bare))))
    with pytest.raises(ValueError, match="have rank 1"):
        solve_gates(torch.ones(2, 2), torch.full((1, 1), 0.5))
    model = construct(WPGD((step,)))
    with pytest.raises(ValueError, match="B must be at least 2"):
        extract(model, prompts(1), LAYOUT)
    with pytest.raises(ValueError, match=r"pick one: model.member\(0\)"):
        extract(ResidualModel(LAYOUT.width, [LayerConfig()], seeds=[0, 1]).double(), prompts(), LAYOUT)
    with pytest.raises(ValueError, match="layer 0 has normalise='keys', which no WPGD step has"):
        extract(ResidualModel(LAYOUT.width, [LayerConfig(normalise="keys")]).double(), prompts(), LAYOUT)
    with pytest.raises(ValueError, match="layer 0 has key_bias, which no WPGD step has"):
        extract(ResidualModel(LAYOUT.width, [LayerConfig(key_bias=True)]).double(), prompts(), LAYOUT)
    with pytest.raises(ValueError, match="layer 0 has norm, which no WPGD step has"):
        extract(ResidualModel(LAYOUT.width, [presets.gla(LAYOUT.width)]).double(), prompts(), LAYOUT)
    with pytest.raises(ValueError, match="the stack holds members 0 to 0"):
        model.member(1)
