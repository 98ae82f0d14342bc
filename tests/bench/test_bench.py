"""`python -m benchmarks.operators` measures what it says, agrees with every peer, and names what is missing."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.operators import measuring, peers
from benchmarks.operators.__main__ import Bench
from benchmarks.operators.cases import CASES, Case, inputs, reference
from benchmarks.operators.clock import interleaved, peak
from benchmarks.operators.ggml import scans
from benchmarks.operators.measuring import Result, Row, _error, measure
from benchmarks.operators.table import as_json, table
from gladient import _optional
from gladient.cli import main

ROOT = Path(__file__).parents[2]
NAN = float("nan")
SMALL = {
    name: replace(case, B=min(case.B, 2), T=min(case.T, 64), K=min(case.K, 64), V=min(case.V, 64))
    for name, case in CASES.items()
}
needs_ggml = pytest.mark.skipif(importlib.util.find_spec("libggml") is None, reason="ggml is not installed")


@pytest.mark.parametrize("name", SMALL)
def test_all_who_run_in_torch_compute_the_same(name: str) -> None:
    case, given = SMALL[name], inputs(SMALL[name])
    exact = reference(case, given)
    for who, contender in peers.contenders(case).items():
        if contender.kind == "compiled" or contender.given is not None:  # held below in eager forms; a yardstick
            continue
        own = {key: x.clone() for key, x in given.items()}
        assert _error(contender.operator(**own), exact) < 1e-5, who


@pytest.mark.parametrize("name", ["scalar", "key", "last", "context", "delta"])
def test_what_is_compiled_computes_the_same(name: str) -> None:
    case = replace(SMALL[name], T=min(CASES[name].T, 128))  # two chunks
    given = inputs(case)
    (function,) = peers._compiled(case).values()
    assert _error((function(**given),), reference(case, given)) < 1e-5


@needs_ggml
@pytest.mark.parametrize(
    "name", [name for name, case in SMALL.items() if not case.last and name not in ("context", "rotate", "mamba3")]
)
def test_ggml_computes_the_same(name: str) -> None:
    case, given = SMALL[name], inputs(SMALL[name])
    found = scans(case, given, threads=2)
    assert found
    for who, scan in found.items():
        scan.graph.compute()
        assert _error(scan.outputs(), reference(case, given)) < 1e-5, who


def test_peers_of_a_kind_alone() -> None:
    result = measure(SMALL["key"], rounds=1, peers=["ggml"])
    assert {row.kind for row in result.rows} == {"ours", "ggml"}
    assert not result.left_out


@pytest.mark.parametrize("case", [Case("key", 1, 32, 1, 4, 4), Case("scalar", 1, 1, 2, 8, 8)])
def test_a_small_table(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_compiled", lambda case: {})
    monkeypatch.setattr(measuring, "missing", lambda case: ["somebody (install it with: pip install somebody)"])
    result = measure(case, rounds=1)
    assert result.rows[0].name == "gladient"
    assert all(row.error < 1e-5 and row.forward > 0 for row in result.rows)
    text = table(result)
    assert case.title in text
    assert "left out: somebody (install it with: pip install somebody)" in text
    assert json.loads(json.dumps(as_json("small", result)))["rows"][0]["name"] == "gladient"


def test_jobs_take_turns_and_short_ones_repeat_in_cache() -> None:
    calls: list[str] = []
    medians = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)
    assert calls == (100 * ["a"] + 100 * ["b"]) * 2
    assert all(0 < seconds < 0.05 for seconds in medians.values())


def test_the_first_call_of_a_turn_is_not_timed_where_a_job_is_short() -> None:
    """It meets memory that the job before gave back to the system."""
    waits = iter([0.5, 0.06, 0.06])
    assert interleaved({"a": lambda: time.sleep(next(waits))}, rounds=1)["a"] < 0.3


def test_the_peak_is_what_a_job_holds_at_most() -> None:
    assert 60 < peak(lambda: torch.ones(1 << 24).sum()) < 90  # 64 MiB


def test_the_table_gives_ours_as_a_share_of_the_ceiling_and_peers_as_times_over_ours() -> None:
    rows = (
        Row("gladient", "ours", 1e-6, 2e-6, 1.0, 1e-7),
        Row("somebody", "installed", 3e-6, 8e-6, 1.0, 1e-7),
        Row("plain", "compiled", 2e-6, 5e-6, 1.0, 1e-7, (1.0, 2.0)),
        Row("ggml", "ggml", 1.5e-6, NAN, NAN, 1e-7),
    )
    last = table(Result(Case("scalar", 10, 100, 2, 4, 5, last=True), rows, 240e9, ()))  # 2000 × 3 × 4 (4 + 5 + 1) bytes
    assert "ours 120 GB/s, 50% of a copy at 240; best installable peer: forward 3.00×, f+b 4.00×" in last
    assert "best compiled plain torch: forward 2.00×, f+b 2.50×; best ggml: forward 1.50×" in last
    products = table(Result(Case("scalar", 10, 100, 2, 4, 5), rows[:1], 1200e9, ()))  # 2000 × 3 × 5 · 4 · 5 FLOP
    assert "ours 300 GFLOP/s, 25% of 64³ products at 1200" in products


def test_missing_peers_come_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_optional, "have", lambda module: False)
    found = peers.missing(CASES["full"])
    assert [line.split(" (")[0] for line in found] == ["fla", "transformers", "libggml"]
    assert all("install it with: pip install " in line for line in found)
    assert [line.split(" (")[0] for line in peers.missing(CASES["rwkv7"])] == ["fla", "libggml", "rwkv7_hf"]


def test_a_contender_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"wrong": peers.Contender("ours", lambda q, k, v, g: (0 * v,))}
    monkeypatch.setattr(measuring, "contenders", lambda case: wrong)
    with pytest.raises(RuntimeError, match=r"wrong is off by .* it computes something else"):
        measure(Case("scalar", 1, 8, 1, 2, 2), rounds=1)


@pytest.mark.parametrize("options", [{"cases": ("nothing",)}, {"cases": ()}, {"rounds": 0}, {"threads": 0}])
def test_wrong_options(options: dict) -> None:
    with pytest.raises(ValueError, match="cases must be one or more of scalar, key"):
        Bench(**options).run()


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="needs two widths of vectors")
def test_compiled_peers_are_right_at_one_width_after_another(tmp_path: Path) -> None:
    program = """
import torch
from benchmarks.operators.cases import Case, inputs, reference
from benchmarks.operators.measuring import _error
from benchmarks.operators.peers import contenders
from gladient import _optional
_optional.have = lambda module: False  # peers that are not compiled take long to import
case = Case("scalar", 2, 64, 2, 16, 16, last=True)
given = inputs(case)
found = [peer.operator(**given) for peer in contenders(case).values() if peer.kind == "compiled"]
print(torch.backends.cpu.get_cpu_capability(), *(_error(o, reference(case, given)) for o in found))
"""
    for width in ("avx512", "avx2"):
        setting = {"ATEN_CPU_CAPABILITY": width, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | setting, cwd=ROOT)
        found, *errors = done.stdout.split()
        assert found == width.upper()
        assert [float(error) < 1e-5 for error in errors] == [True]


def test_the_level_holds_torch_too() -> None:
    command = [sys.executable, "-m", "benchmarks.operators", "--level", "v3", "--rounds", "1", "--cases", "step-key"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, cwd=ROOT)
    if "which this one lacks" in done.stderr:
        pytest.skip("this CPU has no AVX2")
    found = json.loads(done.stdout)
    assert (found["level"], found["torch_level"], found["case"]) == ("v3", "AVX2", "step-key")


def test_the_command_says_where_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["bench"], ["bench", "--cases", "scalar"], ["bench", "--help"]):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.endswith("in a clone of the repository it is `python -m benchmarks.operators`\n")
