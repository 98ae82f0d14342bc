"""Random command lines and setting files: none may end in a traceback, in several lines, or in a wrong number.

    python -m benchmarks.fuzz [--cases 5000] [--seed 0] [--only 123]

Each case is run in this process through `gladient.cli.main`. It fails on an exception; an exit code other than 0, 1, 2,
130; an error that is not one line on stderr; anything on stderr beside exit code 0; more than --limit seconds; and on
risks that differ from exact fractions (`benchmarks.exact`) by more than 1e-11 of the risk of predicting 0.
Exit code 1: a case failed. `--only` runs one case and shows what it printed.
"""

import contextlib
import csv
import importlib
import io
import itertools
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import tyro

from benchmarks.exact import Exact
from benchmarks.fuzz_cases import Case, make
from gladient.cli import main

TOLERANCE = Fraction(1, 10**11)  # of the risk of predicting 0


class TooLongError(BaseException):
    """Not an Exception, so that no handler of the program takes it."""


@dataclass(frozen=True)
class Options:
    """Fuzz of the command line."""

    cases: int = 5000
    """How many."""
    seed: int = 0
    """Case i of a seed is always the same."""
    limit: float = 5.0
    """Seconds a case may take."""
    only: int | None = None
    """Run this case alone, and show it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLongError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


def run(case: Case, limit: float, show: bool = False) -> tuple[int | None, str | None]:
    """Exit code and, if the case failed, why; in a folder of its own."""
    out, err = io.StringIO(), io.StringIO()
    for name, data in case.files.items():
        Path(name).write_bytes(data)
    started = time.perf_counter()
    code: Any = None
    try:
        with time_limit(limit), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(case.arguments)
        fault = _fault(case, code, out.getvalue(), err.getvalue())
    except TooLongError:
        fault = f"still running after {time.perf_counter() - started:.1f} s"
    except Exception:
        fault = traceback.format_exc()
    if time.perf_counter() - started > limit + 1.0 and fault is None:
        fault = f"took {time.perf_counter() - started:.1f} s"
    if show:
        print(case, code, out.getvalue(), err.getvalue(), sep="\n")
    return code, fault


def _fault(case: Case, code: Any, out: str, err: str) -> str | None:
    if code not in (0, 1, 2, 130):
        return f"exit code {code!r}"
    if code == 0 and err:
        return f"exit code 0, and on stderr: {err}"
    if code != 0 and (err.count("\n") != 1 or not err.startswith("gladient: ") or len(err) > 1200 or out):
        return f"exit code {code}; stderr is not one line, or stdout not empty: {err!r} {out!r}"
    if code != 0:
        return f"refused: {err}" if case.must_work else None
    if case.arguments[0] == "map":
        return wrong_map(case.setting) if case.setting else None
    if "--json" not in case.arguments or {"--help", "-h", "--version"} & set(case.arguments):
        return None
    found = json.loads(out, parse_constant=_not_json)
    return wrong_risks(found, case.setting) if "linear_attention" in found else wrong_points(found, case.setting)


def _not_json(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def exact(setting: dict[str, Any]) -> Exact:
    """The witness of an accepted setting."""
    lists = ("n", "r", "rho", "spectrum")  # typed, --n 5 and --d 3 come from 5 and [3] as well
    setting = {
        name: value if (name in (*lists, "R")) == isinstance(value, list) else [value] if name in lists else value[0]
        for name, value in setting.items()
        if value != []
    }
    setting = {"n": [25, 25]} | setting
    K, rho = len(setting["n"]), setting.get("rho", [])
    R = setting.get("R")
    if R is None:
        R = [[1.0] * K for _ in range(K)]
        pairs = [(k, j) for k in range(K) for j in range(k + 1, K)]
        for (k, j), value in zip(pairs, rho if len(rho) == len(pairs) else (rho or [0.0]) * len(pairs), strict=True):
            R[k][j] = R[j][k] = value
    spectrum = setting.get("spectrum") or {1.0: int(float(setting.get("d", 10)))}
    return Exact.of(setting["n"], R, setting["r"], spectrum, setting.get("sigma2", 0.0))


def _far(what: str, found: float, expected: Fraction, M: Fraction) -> str | None:
    far = abs(Fraction(found) - expected) > TOLERANCE * M
    return f"{what} is {found!r}, exactly {float(expected)!r}" if far else None


def _above(what: str, found: float, bound: Fraction, M: Fraction) -> str | None:
    above = Fraction(found) > bound + TOLERANCE * M
    return f"{what} is {found!r}, and {float(bound)!r} is possible" if above else None


def wrong_risks(found: dict[str, Any], setting: dict[str, Any] | None) -> str | None:
    """The first wrong number of `gladient risk --json`."""
    risks = {name: rung["risk"] for name, rung in found.items()}
    if not all(math.isfinite(risk) and risk >= 0 for risk in risks.values()):
        return f"risks {risks}"
    M = Fraction(max(risks.values()))
    order = ["linear_attention", "fixed_decay", "scalar_gate", "value_gate", "key_gate"]
    faults = [_above(low, risks[low], Fraction(risks[high]), M) for high, low in itertools.pairwise(order)]
    faults.append(_above("fixed_decay", risks["fixed_decay"], Fraction(risks["half_gate"]), M))
    if setting is not None and "Sigma" not in setting:
        one = exact(setting)
        scalar = [Fraction(w) for w in found["scalar_gate"]["omega"]]
        if any(low > high for low, high in zip([Fraction(0), *scalar], scalar, strict=False)):
            faults.append(f"scalar_gate has the weights {found['scalar_gate']['omega']}")
        value = [Fraction(w) for w in found["value_gate"]["omega"]]
        faults += [
            _far("linear_attention", risks["linear_attention"], one.linear_attention(), one.M),
            _far("key_gate", risks["key_gate"], one.key_gate(), one.M),
            _far("half_gate", risks["half_gate"], one.decay(math.log(2.0)), one.M),
            _far("scalar_gate at its weights", risks["scalar_gate"], one.risk(scalar), one.M),
            _far("value_gate at its weights", risks["value_gate"], one.risk(value), one.M),
            _above("value_gate", risks["value_gate"], one.optimum(), one.M),
            _above("scalar_gate", risks["scalar_gate"], min(one.cone()), one.M),
            _above("fixed_decay", risks["fixed_decay"], min(one.decays()), one.M),
        ]
    return next((fault for fault in faults if fault), None)


def wrong_points(found: dict[str, Any], setting: dict[str, Any] | None) -> str | None:
    """The first wrong number of `gladient certify --json`."""
    points = found["stationary_points"]
    if setting is None or "Sigma" in setting or not points:
        return None
    one = exact(setting)
    faults = [_far("a point", p["risk"], one.risk([Fraction(w) for w in p["omega"]]), one.M) for p in points]
    lowest = min(p["risk"] for p in points)
    faults.append(_above("the lowest point", lowest, one.optimum(), one.M))
    gain = one.linear_attention() - Fraction(lowest)
    faults.append(_far("the gain", found["advantage"]["gain"], gain, one.M))
    return next((fault for fault in faults if fault), None)


def wrong_map(setting: dict[str, Any]) -> str | None:
    """The first wrong number in the CSV of `gladient map`."""
    with Path("map.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["possible"] == "1"]
    for row in rows[:2]:
        one = exact(setting | {"r": [float(row["r1"]), float(row["r2"])]})
        none, best = float(row["linear_attention"]), float(row["optimum"])
        isotropic = len(one.s) == 1
        fault = _far("linear_attention", none, one.linear_attention(), one.M) or (
            _far("optimum", best, one.key_gate(), one.M) if isotropic else _above("optimum", best, one.optimum(), one.M)
        )
        if fault:
            return f"{row}: {fault}"
    return None


def fuzz(options: Options) -> int:
    """Run all cases; 1 if one failed."""
    warnings.simplefilter("always")  # as in a fresh process, each time
    for slow in ("gladient.experiments", "matplotlib.figure"):
        importlib.import_module(slow)  # now, so that no case pays for it
    codes: Counter[int | None] = Counter()
    failed, slowest, checked = 0, 0.0, 0
    started, home = time.perf_counter(), Path.cwd()
    for index in range(options.cases) if options.only is None else [options.only]:
        case = make(random.Random(f"{options.seed}:{index}"))
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            begun = time.perf_counter()
            code, fault = run(case, options.limit, show=options.only is not None)
            slowest = max(slowest, time.perf_counter() - begun)
            os.chdir(home)
        codes[code] += 1
        checked += code == 0 and case.setting is not None
        if fault:
            failed += 1
            print(
                f"case {index}: {case.arguments!r} {case.files!s:.500}\n  {fault}".encode("utf-8", "replace").decode()
            )
    print(
        f"{sum(codes.values())} cases, {failed} failed; exit codes {dict(sorted(codes.items(), key=str))}; {checked} "
        f"accepted settings compared with fractions; slowest {slowest:.2f} s, all {time.perf_counter() - started:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(fuzz(tyro.cli(Options, description=__doc__)))
