import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from recurrences import make

from gladient.lens import Record, Recurrence, Summary


def summary_of(gates: Sequence[float], *, last: int = 8, **what: object) -> Summary:
    """The summary of one head with these gates, at the last token."""
    T = len(gates)
    ones = torch.ones(1, T, 1, 1, dtype=torch.float64)
    x = Recurrence(
        ones, ones, ones, ones, torch.arange(T), log_gates=torch.tensor(gates, dtype=torch.float64).log()[None, :, None]
    )
    return Record("mixer", 0, "by hand", 0, x).summary(queries=-1, last=last)


@pytest.mark.parametrize("gamma", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("T", [1, 2, 50])
def test_a_fixed_decay_by_hand(gamma: float, T: int) -> None:
    found = summary_of([gamma] * T, last=3)
    mass = (1 - gamma**T) / (1 - gamma)
    share = [gamma**age / mass for age in range(T)]
    assert found.mass.item() == pytest.approx(mass)
    assert found.memory_length.item() == pytest.approx(sum(age * share[age] for age in range(T)))
    assert found.half_life.item() == min(T - 1, math.floor(math.log(0.5) / math.log(gamma)))
    assert found.last.item() == pytest.approx((1 - gamma ** min(T, 3)) / (1 - gamma**T))
    assert found.entropy.item() == pytest.approx(-sum(p * math.log(p) for p in share), abs=1e-12)


def test_open_gates_remember_all() -> None:
    found = summary_of([1.0] * 5, last=2)
    assert (found.mass.item(), found.half_life.item(), found.memory_length.item()) == pytest.approx((5, 4, 2))
    assert found.last.item() == pytest.approx(0.4)
    assert found.entropy.item() == pytest.approx(math.log(5))
    assert found.gate.tolist() == [[0.0] * 5]


def test_a_gate_of_zero_ends_the_memory() -> None:
    found = summary_of([1.0, 1.0, 0.0, 1.0, 1.0])
    assert (found.mass.item(), found.half_life.item(), found.memory_length.item()) == pytest.approx((3, 2, 1))
    assert found.gate[0, 2] == -torch.inf
    assert found.closing_tokens(0, 1) == [2]
    assert summary_of([1.0, 0.0]).half_life.item() == 0


def test_closing_tokens_in_order() -> None:
    assert summary_of([1.0, 0.5, 0.9, 0.1, 0.7]).closing_tokens(0, 3) == [3, 1, 4]


@pytest.mark.parametrize("kind", ["plain", "unread", "write", "rwkv", "mlstm", "delta"])
def test_heads_are_summarised_each_for_itself(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record("mixer", 0, "by hand", 0, make(T=12, kind=kind))
    together = record.summary()
    monkeypatch.setattr("gladient.lens.records._PART_BYTES", 1)
    for other in (record.summary(), record.summary([0, 1, 2])):
        for name, value in vars(together).items():
            torch.testing.assert_close(vars(other)[name], value, rtol=1e-12, atol=1e-14, equal_nan=True)
    torch.testing.assert_close(record.summary(2).mass, together.mass[2:])


def test_the_half_life_is_the_gates_and_not_the_input_gates() -> None:
    plain, written = make(T=12, kind="plain"), make(T=12, kind="write")
    assert plain.log_gates is not None
    assert written.log_gates is not None
    wanted = Record("mixer", 0, "by hand", 0, plain).summary().half_life
    assert torch.equal(Record("mixer", 0, "by hand", 0, written).summary().half_life, wanted)


@pytest.mark.parametrize("turns", ["adjacent", "halves"])
def test_what_rotations_leave_of_the_weight(turns: str) -> None:
    record = Record("mixer", 0, "by hand", 0, make(T=12, turns=turns))
    signed, decay, found = record.signed_weights().double(), record.gate_weights(), record.summary()
    torch.testing.assert_close(found.turn, (signed.sum(3) / decay.sum(3)).mean((0, 2)))
    reversed_share = (-signed).clamp_min(0).sum(3) / signed.abs().sum(3)
    torch.testing.assert_close(found.negative, reversed_share.mean((0, 2)))
    assert found.negative.min() > 0
    plain = replace(record, recurrence=replace(record.recurrence, phase=None)).summary()
    assert plain.turn.tolist() == [1.0] * 3
    assert plain.negative.tolist() == [0.0] * 3


def test_how_far_erasing_is_from_writing() -> None:
    plain = Record("mixer", 0, "by hand", 0, make(kind="delta")).summary()
    torch.testing.assert_close(plain.erase_query, torch.ones(3).double())
    torch.testing.assert_close(plain.erase_key, torch.ones(3).double())
    x = make(kind="erase")
    assert x.erase_query is not None
    padded = replace(x, erase_query=x.erase_query * (torch.arange(x.tokens) > 2)[:, None, None])
    record = Record("mixer", 0, "by hand", 0, padded)
    read, place = record.erase_cosines(1)
    assert read[:, :3].isnan().all()
    torch.testing.assert_close(record.summary(1).erase_query, read[:, 3:].mean((0, 1)))
    torch.testing.assert_close(record.summary(1).erase_key, place.mean((0, 1)))
    none = Record("mixer", 0, "by hand", 0, make())
    assert none.summary().erase_query.isnan().all()
    with pytest.raises(ValueError, match="mixer follows no delta rule: it erases nothing"):
        none.erase_cosines()


def test_several_ranks_are_one_step() -> None:
    x = replace(make(T=12, gates="none", kind="own", every=3), own=torch.ones(2, 12, 3).double(), ranks=3)
    found = Record("mixer", 0, "by hand", 0, x).summary(queries=11)
    assert found.half_life.tolist() == [3.0] * 3
    assert found.memory_length.tolist() == pytest.approx([1.5] * 3)


def test_a_table_has_a_row_for_each_head() -> None:
    found = Record("mixer", 0, "by hand", 0, make(kind="delta")).summary([2, 0])
    table = found.to_pandas()
    assert table["head"].tolist() == [0, 1]
    assert table["memory_length"].tolist() == found.memory_length.tolist()
    assert set(table) == {"head", *vars(found)} - {"gate"}
