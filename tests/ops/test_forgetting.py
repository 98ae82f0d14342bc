"""A log gate of -inf forgets exactly: what stood before it changes nothing behind it, be it infinite or NaN."""

import numpy as np
import pytest
import torch
from ops_cases import BACKENDS, BRIEF, inputs, run, spread, tensors, tokens
from torch import Tensor

T, AT = 40, 21
GATES = {"g": -np.inf, "gk": -np.inf, "gv": -np.inf, "G": -np.inf, "dt": np.inf}
GATED = [law for law in BRIEF if law[3] not in ("none", "delta", "fixed", "delta+fixed")]
GATED = [law for law in GATED if "general" not in law[3]]  # it reads the state before a gate of 0 drops it


def spoilt(family: str, name: str, value: float) -> dict[str, np.ndarray]:
    """Every gate forgets at one token, and one entry of what came before is not finite."""
    made = inputs(family, T, B=1)
    for gate in GATES.keys() & made.keys():
        made[gate][:, AT] = GATES[gate]
    x = made[name][0] if name == "state" else made[name][0, 9]
    x[(-1,) * x.ndim] = value
    return made


@pytest.mark.parametrize(("form", "backend", "chunk", "family", "read"), spread(GATED, ["after", "before"]))
def test_what_is_forgotten_may_be_anything(form: str, backend: str, chunk: int | None, family: str, read: str) -> None:
    gate = next(name for name in ("g", "gk", "gv", "G", "dt") if name in inputs(family, 1))
    whole = tokens(tensors(spoilt(family, "k", 0.0)), slice(AT, None))
    rest = {name: x.detach().clone().requires_grad_() for name, x in whole.items()}
    rest["state"] = torch.zeros_like(whole["state"])
    right = run(rest, form="recurrent", backend="eager", read=read)
    for name, value in (("k", np.inf), ("v", np.nan), ("state", -np.inf), (gate, np.nan)):
        given = tensors(spoilt(family, name, value))
        found = run(given, form=form, backend=backend, chunk_size=chunk, read=read)
        assert_same_behind(given, found, rest, right, read)


def assert_same_behind(
    given: dict[str, Tensor],
    found: tuple[Tensor, Tensor],
    rest: dict[str, Tensor],
    right: tuple[Tensor, Tensor],
    read: str,
) -> None:
    """Outputs, the final state, and the gradients of their sum, of the tokens from AT on."""
    skip = int(read == "before")  # that token itself reads what it is about to forget
    o, o_right = (
        (found[0], right[0][:, -1:]) if found[0].shape[1] == 1 else (found[0][:, AT + skip :], right[0][:, skip:])
    )
    torch.testing.assert_close((o, found[1]), (o_right, right[1]))
    names = [name for name in given if name not in ("state", "A")]
    slopes = torch.autograd.grad(o.cos().sum() + found[1].sum(), [given[name] for name in names])
    total = o_right.cos().sum() + right[1].sum()
    expected = torch.autograd.grad(total, [rest[name] for name in names], retain_graph=True)
    first = dict.fromkeys(GATES, 1) | {"q": skip}  # a gate of 0 has no slope; that of the rest has nothing to forget
    for name, slope, other in zip(names, slopes, expected, strict=True):
        torch.testing.assert_close(slope[:, AT + first.get(name, 0) :], other[:, first.get(name, 0) :])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "family", ["scalar", "key", "value", "key×value", "full", "rates", "delta+scalar", "delta+key+erase"]
)
def test_steps_forget_too(family: str, dtype: torch.dtype, backend: str) -> None:
    for K, V in ((3, 2), (5, 33)):
        made = inputs(family, 1, K=K, V=V)
        for gate in GATES.keys() & made.keys():
            made[gate][:] = GATES[gate]
        given = {name: torch.tensor(x, dtype=torch.float32 if name == "state" else dtype) for name, x in made.items()}
        for value in (torch.inf, torch.nan):
            right = run(given | {"state": torch.zeros_like(given["state"])}, backend=backend)
            state = torch.full_like(given["state"], value)
            torch.testing.assert_close(run(given | {"state": state}, backend=backend), right)
            torch.testing.assert_close(run(given | {"state": state}, backend=backend, inplace=True), right)
            torch.testing.assert_close(state, right[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["none", "scalar", "delta", "delta+scalar"])
@pytest.mark.parametrize("form", ["chunked", "last_query"])
def test_packed_sequences_and_empty_ones(form: str, family: str, backend: str) -> None:
    """What is not finite stays in its sequence, with its gradients; one query for all reads empty sequences too."""
    made = inputs(family, T, B=1)
    made["state"] = np.concatenate([made["state"]] * 4)
    made["q"][:] = made["q"][:, -1:]
    made["v"][0, 3] = np.nan
    if "g" in made:
        made["g"][:, 30] = -np.inf
    for one in (False, True) if form == "last_query" else (False,):
        given = tensors({**made, "q": made["q"][:, :1]} if one else made)
        offsets = [0, 7, 7, 26, T]
        o, final = run(given, form=form, backend=backend, cu_seqlens=offsets)
        part = tokens(given, slice(7, None)) | {"state": given["state"][1:]} | ({"q": given["q"]} if one else {})
        right, states = run(part, form="last_query" if one else form, backend=backend, cu_seqlens=[0, 0, 19, 33])
        torch.testing.assert_close((o[:, -right.shape[1] :], final[1:]), (right, states))
        (slope,) = torch.autograd.grad(o[:, -right.shape[1] :].sum() + final[1:].sum(), given["v"])
        (other,) = torch.autograd.grad(right.sum() + states.sum(), given["v"])
        torch.testing.assert_close(slope[:, 7:], other[:, 7:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["recurrent", "chunked", "last_query"])
def test_infinite_rates_and_steps_beside_zeros(form: str, backend: str) -> None:
    """A rate of -inf forgets in every step but one of 0, and a rate of 0 keeps all in any step."""
    made = inputs("rates", 4, B=1, H=1, K=2, V=2)
    made["A"][:] = np.array([[-np.inf, 0.0], [0.0, -1.0]])
    made["dt"][0, :, 0] = np.array([[0.0, 1.0], [1.0, np.inf], [0.0, np.inf], [np.inf, 0.0]])
    gates = np.exp(np.nan_to_num(made["A"][0], neginf=-1e100) * np.nan_to_num(made["dt"], posinf=1e100)[:, :, 0, None])
    S = made["state"][0, 0]
    for t in range(4):
        S = gates[0, t] * S + np.outer(made["k"][0, t, 0], made["v"][0, t, 0])
    given = {name: x.detach() for name, x in tensors(made).items()}
    o, final = run(given, form=form, backend="eager" if form == "recurrent" else backend)
    torch.testing.assert_close(final[0, 0], torch.tensor(S))
    torch.testing.assert_close(o[0, -1, 0], torch.tensor(made["q"][0, -1, 0] @ S))
