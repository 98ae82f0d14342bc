"""`gladient bench` measures what it says, and names what is missing."""

import pytest

from gladient import _optional
from gladient.cli import _peers
from gladient.cli.bench import Bench, Case, measure, table


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
