"""Second derivatives of whole models, against finite differences of the first in float64."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from test_residual import SHORT, WIDTH, randomised, tokens
from torch import Tensor
from torch.func import functional_call, grad, hessian, jvp, vmap

from gladient.nn import InContextRegressor, LayerConfig, ResidualModel

FORMS = [
    (name, form)
    for name, config in SHORT.items()
    for form in ("recurrent", "parallel")
    if form == "recurrent" or not (config.gate == "full" or config.write == "delta")
]


def models(config: LayerConfig) -> list[Any]:
    plain = replace(config, norm=False, output_gate=False)
    made = InContextRegressor(WIDTH, plain, seeds=[0, 1]), ResidualModel(WIDTH, [config] * 2, seeds=[0, 1])
    return [*map(randomised, made)]


def difference(gradient: Callable[[Tensor], Tensor], x: Tensor, along: Tensor) -> Tensor:
    step = 1e-6  # RWKV-7 divides short keys by their length, and its third derivatives are large
    return (gradient(x + step * along) - gradient(x - step * along)) / (2 * step)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_hessians_and_gradient_penalties(name: str, form: str) -> None:
    x = 0.3 * tokens(batch=1)[:, :, :4]
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    for model in models(replace(SHORT[name], form=form)):  # type: ignore[arg-type]

        def loss(x: Tensor, model: Any = model) -> Tensor:
            return model(x).square().sum()

        expected = difference(grad(loss), x, along)
        y = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(loss(y), y, create_graph=True)
        found = {
            "hessian": torch.einsum("ij,j->i", hessian(loss)(x).view(x.numel(), -1), along.flatten()).view_as(x),
            "penalty": torch.autograd.grad((first * along).sum(), y)[0],
            "forward over reverse": jvp(grad(loss), (x,), (along,))[1],
            "reverse over forward": grad(lambda x, loss=loss: jvp(loss, (x,), (along,))[1])(x),
        }
        for way, second in found.items():
            torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-7 * expected.abs().max().item(), msg=way)


@pytest.mark.parametrize("name", SHORT)
def test_named_forms_compute_the_same(name: str) -> None:
    """Predictions, hidden tokens, and decoding token by token."""
    for form in ("recurrent", "parallel", "chunked"):
        if (name, "parallel") not in FORMS and form == "parallel":
            continue
        for auto, named in zip(models(SHORT[name]), models(replace(SHORT[name], form=form)), strict=True):
            torch.testing.assert_close(named(0.3 * tokens()), auto(0.3 * tokens()), rtol=1e-9, atol=1e-11)
        z, states = named.decode(tokens()[:, :, :5])
        step, _ = named.decode(tokens()[:, :, 5:6], states)
        torch.testing.assert_close(torch.cat([z, step], 2), auto.hidden(tokens()[:, :, :6])[-1], rtol=1e-9, atol=1e-11)


def test_an_ensemble_of_parameters_is_mapped() -> None:
    """vmap of Hessian-vector products over models with functional_call, beside a loop."""
    each = [models(LayerConfig(form="recurrent"))[1] for _ in range(3)]
    for seed, model in enumerate(each):
        randomised(model, seed)
    stacked = {
        name: torch.stack([dict(m.named_parameters())[name] for m in each]) for name, _ in each[0].named_parameters()
    }
    x, along = 0.3 * tokens(batch=1), tokens(batch=1)

    def second(parameters: dict[str, Tensor]) -> Tensor:
        loss = lambda x: functional_call(each[0], parameters, (x,)).square().sum()  # noqa: E731
        return jvp(grad(loss), (x,), (along,))[1]

    found = vmap(second)(stacked)
    for i in range(3):
        torch.testing.assert_close(found[i], second({name: p[i] for name, p in stacked.items()}), rtol=1e-9, atol=1e-9)


def test_a_form_that_a_layer_cannot_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for options, message in (
        ({"form": "step"}, "form is 'step'; choose one of auto, recurrent, parallel, chunked"),
        ({"form": "parallel", "gate": "full"}, "holds neither full gates nor the delta rule"),
        ({"form": "parallel", "write": "delta"}, "holds neither full gates nor the delta rule"),
        ({"form": "recurrent", "backend": "native"}, "it is plain PyTorch: use backend='auto'"),
    ):
        with pytest.raises(ValueError, match=message):
            LayerConfig(**options)  # type: ignore[arg-type]


def test_parameters_belong_to_every_form(tmp_path: Path) -> None:
    model = ResidualModel(WIDTH, [LayerConfig()])
    model.save(tmp_path / "model.safetensors")
    assert b"form" not in (tmp_path / "model.safetensors").read_bytes()[:2000]  # as in files from before there were any
    ResidualModel(WIDTH, [LayerConfig(form="recurrent")]).load(tmp_path / "model.safetensors")
