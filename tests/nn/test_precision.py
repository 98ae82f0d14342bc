"""What layers compute in: the same inside autocast as outside, and in half precision no gate that is rounded to 1."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from test_residual import CONFIGS, SHORT, WIDTH, randomised, tokens
from torch import Tensor
from torch.utils._pytree import tree_leaves

from gladient.nn import GatedLinearAttention, InContextRegressor, LayerConfig, ResidualModel, presets


def computed(model: ResidualModel, x: Tensor) -> Iterator[Tensor]:
    """Predictions, hidden tokens, pieces of decoding with their states, and gates."""
    yield model(x)
    hidden = model.hidden(x)
    yield from hidden
    yield model.read(hidden[-1])
    z, states = model.decode(x[:, :, :5])
    step, after = model.decode(x[:, :, 5:6], states)
    yield from (x for x in (z, step, *tree_leaves((states, after))) if x.dtype != torch.float64)  # phases
    for layer in model.layers:
        yield layer.attention.written(x, layer.W_o)
        yield from (gate.exp() for gate in vars(layer.attention.gates(x)).values() if gate is not None)


@pytest.mark.parametrize("name", SHORT)
def test_autocast_changes_no_bit(name: str) -> None:
    model, x = randomised(ResidualModel(WIDTH, [SHORT[name]] * 2, seeds=[0, 1])).float(), 0.3 * tokens().float()
    outside = [*computed(model, x)]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [*computed(model, x)]
        from_linear = model(x.bfloat16())  # what a Linear gives there
    for one, other in zip(inside, outside, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    assert torch.equal(from_linear, model(x.bfloat16().float()))
    gradients = [torch.autograd.grad(y[0].square().sum(), [*model.parameters()]) for y in (inside, outside)]
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_rounds_no_more_than_products(name: str, dtype: torch.dtype) -> None:
    """Beside the same numbers in float32, for tokens short enough that two layers enlarge no error much."""
    model = randomised(ResidualModel(WIDTH, [CONFIGS[name]] * 2, seeds=[0, 1])).to(dtype)
    exact, x = copy.deepcopy(model).float(), (0.2 * tokens()).to(dtype)
    few = 4 * torch.finfo(dtype).eps
    for found, wanted in zip(computed(model, x), computed(exact, x.float()), strict=True):
        assert ((found.float() - wanted).norm() <= few * wanted.norm()).item()
    assert model(x).dtype == model.hidden(x)[-1].dtype == dtype
    assert all(state.dtype in (torch.float32, torch.float64) for state in tree_leaves(model.decode(x)[1]))
    model(x).float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


LONG = {name: replace(CONFIGS[name], norm=False, output_gate=False) for name in CONFIGS}


@pytest.mark.parametrize("name", [name for name in LONG if LONG[name].gate != "none"])
def test_gates_near_one_keep_their_digits_in_half_precision(name: str) -> None:
    """Log gates of -0.0003 add up over 1,000 tokens; rounded gates of 1 would forget nothing."""
    layer = randomised(GatedLinearAttention(WIDTH, replace(LONG[name], gate_bias=LONG[name].gate != "fixed")))
    if layer.gate is not None:
        layer.gate.weight.data.mul_(0.1)
        layer.gate.bias.data.fill_(8.0)
    layer, generator = layer.bfloat16(), torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 1000, WIDTH, generator=generator).bfloat16()
    exact = copy.deepcopy(layer).double().gates(x.double())
    for found, wanted in zip(vars(layer.gates(x)).values(), vars(exact).values(), strict=True):
        if wanted is not None:
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)


def test_float64_goes_with_float64_alone() -> None:
    for model, x in ((InContextRegressor(4), torch.ones(1, 3, 4).double()), (InContextRegressor(4).double(), None)):
        with pytest.raises(TypeError, match=r"tokens have dtype .* all or none may be float64"):
            model(torch.ones(1, 3, 4) if x is None else x)


def test_fixed_decays_are_those_of_the_config() -> None:
    """Whatever a model went through before: RetNet's eighth is 1 - 2⁻¹², which bfloat16 rounds to 1."""
    retnet = ResidualModel(64, [presets.retnet(64, heads=8)])
    wanted = list(presets.retnet(64, heads=8).decays)
    for model in (retnet, retnet.bfloat16(), retnet.float(), retnet.half(), retnet.double()):
        assert model.layers[0].attention.decays.tolist() == wanted
    layer = GatedLinearAttention(4, LayerConfig(gate="fixed", decays=(0.9, 0.0), heads=2)).double()
    g = layer.gates(torch.ones(1, 1, 1, 4).double()).g
    assert layer.decays.tolist() == [0.9, 0.0]
    assert g is not None
    assert g.flatten().tolist() == [math.log(0.9), -math.inf]
