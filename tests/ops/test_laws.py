"""One law for every form: outputs, final states and gradients are those of the plain loops."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import BACKENDS, FAMILIES, FORMS, assert_law, inputs, run, tensors

from gladient.ops import gated_linear_attention
from oracles import gla
from tolerances import TOLERANCES


@pytest.mark.parametrize("T", [0, 1, 63, 64, 200])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
def test_every_form_is_the_recurrence(form: str, backend: str, chunk: int | None, family: str, T: int) -> None:
    if (form, family) == ("parallel", "full") or (form, T) == ("last_query", 0) or (chunk == 1 and T > 64):
        pytest.skip("does not exist, or says nothing new")
    if form == "last_query" and backend == "native" and family == "full":
        pytest.skip("full gates are torch's")
    assert_law(inputs(family, T, B=1 if T == 200 else 2), form, backend, chunk)


@pytest.mark.parametrize("family", [*FAMILIES, "all"])
@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
def test_gates_of_exactly_zero_and_one(form: str, backend: str, chunk: int | None, family: str) -> None:
    if (form == "parallel" or (form, backend) == ("last_query", "native")) and family in ("full", "all"):
        pytest.skip("full gates are not held")
    assert_law(inputs(family, 33, zeros=True), form, backend, chunk)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
def test_without_initial_state(form: str, backend: str, chunk: int | None, family: str) -> None:
    if family == "full" and (form == "parallel" or (form, backend) == ("last_query", "native")):
        pytest.skip("full gates are not held")
    assert_law(inputs(family, 20, state=False), form, backend, chunk, scale=0.3)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("family", ["scalar", "key", "value", "key×value"])
@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
def test_grouped_heads(form: str, backend: str, chunk: int | None, family: str, heads: int) -> None:
    assert_law(inputs(family, 19, H=4, heads=heads), form, backend, chunk)


@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
@pytest.mark.parametrize("bonus", [False, True])
def test_reads_before_the_write(form: str, backend: str, chunk: int | None, bonus: bool) -> None:
    assert_law(inputs("key", 21, bonus=bonus), form, backend, chunk, read="before")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("K", "V"), [(20, 70), (70, 9), (17, 33)])
@pytest.mark.parametrize("family", ["scalar", "key×value"])
@pytest.mark.parametrize("form", ["chunked", "last_query"])
def test_head_sizes_around_vector_widths(form: str, family: str, K: int, V: int, backend: str) -> None:
    if form == "last_query" and backend == "native" and max(K, V) > 64:
        pytest.skip("more channels than the kernel holds")
    assert_law(inputs(family, 70, B=1, H=1, K=K, V=V), form, backend, None)  # more than one span of kept states


@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    family=st.sampled_from(["none", "scalar", "key", "value", "key×value"]),
    T=st.integers(1, 40),
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    seed=st.integers(0, 10**6),
)
def test_any_shape(form: tuple, family: str, T: int, sizes: tuple[int, int, int], seed: int) -> None:
    H, K, V = sizes
    assert_law(inputs(family, T, B=1, H=H, K=K, V=V, seed=seed, zeros=seed % 2 == 0), *form)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cut", [1, 16, 37])
def test_a_sequence_cut_anywhere_is_the_whole(cut: int, backend: str, family: str) -> None:
    whole = {name: x.detach() for name, x in tensors(inputs(family, 50)).items()}
    state = whole.pop("state")
    o, final = run({**whole, "state": state}, form="chunked", backend=backend)
    first, between = run({**{n: x[:, :cut] for n, x in whole.items()}, "state": state}, form="chunked", backend=backend)
    second, last = run({**{n: x[:, cut:] for n, x in whole.items()}, "state": between}, form="chunked", backend=backend)
    torch.testing.assert_close(torch.cat([first, second], 1), o, **TOLERANCES[torch.float64])
    torch.testing.assert_close(last, final, **TOLERANCES[torch.float64])


def test_decoding_step_by_step_is_the_whole() -> None:
    made = inputs("key×value", 12)
    whole = {name: x.detach() for name, x in tensors(made).items()}
    state, outputs = whole.pop("state"), []
    for t in range(12):
        token = {name: x[:, t : t + 1] for name, x in whole.items()}
        o, state = run({**token, "state": state}, form="step")
        outputs.append(o)
    o_oracle, final = gla(made)
    np.testing.assert_allclose(torch.cat(outputs, 1), o_oracle, **TOLERANCES[torch.float64])
    np.testing.assert_allclose(state, final, **TOLERANCES[torch.float64])


@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
def test_a_permuted_batch_gives_permuted_outputs(form: str, backend: str, chunk: int | None) -> None:
    given = {name: x.detach() for name, x in tensors(inputs("key", 20, B=4)).items()}
    order = torch.tensor([2, 0, 3, 1])
    o, final = run(given, form=form, backend=backend, chunk_size=chunk)
    o_permuted, final_permuted = run(
        {n: x[order] for n, x in given.items()}, form=form, backend=backend, chunk_size=chunk
    )
    torch.testing.assert_close(o_permuted, o[order], **TOLERANCES[torch.float64])
    torch.testing.assert_close(final_permuted, final[order], **TOLERANCES[torch.float64])


@pytest.mark.parametrize(("form", "backend", "chunk"), FORMS)
@pytest.mark.parametrize("read", ["after", "before"])
def test_packed_sequences_are_separate_sequences(form: str, backend: str, chunk: int | None, read: str) -> None:
    borders = [0, 5, 6, 23, 40]
    packed = tensors(inputs("key", 40, B=1, state=False))
    packed["state"] = torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    options = {"form": form, "backend": backend, "chunk_size": chunk, "read": read}
    o, final = run(packed, cu_seqlens=torch.tensor(borders), **options)
    parts = []
    for i, (a, b) in enumerate(pairwise(borders)):
        one = {name: packed["state"][i : i + 1] if name == "state" else x[:, a:b] for name, x in packed.items()}
        parts.append(run(one, **options))
    expected = torch.cat([o for o, _ in parts], 1), torch.cat([final for _, final in parts])
    torch.testing.assert_close((o, final), expected, **TOLERANCES[torch.float64])
    loss, expected_loss = ((o**2).sum() + (final**2).sum() for o, final in ((o, final), expected))
    found, wanted = (torch.autograd.grad(x, list(packed.values())) for x in (loss, expected_loss))
    torch.testing.assert_close(found, wanted, **TOLERANCES[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_last_query_needs_only_one_query(backend: str) -> None:
    given = tensors(inputs("value", 9))
    o, final = run(given, form="last_query", backend=backend)
    given["q"] = given["q"][:, -1:]
    torch.testing.assert_close(run(given, backend=backend), (o, final), **TOLERANCES[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens_pass_the_state_through(backend: str) -> None:
    state = torch.randn(2, 1, 3, 4)
    q, v = torch.randn(2, 0, 1, 3), torch.randn(2, 0, 1, 4)
    o, final = gated_linear_attention(q, q, v, initial_state=state, output_final_state=True, backend=backend)
    assert o.shape == (2, 0, 1, 4)
    torch.testing.assert_close(final, state, rtol=0, atol=0)
    query = torch.randn(2, 1, 1, 3)
    o, _ = gated_linear_attention(query, q, v, initial_state=state, form="last_query", backend=backend)
    torch.testing.assert_close(o[:, 0, 0], torch.einsum("bk,bkv->bv", query[:, 0, 0], state[:, 0]))
