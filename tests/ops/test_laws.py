"""One law for every form: outputs, final states and gradients are those of the plain loops."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import (
    BACKENDS,
    BRIEF,
    DELTA,
    FAMILIES,
    FORMS,
    LAWS,
    assert_law,
    holds,
    inputs,
    run,
    spread,
    tensors,
    tokens,
)

from gladient.ops import Backend, gated_delta_rule, gated_linear_attention
from oracles import gla
from tolerances import TOLERANCES

LENGTHS = [case for case in spread(LAWS, (0, 1, 63, 64, 200)) if case[2] != 1 or case[4] <= 64]  # longer: nothing new


@pytest.mark.parametrize(("form", "backend", "chunk", "family", "T"), LENGTHS)
def test_every_form_is_the_recurrence(form: str, backend: str, chunk: int | None, family: str, T: int) -> None:
    assert_law(inputs(family, T, B=1 if T == 200 else 2), form, backend, chunk)


@pytest.mark.parametrize(
    ("form", "backend", "chunk", "family"), [*LAWS, *((*f, "all") for f in FORMS if holds(*f[:2], "all"))]
)
def test_gates_of_exactly_zero_and_one(form: str, backend: str, chunk: int | None, family: str) -> None:
    assert_law(inputs(family, 33, zeros=True), form, backend, chunk)


@pytest.mark.parametrize(("form", "backend", "chunk", "family"), LAWS)
def test_without_initial_state(form: str, backend: str, chunk: int | None, family: str) -> None:
    assert_law(inputs(family, 20, state=False), form, backend, chunk, scale=0.3)


@pytest.mark.parametrize(
    ("form", "backend", "chunk", "family", "heads"), spread(BRIEF, [(4, 1), (4, 2), (1, 4), (2, 4), (1, 1)])
)
def test_grouped_heads(form: str, backend: str, chunk: int | None, family: str, heads: tuple[int, int]) -> None:
    q_heads, others = heads
    assert_law(inputs(family, 19, H=max(heads), q_heads=q_heads, heads=others), form, backend, chunk)


@pytest.mark.parametrize(("form", "backend", "chunk", "family"), BRIEF)
def test_gates_alone_may_have_every_head(form: str, backend: str, chunk: int | None, family: str) -> None:
    made = inputs(family, 18, H=4)
    made |= {name: made[name][:, :, :1] for name in ("q", "k", "v")}
    if family == "none":
        made["state"] = made["state"][:, :1]
    assert_law(made, form, backend, chunk)


def test_a_state_of_grouped_heads_is_that_of_each() -> None:
    given = tensors(inputs("key", 9, H=4))
    shared = given["state"][:, :2]
    expected = run(given | {"state": shared.repeat_interleave(2, 1)})
    torch.testing.assert_close(run(given | {"state": shared}), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("form", "backend", "chunk", "family"), BRIEF)
def test_rates_and_bonus_of_each_row(form: str, backend: str, chunk: int | None, family: str) -> None:
    assert_law(inputs(family, 18, B=3, rows=True, bonus=True), form, backend, chunk, read="before")


@pytest.mark.parametrize(("form", "backend", "chunk", "family", "bonus"), spread(BRIEF, [False, True]))
def test_reads_before_the_write(form: str, backend: str, chunk: int | None, family: str, bonus: bool) -> None:
    for T in (0, 1, 17):
        assert_law(inputs(family, T, B=1, bonus=bonus), form, backend, chunk, read="before", scale=0.3)


Options = dict[str, Any]
HEADS = [(20, 70), (70, 9), (17, 33)]


@pytest.mark.parametrize(("K", "V"), HEADS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["chunked", "last_query"])
@pytest.mark.parametrize("family", ["scalar", "key×value"])
def test_head_sizes_around_vector_widths(form: str, family: str, K: int, V: int, backend: str) -> None:
    assert_law(inputs(family, 70, B=1, H=1, K=K, V=V), form, backend, None)  # more than one span of kept states


@pytest.mark.filterwarnings("ignore::gladient.ops.LayoutWarning")
@settings(max_examples=40, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    family=st.sampled_from(["none", "scalar", "key", "value", "key×value"]),
    T=st.integers(0, 40),
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    shared=st.booleans(),
    read=st.sampled_from(["after", "before", "bonus"]),
    seed=st.integers(0, 10**6),
)
def test_any_shape(
    form: tuple, family: str, T: int, sizes: tuple[int, int, int], shared: bool, read: str, seed: int
) -> None:
    H, K, V = sizes
    given: Options = {"H": H, "K": K, "V": V, "heads": 1 if shared else H, "bonus": read == "bonus", "seed": seed}
    options: Options = {} if read == "after" else {"read": "before"}
    assert_law(inputs(family, T, B=1, **given, zeros=seed % 2 == 0), *form, **options)


@pytest.mark.parametrize(("form", "backend", "chunk", "family", "read"), spread(BRIEF, ["after", "before"]))
def test_a_sequence_cut_anywhere_is_the_whole(
    form: str, backend: str, chunk: int | None, family: str, read: str
) -> None:
    for cut in (0, 1, 16):
        assert_law(inputs(family, 18, B=1, H=1, bonus=read == "before"), form, backend, chunk, read=read, cut=cut)


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


STEP_SIZES: list[Options] = [{}, {"heads": 2}, {"q_heads": 1, "rows": True}, {"K": 17, "V": 70}]


@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("family", [*FAMILIES, *DELTA, "all"])
def test_a_step_is_one_token_of_the_recurrence(family: str, read: str) -> None:
    for sizes in STEP_SIZES:
        made = inputs(family, 1, H=4, bonus=read == "before", zeros=True, **sizes)
        given = {name: x.detach() for name, x in tensors(made).items()}
        expected = gla(made, read=read, scale=0.3)
        for backend in (name for name in BACKENDS if holds("step", name, family)):
            found = run(given, form="step", backend=backend, read=read, scale=0.3)
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, **TOLERANCES[torch.float64], err_msg=f"{backend} {sizes}")


@pytest.mark.parametrize(("form", "backend", "chunk", "family", "B"), spread(BRIEF, [4]))
def test_a_permuted_batch_gives_permuted_outputs(
    form: str, backend: str, chunk: int | None, family: str, B: int
) -> None:
    given = {name: x.detach() for name, x in tensors(inputs(family, 17, B=B)).items()}
    order = torch.tensor([2, 0, 3, 1])
    options: Options = {"form": form, "backend": backend, "chunk_size": chunk}
    o, final = run(given, **options)
    found = run({name: x if name == "A" else x[order] for name, x in given.items()}, **options)
    torch.testing.assert_close(found, (o[order], final[order]), **TOLERANCES[torch.float64])


@pytest.mark.parametrize(("form", "backend", "chunk", "family", "read"), spread(BRIEF, ["after", "before"]))
def test_packed_sequences_are_separate_sequences(
    form: str, backend: str, chunk: int | None, family: str, read: str
) -> None:
    borders = [0, 0, 5, 5, 22]  # empty ones included
    packed = tensors(inputs(family, 22, B=1, state=False, bonus=read == "before"))
    packed["state"] = torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    options: Options = {"form": form, "backend": backend, "chunk_size": chunk, "read": read}
    o, final = run(packed, cu_seqlens=torch.tensor(borders), **options)
    pieces = [
        tokens(packed, slice(*ends)) | {"state": packed["state"][i : i + 1]} for i, ends in enumerate(pairwise(borders))
    ]
    parts = [run(piece, **options) for piece in pieces]
    expected = torch.cat([o for o, _ in parts], 1), torch.cat([final for _, final in parts])
    torch.testing.assert_close((o, final), expected, **TOLERANCES[torch.float64])
    loss, expected_loss = ((o**2).sum() + (final**2).sum() for o, final in ((o, final), expected))
    found, wanted = (torch.autograd.grad(x, list(packed.values())) for x in (loss, expected_loss))
    torch.testing.assert_close(found, wanted, **TOLERANCES[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_last_query_needs_only_one_query(backend: Backend) -> None:
    given = tensors(inputs("value", 9))
    o, final = run(given, form="last_query", backend=backend)
    given["q"] = given["q"][:, -1:]
    torch.testing.assert_close(run(given, backend=backend), (o, final), **TOLERANCES[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens_pass_the_state_through(backend: Backend) -> None:
    state = torch.randn(2, 1, 3, 4)
    q, v = torch.randn(2, 0, 1, 3), torch.randn(2, 0, 1, 4)
    o, final = gated_linear_attention(q, q, v, initial_state=state, output_final_state=True, backend=backend)
    assert o.shape == (2, 0, 1, 4)
    torch.testing.assert_close(final, state, rtol=0, atol=0)
    query = torch.randn(2, 1, 1, 3)
    o, _ = gated_linear_attention(query, q, v, initial_state=state, form="last_query", backend=backend)
    torch.testing.assert_close(o[:, 0, 0], torch.einsum("bk,bkv->bv", query[:, 0, 0], state[:, 0]))


@pytest.mark.parametrize("bonus", [False, True])
@pytest.mark.parametrize(("form", "backend", "chunk", "family"), [x for x in BRIEF if x[0] == "last_query"])
def test_one_query_without_tokens_reads_the_state(
    form: str, backend: str, chunk: int | None, family: str, bonus: bool
) -> None:
    given = tensors(inputs(family, 0, bonus=bonus) | {"q": np.ones((2, 1, 2, 3))})
    o, final = run(given, form=form, backend=backend, read="before" if bonus else "after", scale=0.5)
    expected = 0.5 * torch.einsum("bthk,bhkv->bthv", given["q"], given["state"])
    torch.testing.assert_close((o, final), (expected, given["state"]))
    asked = [given["q"], given["state"]]
    found, wanted = (torch.autograd.grad((x**2).sum() + (given["state"] ** 2).sum(), asked) for x in (o, expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_query_for_all_packed_sequences_and_empty_ones(backend: Backend) -> None:
    given = tensors(inputs("key", 9, B=1, state=False, bonus=True))
    given["q"], given["state"] = given["q"][:, :1], torch.randn(4, 2, 3, 2, dtype=torch.float64)
    borders = [0, 4, 4, 9, 9]
    o, _ = run(given, form="last_query", backend=backend, read="before", cu_seqlens=borders)
    for i, ends in enumerate(pairwise(borders)):
        one = {**tokens(given, slice(*ends)), "q": given["q"], "state": given["state"][i : i + 1]}
        expected, _ = run(one, form="last_query", backend=backend, read="before")
        torch.testing.assert_close(o[:, i : i + 1], expected, **TOLERANCES[torch.float64])


ZERO: list[Options] = [
    dict(zip("BTKV", sizes, strict=True)) for sizes in ((0, 3, 3, 2), (2, 3, 0, 2), (2, 3, 3, 0), (0, 0, 0, 0))
]


@pytest.mark.parametrize(("form", "backend", "chunk", "family"), [*BRIEF, *(("step", b, None, "") for b in BACKENDS)])
def test_sizes_of_zero(form: str, backend: str, chunk: int | None, family: str) -> None:
    families = [family] if family else [name for name in ("key", *DELTA) if holds(form, backend, name)]
    for sizes, wanted in product(ZERO, families):
        given = tensors(inputs(wanted, **(sizes | ({"T": 1} if form == "step" else {}))))
        o, final = run(given, form=form, backend=backend, chunk_size=chunk, scale=None)
        assert (*o.shape[::2], o.shape[3]) == (sizes["B"], 2, sizes["V"])
        assert final.shape == (sizes["B"], 2, sizes["K"], sizes["V"])
        assert not o.any()
        gradients = torch.autograd.grad(o.sum() + final.sum(), list(given.values()), allow_unused=True)
        for x, gradient in zip(given.values(), gradients, strict=True):
            assert gradient is None or (gradient.shape == x.shape and gradient.isfinite().all())
        with torch.no_grad():
            torch.testing.assert_close(run(given, form=form, backend=backend, scale=None), (o, final))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["scalar", "delta+scalar"])
def test_one_token_among_empty_sequences_is_a_step_of_its_own(family: str, backend: str) -> None:
    given = {name: x.detach() for name, x in tensors(inputs(family, 1, B=1, state=False)).items()}
    states = torch.randn(2, 2, 3, 2, dtype=torch.float64)
    o, final = run(given | {"state": states}, form="step", backend=backend, cu_seqlens=[0, 0, 1])
    expected, after = run(given | {"state": states[1:]}, form="step", backend="eager")
    torch.testing.assert_close((o, final), (expected, torch.stack([states[0], after[0]])))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["scalar", "delta+scalar"])
@pytest.mark.parametrize("asked", [False, True])
def test_a_step_in_place_holds_the_state_asked_for_or_not(asked: bool, family: str, backend: str) -> None:
    given = {name: x.detach() for name, x in tensors(inputs(family, 1)).items()}
    o, expected = run(given, form="step", backend=backend)
    state = given.pop("state").clone()
    function = gated_delta_rule if "beta" in given else gated_linear_attention
    options: Options = {"initial_state": state, "inplace": True, "output_final_state": asked, "backend": backend}
    found, final = function(**(options | given))
    torch.testing.assert_close((found, state), (o, expected))
    assert final is (state if asked else None)
