from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from recurrences import DELTA, make, truth
from torch import Tensor

from gladient.lens import Record, Recurrence

KINDS = ["plain", "bonus", "unread", "own", "write", "sum", "mlstm", "rwkv", *DELTA]


def record_of(x: Recurrence, **options: Any) -> Record:
    return Record("layers.3.mixer", 3, "by hand", 0, x, **options)


def peak(run: Callable[[], object]) -> int:
    """The most memory that tensors take while it runs, over what they took before."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = torch.tensor([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return int(changes.cumsum(0).max()) if len(changes) else 0


ASKED: dict[str, Callable[[Record, Any], object]] = {
    "gate_weights": lambda record, what: record.gate_weights(**what),
    "similarity": lambda record, what: record.similarity(**what) if record.recurrence.separable else None,
    "implicit_attention": lambda record, what: record.implicit_attention(**what),
    "rebuild": lambda record, what: record.rebuild(**what),
    "carry": lambda record, what: record.carry(**what),
    "reconstruction": lambda record, what: record.reconstruction(**what),
    "summary": lambda record, what: record.summary(**what),
}


@pytest.mark.filterwarnings("ignore")  # the profiler's own
@pytest.mark.parametrize("kind", ["plain", "rwkv", "mlstm", "delta", "erase"])
@pytest.mark.parametrize("gates", ["scalar", "key"])
@pytest.mark.parametrize("what", [{}, {"heads": 1}, {"queries": [90]}, {"heads": [0, 2], "queries": slice(50, 60)}])
def test_no_request_takes_more_than_it_says(kind: str, gates: str, what: dict[str, Any]) -> None:
    x = make(T=100, K=8, V=5, gates=gates, kind=kind, initial=True, extras=True, dtype=torch.float32)
    record = record_of(x)
    stated = record.bytes_for(**what)
    for name, ask in ASKED.items():
        taken = peak(lambda ask=ask: ask(record, what))  # type: ignore[misc]
        assert taken <= stated, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", [{}, {"heads": 1}, {"queries": [90]}])
@pytest.mark.parametrize("gates", ["scalar", "key"])
def test_no_request_of_what_turns_takes_more(gates: str, what: dict[str, Any]) -> None:
    x = make(T=100, K=8, V=5, gates=gates, kind="own", turns="halves", initial=True, extras=True, dtype=torch.float32)
    record = record_of(x)
    asked = ASKED | {"signed": lambda record, what: record.signed_weights(**what)}
    for name, ask in asked.items():
        taken = peak(lambda ask=ask: ask(record, what))  # type: ignore[misc]
        assert taken <= record.bytes_for(**what), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["plain", "mlstm", "delta"])
@pytest.mark.parametrize("gates", ["scalar", "key"])
def test_what_it_says_is_near_what_long_texts_take(kind: str, gates: str) -> None:
    record = record_of(make(B=1, T=1500, H=1, K=8, gates=gates, kind=kind, dtype=torch.float32))
    taken = {name: peak(lambda ask=ask: ask(record, {})) for name, ask in ASKED.items()}  # type: ignore[misc]
    assert max(taken.values()) <= record.bytes_for() <= 3 * max(taken.values()), taken


def test_too_large_a_request_is_refused_before_anything_is_allocated() -> None:
    T = 1_000_000
    ones = torch.ones(()).expand(1, T, 4, 2)
    record = record_of(Recurrence(ones, ones, ones, ones, torch.arange(T), log_gates=ones[..., 0]))
    for ask in ASKED.values():
        with pytest.raises(ValueError, match=r"MiB, more than max_bytes allows \(2,048 MiB\); ask for fewer"):
            ask(record, {})


@pytest.mark.parametrize("kind", KINDS)
def test_some_heads_and_queries_are_those_of_all(kind: str) -> None:
    record = record_of(make(T=9, kind=kind, gates="key" if kind != "mlstm" else "scalar", initial=True, extras=True))
    heads, queries = [2, 0], [7, 1, 3]
    every = record.implicit_attention()[:, heads][:, :, queries]
    torch.testing.assert_close(record.implicit_attention(heads, queries), every, rtol=1e-12, atol=1e-14)
    gates = record.gate_weights()[:, heads][:, :, queries]
    torch.testing.assert_close(record.gate_weights(heads, queries), gates, rtol=1e-12, atol=1e-14)
    rebuilt = record.rebuild()[:, queries][:, :, heads]
    torch.testing.assert_close(record.rebuild(heads, queries), rebuilt, rtol=1e-12, atol=1e-14)
    assert torch.equal(record.values(heads), record.recurrence.v[:, :, heads])
    assert torch.equal(record.output(1, -1), record.recurrence.output[:, -1:, 1:2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [2**31, 2**23])
def test_the_whole_is_proved_part_by_part(kind: str, most: int) -> None:
    x = make(T=40, kind=kind, initial=True, extras=True)
    x = replace(x, output=truth(x).output)
    assert record_of(x, max_bytes=most).reconstruction_error.passed
    wrong = record_of(replace(x, output=x.output * 1.01), max_bytes=most)
    assert wrong.reconstruction_error.error == pytest.approx(0.01, rel=1e-9)
    assert not wrong.reconstruction_error.passed
    assert wrong.reconstruction().error == pytest.approx(wrong.reconstruction_error.error, rel=1e-9)


BROKEN = {
    "gates 1% off": lambda x: replace(x, log_gates=x.log_gates * 1.01),
    "gates one late": lambda x: replace(x, log_gates=x.log_gates.roll(1, 1)),
    "values one late": lambda x: replace(x, v=x.v.roll(1, 1)),
    "no skip": lambda x: replace(x, skip=None),
    "no output gate": lambda x: replace(x, output_gate=None),
    "no initial state": lambda x: replace(x, initial_state=None),
    "another read": lambda x: replace(x, read="after" if x.read == "before" else "before"),
    "queries not scaled": lambda x: replace(x, q=x.q * 2),
    "no beta": lambda x: replace(x, beta=None),
    "no bonus": lambda x: replace(x, bonus=None),
    "no input gate": lambda x: replace(x, log_write=None),
}


@pytest.mark.parametrize(
    ("kind", "how"),
    [(kind, how) for kind in ("bonus", "write", "delta") for how in BROKEN if (kind, how) != ("delta", "another read")],
)
def test_a_broken_formula_is_caught(kind: str, how: str) -> None:
    x = make(T=20, kind=kind, initial=True, extras=True)
    x = replace(x, output=truth(x).output)
    broken = BROKEN[how](x)
    changed = any(vars(broken)[name] is not vars(x)[name] for name in vars(x))
    assert record_of(broken).reconstruction_error.passed is not changed


def test_what_is_not_there_is_named() -> None:
    record = record_of(make(T=6, H=3, every=2))
    with pytest.raises(ValueError, match="there is no head 3; there are 3, 0 to 2"):
        record.gate_weights(3)
    with pytest.raises(ValueError, match="there is no position 6; there are 6, 0 to 5"):
        record.implicit_attention(0, 6)
    with pytest.raises(ValueError, match="position 2 was not captured; 3 positions were"):
        record.rebuild(0, [1, 2])
    with pytest.raises(ValueError, match="has scalar gates, none for channels; leave channel out"):
        record.gate_weights(0, channel=0)
    with pytest.raises(ValueError, match="there is no channel 4; there are 4, 0 to 3"):
        record_of(make(gates="key")).gate_weights(0, channel=4)


def test_the_delta_rule_has_no_similarity_of_its_own() -> None:
    record = record_of(make(kind="delta"))
    with pytest.raises(ValueError, match="gate and similarity do not separate; ask for implicit_attention"):
        record.similarity()
    assert record.wpgd_view(0, 3).omega is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"read": "later"}, "read is 'later'; it must be one of after, before"),
        ({"normalise": "softmax"}, "normalise is 'softmax'; it must be one of none, sum, mlstm"),
        ({"log_gates": torch.zeros(2, 6, 3)}, "do not begin as keys do"),
        ({"positions": torch.arange(3)}, "7 queries stand at 3 positions"),
    ],
)
def test_recurrences_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(make(kind="delta"), **wrong)


@pytest.mark.parametrize("gates", ["none", "scalar", "key", "channel rate"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_one_step_of_weighted_descent(kind: str, gates: str) -> None:
    x = make(T=8, gates=gates, kind=kind, initial=True, extras=True)
    x = replace(x, output=truth(x).output)
    record = record_of(x)
    view = record.wpgd_view(1, 5, batch=1)
    assert x.skip is not None
    assert x.output_gate is not None
    _close(view.contributions.sum(0), view.prediction)
    whole = view.prediction + record.carry(1, 5)[1, 0, 0] + x.skip[1, 5, 1]
    _close(whole * x.output_gate[1, 5, 1], x.output[1, 5, 1])
    if view.omega is not None:
        omega = view.omega if view.omega.ndim == 2 else view.omega[:, None]
        state = (omega * view.keys).T @ view.targets  # minus the gradient at 0
        unnormalised = state.T @ view.query
        if x.normalise == "none":
            _close(unnormalised, view.prediction)
        else:  # along the prediction
            _close(unnormalised / unnormalised.norm(), view.prediction / view.prediction.norm())


def _close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["plain", "delta"])
def test_a_table_has_a_row_for_each_pair(kind: str) -> None:
    x = make(T=6, kind=kind, turns="adjacent" if kind == "plain" else "none")
    record = record_of(x)
    table = record.to_pandas(heads=[2, 0], queries=[1, 5])
    assert len(table) == len(x.q) * 2 * (2 + 6)
    names = {"gate_weights", "implicit_attention", *(("similarity", "signed_weights") if kind == "plain" else ())}
    assert set(table) == {"batch", "head", "query", "token"} | names
    places = table[["batch", "head", "query", "token"]].to_numpy().T
    for name in names:
        np.testing.assert_allclose(table[name], getattr(record, name)().numpy()[tuple(places)], rtol=1e-12)
