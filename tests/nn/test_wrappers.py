"""What users wrap around models: the meta device, copies, checkpointing, ensembles, other defaults."""

import copy
import pickle
from typing import Any

import pytest
import torch
from test_residual import CONFIGS, WIDTH, randomised, tokens
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from gladient.nn import ResidualModel

NAMES = ["retnet", "mamba", "rwkv6", "kda", "hgrn2", "forgets at once"]


def made(name: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    model, x = (
        randomised(ResidualModel(WIDTH, [CONFIGS[name]] * 2, seeds=[0, 1])).float(),
        0.3 * tokens(batch=4).float(),
    )
    return model, x, model(x).detach()


@pytest.mark.parametrize("name", NAMES)
def test_models_of_the_meta_device_load_to_the_right_values(name: str) -> None:
    model, x, expected = made(name)
    with torch.device("meta"):
        built = ResidualModel(WIDTH, [CONFIGS[name]] * 2, seeds=[0, 1])
    assert built(x.to("meta")).shape == expected.shape
    assigned = copy.deepcopy(built)
    assigned.load_state_dict(model.state_dict(), assign=True)
    filled = built.to_empty(device="cpu")
    filled.load_state_dict(model.state_dict())
    moved = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    moved.load_state_dict(model.state_dict())
    for loaded in (assigned, filled, moved, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(loaded(x), expected)
    assert [*model.state_dict()] == [name for name, _ in model.named_parameters()]  # files hold parameters alone


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_checkpointed_under_autocast_is_the_same(name: str, reentrant: bool) -> None:
    model, x, _ = made(name)
    (expected,) = torch.autograd.grad(model(x.requires_grad_()).square().sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        predictions = checkpoint(model, x, use_reentrant=reentrant)
    predictions.square().sum().backward()
    # Gradients of one tensor may be summed in another order: float32 rounds that, bfloat16 would a thousand times more.
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
def test_an_ensemble_under_vmap_is_its_members(name: str) -> None:
    each, x = [randomised(ResidualModel(WIDTH, [CONFIGS[name]]), seed) for seed in range(3)], 0.3 * tokens(batch=4)
    parameters, buffers = stack_module_state(each)
    found = vmap(lambda p, b: functional_call(each[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(found, torch.stack([model(x) for model in each]), rtol=1e-9, atol=1e-11)
    by_prompt = vmap(lambda z: each[0](z[None, None])[:, 0], out_dims=1)(x[0])
    torch.testing.assert_close(by_prompt, each[0](x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_other_defaults_change_nothing(name: str) -> None:
    """The default dtype and device are for what is built, not for what is computed; decoding in inference mode."""
    model, x, expected = made(name)
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.equal(model(x), expected)
        assert {p.dtype for p in ResidualModel(WIDTH, [CONFIGS[name]]).parameters()} == {torch.float64}
        torch.set_default_device("meta")
        assert torch.equal(model(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    with torch.inference_mode():
        first, states = model.decode(x[:, :, :5])
        second, _ = model.decode(x[:, :, 5:], states)
    torch.testing.assert_close(torch.cat([first, second], 2), model.hidden(x)[-1], rtol=1e-4, atol=1e-5)
    model(x).sum().backward()
