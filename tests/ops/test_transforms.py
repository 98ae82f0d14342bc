"""torch.func and torch.compile over every form."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from ops_cases import BRIEF, FORMS, inputs, run, spread, tensors
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gladient.ops import gated_linear_attention
from tolerances import TOLERANCES


@pytest.mark.parametrize(("form", "backend", "chunk", "family"), BRIEF)
def test_gradients_of_each_sequence(form: str, backend: str, chunk: int | None, family: str) -> None:
    given = tensors(inputs(family, 5, B=3, rows=True))

    def loss(one: dict[str, Tensor]) -> Tensor:
        rows = {name: x if name == "A" else x[None] for name, x in one.items()}
        o, final = run(rows, form=form, backend=backend, chunk_size=chunk)
        return o.square().sum() + final.square().sum()

    found = torch.func.vmap(torch.func.grad(loss))({name: x.detach() for name, x in given.items()})
    total = torch.stack([loss({name: x[i] for name, x in given.items()}) for i in range(3)]).sum()
    expected = torch.autograd.grad(total, list(given.values()))
    torch.testing.assert_close(list(found.values()), list(expected), **TOLERANCES[torch.float64])


@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
def test_one_set_of_tokens_for_many_gates(form: str, backend: str, chunk: int | None) -> None:
    q, k, v, gk = (x.detach() for x in tensors(inputs("key", 9, B=3, state=False)).values())

    def outputs(gk: Tensor) -> Tensor:
        options: dict[str, Any] = {"form": form, "backend": backend, "chunk_size": chunk}
        return gated_linear_attention(q[:1], k[:1], v[:1], gk=gk[None], **options)[0]

    expected = torch.stack([outputs(one) for one in gk])
    torch.testing.assert_close(torch.func.vmap(outputs)(gk), expected, **TOLERANCES[torch.float64])


@pytest.mark.parametrize(("form", "backend", "chunk", "family", "reentrant"), spread(BRIEF, [False, True]))
def test_gradients_through_checkpoints(
    form: str, backend: str, chunk: int | None, family: str, reentrant: bool
) -> None:
    given = tensors(inputs(family, 9))

    def total(*values: Tensor) -> Tensor:
        named = dict(zip(given, values, strict=True))
        o, final = run(named, form=form, backend=backend, chunk_size=chunk)
        return o.square().sum() + final.square().sum()

    leaves = list(given.values())
    expected = torch.autograd.grad(total(*leaves), leaves)
    checkpoint(total, *leaves, use_reentrant=reentrant).backward()
    torch.testing.assert_close([x.grad for x in leaves], list(expected), **TOLERANCES[torch.float64])


TRACED = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from gladient.ops import gated_linear_attention

def layer(form, backend):
    return lambda q, k, v, g: 2 * gated_linear_attention(q, k, v, g=g, form=form, backend=backend)[0]

shapes = (2, 20, 2, 3), (2, 20, 2, 3), (2, 20, 2, 2), (2, 20, 2)
given = [(-torch.rand(shape, dtype=torch.float64)).requires_grad_() for shape in shapes]
plain = [x.detach() for x in given]
forms = [(form, "eager") for form in ("recurrent", "parallel", "chunked", "last_query")]
forms += [(form, "auto") for form in ("auto", "chunked", "last_query")]  # native where there is a compiler
for form, backend in forms:
    function = layer(form, backend)
    expected = function(*given)
    with FakeTensorMode() as mode:
        assert function(*map(mode.from_tensor, plain)).shape == expected.shape
        assert function(*map(torch.empty, shapes)).shape == expected.shape
    if backend == "auto":  # PyTorch functionalizes no autograd.Function
        torch.testing.assert_close(torch.func.functionalize(function)(*plain), expected)
    halves = [x / 2 for x in plain]
    torch.testing.assert_close(torch.jit.trace(function, tuple(plain))(*halves), function(*halves))

# The default compiler once: matrix.py tries every form and family with one that writes no code.
function = layer("auto", "auto")
compiled, expected = torch.compile(function, fullgraph=True)(*given), function(*given)
torch.testing.assert_close(compiled, expected)
found, wanted = (torch.autograd.grad(x.square().sum(), given) for x in (compiled, expected))
torch.testing.assert_close(found, wanted)

def decode(state):
    token = torch.ones(1, 1, 2, 3)
    return gated_linear_attention(token, token, token, initial_state=state, output_final_state=True, inplace=True)[0]

state, expected, weight = torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3), torch.ones(3, requires_grad=True)
loss = (weight * state).sum()
with torch.no_grad():
    torch.testing.assert_close(torch.compile(decode, fullgraph=True)(state), decode(expected))
torch.testing.assert_close(state, expected)
try:
    loss.backward()
    raise SystemExit("autograd did not see that the state changed")
except RuntimeError as error:
    assert "modified by an inplace operation" in str(error)
print("same")
"""


@pytest.mark.slow
def test_traced_is_the_same() -> None:  # in a process of its own: the hook that checks shapes cannot be traced
    command = [sys.executable, "-W", "ignore", "-c", TRACED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr
