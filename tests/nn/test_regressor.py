"""The one-layer network: equal to its formula, to its plain form, and to itself in any stack."""

from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import Tensor

from gladient import lens
from gladient.nn import Gate, GatedLinearAttention, InContextRegressor, LayerConfig, ResidualModel, presets
from gladient.ops import native
from gladient.ops.native.build import why_unavailable
from gladient.prompts import MultitaskSetting, PromptSampler

FAMILIES: list[Gate] = ["none", "scalar", "key", "value"]
SETTING = MultitaskSetting.isotropic([3, 1, 4], [0.3, 0.5, 0.4], d=5, sigma2=0.1)


def prompts(batch: int = 6, groups: int = 1) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in range(groups)]
    return PromptSampler([SETTING], dtype=torch.float64).draw(batch, generators).tokens


def randomised(model: torch.nn.Module, seed: int = 0) -> Any:
    """The model in float64 with every parameter random, those that start at a fixed value too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.double().parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def wpgd(tokens: Tensor, P_q: Tensor, P_k: Tensor, gates: np.ndarray) -> np.ndarray:
    """theory.md, section 2, in plain NumPy: β̂ = P_q (X P_k ⊙ Ω)ᵀ y, row i of Ω = g_{i+1} ⊙ … ⊙ g_{n+1}."""
    d = len(P_q)
    predictions = []
    for z, g in zip(tokens.numpy(), gates, strict=True):
        T = len(z)
        Omega = np.stack([np.prod(g[i + 1 :], axis=0) for i in range(T)])
        beta = P_q.numpy() @ ((z[:, :d] @ P_k.numpy()) * Omega).T @ z[:, d]
        predictions.append(z[-1, :d] @ beta)
    return np.array(predictions)


@pytest.mark.parametrize("family", ["scalar", "key"])
def test_hand_built_layer_is_one_wpgd_step(family: Gate) -> None:
    d, tokens = 5, prompts()
    D = tokens.shape[-1]
    rng = torch.Generator().manual_seed(1)
    P_q, P_k = (torch.randn(d, d, generator=rng, dtype=torch.float64) for _ in range(2))
    model = randomised(InContextRegressor(D, LayerConfig(gate=family)))
    with torch.no_grad():
        for weight, block in ((model.layer.W_q, P_q), (model.layer.W_k, P_k)):
            weight.zero_()
            weight[0, :d, :d] = block
        model.layer.W_v.zero_()
        model.layer.W_v[0, d, d] = 1.0
        model.readout.zero_()
        model.readout[0, d] = 1.0
    logits = (tokens[0] @ model.layer.gate.weight[0].detach()).numpy()
    gates = (1 / (1 + np.exp(-logits)))[..., : (1 if family == "scalar" else d)] * np.ones(d)
    expected = wpgd(tokens[0], P_q, P_k, gates)
    got = model(tokens)[0].detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_hand_built_row_gates_mix_the_weights_of_their_rows() -> None:
    """ω = Σ_a h_a c_a ω^(a): two rows that carry y, one reading it with a minus."""
    d, tokens = 5, prompts()
    D = tokens.shape[-1]
    model = randomised(InContextRegressor(D, LayerConfig(gate="value", value_dim=2)))
    P = torch.eye(d, dtype=torch.float64)
    c, h = (1.5, -0.7), (0.4, 2.0)
    with torch.no_grad():
        for weight in (model.layer.W_q, model.layer.W_k):
            weight.zero_()
            weight[0, :d, :d] = P
        model.layer.W_v.zero_()
        for a in range(2):
            model.layer.W_v[0, d, a] = c[a]
        model.readout[0] = torch.tensor(h, dtype=torch.float64)
    gates = torch.sigmoid(tokens[0] @ model.layer.gate.weight[0].detach()).numpy()
    expected = sum(h[a] * c[a] * wpgd(tokens[0], P, P, gates[..., a : a + 1] * np.ones(d)) for a in range(2))
    np.testing.assert_allclose(model(tokens)[0].detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bias", [False, True])
def test_read_last_is_the_read_out_of_the_plain_form(family: Gate, bias: bool) -> None:
    tokens = prompts(groups=2)
    config = LayerConfig(gate=family, gate_bias=bias, key_dim=4, value_dim=3, scale=0.3)
    model = randomised(InContextRegressor(tokens.shape[-1], config, seeds=[0, 1, 2, 3]))
    plain = torch.einsum("ebv,ev->eb", model.layer(tokens)[:, :, -1], model.readout)
    torch.testing.assert_close(model(tokens), plain, rtol=1e-10, atol=1e-12)
    weights = torch.randn(plain.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    fast, slow = (torch.autograd.grad((weights * f).sum(), [*model.parameters()]) for f in (model(tokens), plain))
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("family", ["none", "scalar", "value"])
def test_training_reads_the_tokens_once(family: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel for all of it, unless somebody listens, changes the gate, or wants other gradients or none."""
    calls: list[int] = []
    tokens = prompts()
    model = randomised(InContextRegressor(tokens.shape[-1], LayerConfig(gate=family, value_dim=3), seeds=[0, 1]))
    run = native.token_query

    def counted(*given: Any) -> Tensor:
        calls.append(1)
        return run(*given)

    monkeypatch.setattr(native, "token_query", counted)
    fast = model(tokens)
    assert calls == [1] * (why_unavailable() is None)
    with lens.capture(model.layer) as trace:
        heard = model(tokens)
    leaf = tokens.clone().requires_grad_()
    model(leaf).sum().backward()
    assert leaf.grad is not None
    if model.layer.gate is not None:
        hook = model.layer.gate.register_forward_hook(lambda gate, tokens, logs: 0 * logs)
        assert not torch.equal(model(tokens), fast)
        hook.remove()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), heard, rtol=1e-10, atol=1e-12)
    assert len(calls) <= 1
    assert len(trace.records) == 1
    torch.testing.assert_close(fast, heard, rtol=1e-10, atol=1e-12)


def test_a_closed_gate_forgets_an_infinite_token() -> None:
    tokens = torch.ones(1, 2, 10, 3)
    tokens[0, 0, 1, 0] = torch.inf
    tokens[0, :, 7, 2] = -1e4  # a gate of 0
    model = InContextRegressor(3, LayerConfig(gate="scalar"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        assert model.layer.gate is not None
        model.layer.gate.weight.copy_(torch.tensor([0.0, 0.0, 1.0])[None, :, None])
    found = model(tokens)[0]
    assert found[0].isfinite()
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_member_of_a_stack_is_the_model_of_its_seed(family: Gate) -> None:
    tokens = prompts(groups=2)
    config = LayerConfig(gate=family, value_dim=2, open_columns=(6,), delimiter_columns=(7, 8, 9))
    stack = InContextRegressor(tokens.shape[-1], config, seeds=[5, 6, 5, 7]).double()
    with torch.no_grad():
        stack.readout.fill_(0.5)
    for member, (seed, group) in enumerate([(5, 0), (6, 0), (5, 1), (7, 1)]):
        alone = InContextRegressor(tokens.shape[-1], config, seeds=[seed]).double()
        with torch.no_grad():
            alone.readout.fill_(0.5)
        torch.testing.assert_close(stack(tokens)[member], alone(tokens[group : group + 1])[0], rtol=1e-10, atol=1e-12)


def test_gates_start_open_and_spread_over_delimiters() -> None:
    layer = GatedLinearAttention(4, LayerConfig(value_dim=3, gate="value", open_columns=(2,), delimiter_columns=(3,)))
    gate = layer.gate
    assert gate is not None
    opened = gate(torch.eye(4)[None, None])[0, 0, :, 0].exp()
    assert (opened[2] > 0.99).all()
    assert opened[3, 0] > 0.99
    assert abs(opened[3, 2] - 0.5) < 0.05
    assert (abs(opened[:2] - 0.5) < 0.05).all()


def test_read_out_starts_at_zero() -> None:
    model = InContextRegressor(10)
    assert (model(prompts().float()) == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_group_needs_no_dimension_of_its_own(family: Gate) -> None:
    tokens, config = prompts(), LayerConfig(gate=family, key_dim=4)
    regressor = randomised(InContextRegressor(tokens.shape[-1], config, seeds=[0, 1]))
    residual = randomised(ResidualModel(tokens.shape[-1], [config] * 2, seeds=[0, 1]))
    for model in (regressor, residual, regressor.layer, residual.hidden, residual.layers[0]):
        torch.testing.assert_close(model(tokens[0]), model(tokens), rtol=0, atol=0)


def test_bad_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        GatedLinearAttention(4, seeds=[])
    with pytest.raises(ValueError, match="3 members cannot share 2 groups"):
        InContextRegressor(10, seeds=[0, 1, 2])(prompts(groups=2).float())
    for model in (InContextRegressor(10), ResidualModel(10, [LayerConfig()]), ResidualModel(10, [presets.retnet(10)])):
        with pytest.raises(ValueError, match="a prediction is read from the last: give one"):
            model(torch.zeros(2, 0, 10))
        with pytest.raises(ValueError, match="1 members cannot share 0 groups"):
            model(torch.zeros(0, 2, 3, 10))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which would come first
    for shape in [(3, 10), (1, 1, 1, 3, 10)]:
        with pytest.raises(ValueError, match="or one group without its dimension"):
            InContextRegressor(10)(torch.zeros(shape))
    for preset in (presets.mamba2(4), presets.mamba(4)):
        with pytest.raises(ValueError, match="use a ResidualLayer"):
            InContextRegressor(4, preset)


@pytest.mark.filterwarnings("error::gladient.ops.LayoutWarning")
def test_own_layers_know_their_layout() -> None:
    """Fewer tokens than heads is what a warning is for in a user's call alone."""
    InContextRegressor(6, seeds=range(30))(torch.randn(4, 10, 6))
    for name, preset in presets.PRESETS.items():
        model = ResidualModel(64, [preset(64, heads=1 if name == "mamba" else 8)])
        model(torch.randn(1, 1, 5, 64))
        model.decode(torch.randn(1, 1, 5, 64))
