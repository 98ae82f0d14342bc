"""Derivatives of any order, in either mode: those of the plain recurrence, which are those of the oracle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ops_cases import BRIEF, inputs, run
from torch import Tensor
from torch.func import grad, hessian, jvp

from oracles import gla_gradients
from tolerances import TOLERANCES

Tensors = dict[str, Tensor]
OTHERS = [law for law in BRIEF if law[0] != "recurrent" and law[3] in ("fixed", "key×value", "full", "rates", "delta")]
OTHERS += [law for law in BRIEF if law[0] != "recurrent" and law[3] == "delta+key+channels"]
OTHERS = OTHERS[::2]  # three or so families of each form, and others of the next


def case(family: str, T: int = 4) -> tuple[Tensors, Tensors]:
    """Inputs, and a direction for each."""
    made = inputs(family, T, rows=True)
    rng = np.random.default_rng(3)
    given = {name: torch.tensor(x) for name, x in made.items()}
    return given, {name: torch.tensor(rng.standard_normal(x.shape)) for name, x in made.items()}


def loss(**options: Any) -> Callable[[Tensors], Tensor]:
    def value(given: Tensors) -> Tensor:
        o, final = run(given, **options)
        return o[:, -1:].square().sum() + final.sin().sum()

    return value


def in_reverse(value: Callable[[Tensors], Tensor], given: Tensors, along: Tensors, order: int) -> Any:
    leaves = {name: x.clone().requires_grad_() for name, x in given.items()}
    total = value(leaves)
    for _ in range(order - 1):
        found = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
        total = torch.stack([(x * d).sum().square() for x, d in zip(found, along.values(), strict=True)]).sum()
    return torch.autograd.grad(total, list(leaves.values()))


def each(value: Callable[[Tensors], Tensor], given: Tensors, along: Tensors) -> Any:
    """Second derivatives in every order of the modes, and third ones."""
    yield in_reverse(value, given, along, 2)
    yield in_reverse(value, given, along, 3)
    yield jvp(grad(value), (given,), (along,))
    yield hessian(lambda v: value(given | {"v": v}))(given["v"])
    yield grad(lambda x: sum((y * along[name]).sum() for name, y in grad(value)(x).items()))(given)


@pytest.mark.parametrize(("form", "backend", "chunk", "family"), OTHERS)
def test_second_and_third_derivatives(form: str, backend: str, chunk: int | None, family: str) -> None:
    given, along = case(family)
    found = each(loss(form=form, backend=backend, chunk_size=chunk), given, along)
    expected = each(loss(form="recurrent"), given, along)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, **TOLERANCES[torch.float64])


@pytest.mark.parametrize("family", ["key×value", "delta+key+channels"])
def test_products_with_the_hessian_are_differences_of_the_oracles_gradients(family: str) -> None:
    given, along = case(family)
    product = jvp(grad(loss()), (given,), (along,))[1]
    ends = []
    for sign in (1e-6, -1e-6):
        moved = {name: x + sign * along[name] for name, x in given.items()}
        o, final = run(moved)
        d_o, d_final = torch.zeros_like(o), final.cos()
        d_o[:, -1] = 2 * o[:, -1]
        ends.append(gla_gradients({name: x.numpy() for name, x in moved.items()}, d_o.numpy(), d_final.numpy()))
    for name, x in product.items():
        difference = (ends[0][name] - ends[1][name]) / 2e-6
        np.testing.assert_allclose(x, difference, rtol=1e-5, atol=1e-6, err_msg=name)
