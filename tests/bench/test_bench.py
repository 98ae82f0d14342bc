"""`gladient bench` measures what it says, and names what is missing."""

import pytest

from gladient import _optional
from gladient.cli import _peers
from gladient.cli.bench import Bench, Case, Row, interleaved, measure, table


@pytest.mark.parametrize("family", ["scalar", "key", "full"])
@pytest.mark.parametrize("last", [False, True])
def test_a_small_table(family: str, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peers, "missing", lambda: ["somebody (install it with: pip install somebody)"])
    case = Case(family, 1, 32, 1, 4, 4, last=last)
    rows, ceiling = measure(case, rounds=1)
    assert rows[0].name == "gladient"
    assert all(row.error < 1e-5 and row.training > 0 for row in rows)
    text = table(case, rows, ceiling)
    assert case.title in text
    assert f"at {ceiling / 1e9:.0f}\n" in text
    assert "left out: somebody (install it with: pip install somebody)" in text


def test_jobs_take_turns_and_short_ones_repeat_in_cache() -> None:
    calls: list[str] = []
    medians = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == (10 * ["a"] + 10 * ["b"]) * 2
    assert all(0 < seconds < 0.05 for seconds in medians.values())


def test_the_table_gives_ours_as_a_share_of_the_ceiling() -> None:
    row = Row("gladient", True, 1e-6, 2e-6, 1.0, 1e-7)
    last = table(Case("scalar", 10, 100, 2, 4, 5, last=True), [row], ceiling=240e9)  # 2000 × 3 × 4 (4 + 5 + 1) bytes
    assert "ours 120 GB/s, 50% of a copy at 240\n" in last + "\n"
    products = table(Case("scalar", 10, 100, 2, 4, 5), [row], ceiling=1200e9)  # 2000 × 3 × 5 · 4 · 5 FLOP
    assert "ours 300 GFLOP/s, 25% of 64³ products at 1200\n" in products + "\n"


def test_missing_peers_come_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_optional, "have", lambda module: False)
    assert [line.split(" (")[0] for line in _peers.missing()] == ["fla", "transformers"]
    assert all("install it with: pip install " in line for line in _peers.missing())


def test_a_contender_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"wrong": (True, lambda q, k, v, g: 0 * v)}
    monkeypatch.setattr(_peers, "contenders", lambda case: wrong)
    with pytest.raises(RuntimeError, match=r"wrong is off by .* it computes something else"):
        measure(Case("scalar", 1, 8, 1, 2, 2), rounds=1)


def test_unknown_cases() -> None:
    with pytest.raises(ValueError, match="cases must be of scalar, key"):
        Bench(cases=("nothing",)).run()
