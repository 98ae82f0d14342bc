"""torch.func and torch.compile over every form."""

import subprocess
import sys

import pytest
import torch
from ops_cases import BRIEF, FORMS, inputs, run, tensors
from torch import Tensor

from gladient.ops import gated_linear_attention
from tolerances import TOLERANCES


@pytest.mark.parametrize(("form", "backend", "chunk", "family"), BRIEF)
def test_gradients_of_each_sequence(form: str, backend: str, chunk: int | None, family: str) -> None:
    given = tensors(inputs(family, 5, B=3))

    def loss(one: dict[str, Tensor]) -> Tensor:
        rows = {name: x[None] for name, x in one.items()}
        o, final = run(rows, form=form, backend=backend, chunk_size=chunk)
        return o.square().sum() + final.square().sum()

    found = torch.func.vmap(torch.func.grad(loss))({name: x.detach() for name, x in given.items()})
    total = sum(loss({name: x[i] for name, x in given.items()}) for i in range(3))
    expected = torch.autograd.grad(total, list(given.values()))
    torch.testing.assert_close(list(found.values()), list(expected), **TOLERANCES[torch.float64])


@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
def test_one_set_of_tokens_for_many_gates(form: str, backend: str, chunk: int | None) -> None:
    q, k, v, gk = (x.detach() for x in tensors(inputs("key", 9, B=3, state=False)).values())

    def outputs(gk: Tensor) -> Tensor:
        options = {"form": form, "backend": backend, "chunk_size": chunk}
        return gated_linear_attention(q[:1], k[:1], v[:1], gk=gk[None], **options)[0]

    expected = torch.stack([outputs(one) for one in gk])
    torch.testing.assert_close(torch.func.vmap(outputs)(gk), expected, **TOLERANCES[torch.float64])


COMPILED = """
import torch
from gladient.ops import gated_linear_attention

def outputs(q, k, v, g):
    return 2 * gated_linear_attention(q, k, v, g=g, form=form, backend=backend)[0]

forms = [(form, "eager", "aot_eager") for form in ("recurrent", "parallel", "chunked", "last_query")]
forms += [(form, "auto", "aot_eager") for form in ("chunked", "last_query")]  # native where there is a compiler
for form, backend, compiler in (*forms, ("last_query", "eager", "inductor")):
    torch.compiler.reset()
    shapes = (2, 3, 2, 3), (2, 3, 2, 3), (2, 3, 2, 2), (2, 3, 2)
    given = [(-torch.rand(shape, dtype=torch.float64)).requires_grad_() for shape in shapes]
    compiled, plain = torch.compile(outputs, backend=compiler)(*given), outputs(*given)
    torch.testing.assert_close(compiled, plain)
    found, expected = (torch.autograd.grad(x.square().sum(), given) for x in (compiled, plain))
    torch.testing.assert_close(found, expected)
print("same")
"""


@pytest.mark.slow
def test_compiled_is_the_same() -> None:  # in a process of its own: the hook that checks shapes cannot be compiled
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr
