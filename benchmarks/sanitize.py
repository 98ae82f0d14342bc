"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on random cases of the public operator.

`python -m benchmarks.sanitize` (some minutes, most to compile) compares 2000 cases with backend="eager" in float64,
on kernels built for x86-64-v3, whose plain loads the sanitizers see (`--level native` elsewhere): outputs, states and
gradients of every gate family, of the delta rules, of short convolutions, gated norms and last queries of tokens,
reads before the write with and without a bonus, grouped heads, packed sequences, odd sizes, last queries and single
steps, in float64 and float32 (`--only general` runs the families whose names hold that word). It prints what was run
and every fault, and exits with 1 if there was one. It needs a compiler with sanitizers.
"""

import argparse
import os
import platform
import random
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gladient.ops import gated_delta_rule, gated_linear_attention, generalized_delta_rule, native
from gladient.ops.native.convolution import TAPS, plain_convolution
from gladient.ops.native.norm import plain_norm
from gladient.ops.native.token_query import plain_token_query

__all__: list[str] = []

FLAGS = "-fsanitize=address,undefined -fno-omit-frame-pointer -fsanitize-recover=address -O1 -g"
SIZES = (1, 2, 3, 4, 5, 7, 8, 11, 15, 16, 17, 20, 31, 33, 64)
LENGTHS = (1, 2, 3, 15, 16, 17, 31, 33, 50, 64, 65, 100)
FAMILIES = {"none": [], "fixed": ["g"], "scalar": ["g"], "key": ["gk"], "value": ["gv"], "key×value": ["gk", "gv"]}
FAMILIES |= {"scalar×key": ["g", "gk"], "full": ["G"], "rates": ["A", "dt"]}
DELTA = {"delta": [], "delta, scalar": ["g"], "delta, key": ["gk"], "delta, scalar×key": ["g", "gk"]}
GENERAL = {"general": [], "general, scalar": ["g"], "general, key": ["gk"], "general, scalar×key": ["g", "gk"]}
AROUND: dict[str, list[str]] = {"convolution": [], "norm": [], "tokens": []}  # what stands around a scan
FAMILIES |= DELTA | GENERAL | AROUND
TOLERANCES = {"float64": 1e-9, "float32": 1e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of families")
    parser.add_argument(
        "--level", default="v3", choices=("v3", "v4", "native"), help="GLADIENT_CPU_LEVEL of the kernels"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.exit(compare(options) if options.child else watch(options))


def watch(options: argparse.Namespace) -> int:
    """Runs the cases in a process into which the sanitizers were loaded first, and counts what they wrote."""
    environment = os.environ | {
        "GLADIENT_CPU_LEVEL": options.level,
        "GLADIENT_CXXFLAGS": FLAGS,
        "LD_PRELOAD": " ".join(map(runtime, ("asan", "ubsan"))),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=0",  # Python frees little before its exit
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, "-m", "benchmarks.sanitize", "--child", *sys.argv[1:]]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        done = subprocess.run(command, env=environment, stderr=log, check=False)
        log.seek(0)
        text = log.read()
    faults = re.findall(r"^.*(?:runtime error: |ERROR: AddressSanitizer: ).*$", text, re.MULTILINE)
    print(text, end="", file=sys.stderr)
    print(f"{len(faults)} faults found by the sanitizers")
    if done.returncode < 0:
        print(f"the cases ended by signal {-done.returncode}")
    return int(bool(faults) or done.returncode != 0)


def runtime(sanitizer: str) -> str:
    """Path of a sanitizer's shared library, the compiler's own."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    names = (f"lib{sanitizer}.so", f"libclang_rt.{sanitizer}-{platform.machine()}.so")
    for name in names:
        command = [*compiler, f"-print-file-name={name}"]
        found = Path(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip())
        if found.is_absolute():
            return str(found.resolve())
    raise SystemExit(f"{' '.join(compiler)} has none of {', '.join(names)}: install its sanitizers, or set CXX")


def compare(options: argparse.Namespace) -> int:
    """Runs random cases until as many as asked for were compared; returns 1 if one differs."""
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    rng, families = random.Random(options.seed), [name for name in FAMILIES if options.only in name]
    done: Counter[str] = Counter()
    wrong = refused = 0
    while done.total() < options.cases:
        case = draw(rng, families, seed=done.total() + refused)
        try:
            worst = max(differences(case))
        except RuntimeError as error:
            if "cannot run this" not in str(error) or refused > 10 * options.cases:
                raise
            refused += 1
            continue
        done.update([f"{case['family']}, {case['form']}, {case['dtype']}"])
        if not worst <= TOLERANCES[case["dtype"]]:
            wrong += 1
            print(f"differs by {worst:.1e}: {case}", flush=True)
        if sys.stdout.isatty():
            print(f"\r{done.total()}/{options.cases} ", end="", flush=True)
    for name, count in sorted(done.items()):
        print(f"{name:36}{count:6}")
    print(f"{done.total()} cases compared, {wrong} differ; {refused} more that native does not hold", flush=True)
    return int(wrong > 0)


def draw(rng: random.Random, families: list[str], seed: int) -> dict[str, Any]:
    """One case: a family, sizes, heads, and what is asked for."""
    form = rng.choice(["chunked"] * 4 + ["last_query", "step"])
    family, H = rng.choice(families), rng.choice([1, 1, 2, 3, 4, 6])
    divisors = [h for h in range(1, H + 1) if H % h == 0]
    names = ("q", "k", "v", "g", "gk", "gv", "G", "beta", "erase", "erase_keys", "a", "b", "initial_state")
    heads = {name: rng.choice(divisors) for name in names}
    if H not in (heads["q"], heads["k"], heads["v"]):  # someone has every head
        heads[rng.choice("qkv")] = H
    K, V = rng.choice(SIZES), rng.choice(SIZES)
    if K * V > 1100 or (K * V > 300 and family in ("full", "rates")):  # eager's longest cases
        K, V = min(K, 16), min(V, 17)
    T = 1 if form == "step" else rng.choice(LENGTHS)
    cuts = rng.randint(1, 3) if form != "step" and rng.random() < 0.4 else 0
    before = form == "chunked" and rng.random() < 0.3
    gradients = form != "step" or rng.random() < 0.5
    return {
        "family": family,
        "form": form,
        "dtype": rng.choice(["float64", "float32"]),
        "B": 1 if cuts else rng.choice([1, 1, 2, 3]),
        "T": T,
        "H": H,
        "heads": heads,
        "K": K,
        "V": V,
        "scale": rng.choice([1.0, 0.3, None]),
        "read": "before" if before else "after",
        "bonus": before and family not in DELTA | GENERAL and rng.random() < 0.5,
        "erase": rng.choice(["as beta", "scalar", "channels"]),
        "erase_keys": rng.random() < 0.3,
        "cu_seqlens": sorted([0, T, *(rng.randint(0, T) for _ in range(cuts))]) if cuts else None,
        "state": rng.random() < 0.6,
        "rows": rng.random() < 0.3,  # A and the bonus by row of the batch
        "extreme": rng.random() < 0.2,  # gates of exactly 0 and 1 among the others
        "gradients": gradients,
        "inplace": form == "step" and not gradients and rng.random() < 0.5,
        "seed": seed,
    }


def tensors(case: dict[str, Any]) -> dict[str, Tensor]:
    """The operator's arguments, the same numbers whatever the dtype."""
    generator = torch.Generator().manual_seed(case["seed"])
    B, T, H, K, V, heads = (case[x] for x in ("B", "T", "H", "K", "V", "heads"))
    rows = (B,) if case["rows"] else ()
    shapes: dict[str, tuple[int, ...]] = {
        "q": (B, 1 if case["form"] == "last_query" else T, heads["q"], K),
        "k": (B, T, heads["k"], K),
        "v": (B, T, heads["v"], V),
        "g": (heads["g"],) if case["family"] == "fixed" else (B, T, heads["g"]),
        "gk": (B, T, heads["gk"], K),
        "gv": (B, T, heads["gv"], V),
        "G": (B, T, heads["G"], K, V),
        "A": (*rows, H, K, V),
        "dt": (B, T, H, V),
        "bonus": (*rows, H, K),
        "beta": (B, T, heads["beta"], *([V] if case["erase"] == "channels" else [])),
        "erase": (B, T, heads["erase"], *([K] if case["erase"] == "channels" else [])),
        "erase_keys": (B, T, heads["erase_keys"], K),
        "a": (B, T, heads["a"], K),
        "b": (B, T, heads["b"], K),
        "initial_state": (len(case["cu_seqlens"]) - 1 if case["cu_seqlens"] else B, heads["initial_state"], K, V),
    }
    if case["inplace"]:
        shapes["initial_state"] = (B, H, K, V)
    given = ["bonus"] * case["bonus"] + ["initial_state"] * (case["state"] or case["inplace"])
    made = {name: torch.randn(shapes[name], generator=generator) for name in ("q", "k", "v", *given)}
    for name in FAMILIES[case["family"]]:
        x = torch.empty(shapes[name]).exponential_(3.0, generator=generator)
        if case["extreme"] and name not in ("A", "dt"):
            chance = torch.rand(x.shape, generator=generator)
            x = x.masked_fill(chance < 0.1, torch.inf).masked_fill(chance > 0.9, 0.0)
        made[name] = x if name == "dt" else -x
    if case["family"] in DELTA:
        made["k"] = torch.nn.functional.normalize(made["k"], dim=-1)  # longer ones would let errors grow
        if case["erase_keys"]:  # near the keys, as others let errors grow
            k = made["k"].repeat_interleave(heads["erase_keys"], 2)[:, :, : heads["erase_keys"]]
            made["erase_keys"] = 0.7 * k
        for name in ["beta"] + ["erase"] * (case["erase"] != "as beta"):
            made[name] = torch.rand(shapes[name], generator=generator)
    if case["family"] in GENERAL:  # one key for all heads, as errors grow where a·b leaves [-2, 0]
        key = torch.nn.functional.normalize(torch.randn(B, T, 1, K, generator=generator), dim=-1)
        made["a"], made["b"] = -key.expand(shapes["a"]), key * torch.rand(shapes["b"], generator=generator)
    return made


def differences(case: dict[str, Any]) -> Iterator[float]:
    """The largest distance of each output and gradient from eager's in float64, relative to its largest entry or 1."""
    native = results(case, "native", getattr(torch, case["dtype"]))
    eager = results(case, "eager", torch.float64)
    yield 0.0
    for x, y in zip(native, eager, strict=True):
        if x.shape != y.shape:
            yield float("inf")
        elif y.numel():
            yield float((x.double() - y).abs().max() / y.abs().max().clamp(min=1.0))


def results(case: dict[str, Any], backend: str, dtype: torch.dtype) -> list[Tensor]:
    if case["family"] in AROUND:
        return around(case, backend, dtype)
    given = {name: x.to(dtype).requires_grad_(case["gradients"]) for name, x in tensors(case).items()}
    options = {name: case[name] for name in ("form", "scale", "read", "cu_seqlens", "inplace")}
    operator: Any = gated_delta_rule if case["family"] in DELTA else gated_linear_attention
    operator = generalized_delta_rule if case["family"] in GENERAL else operator
    o, final = operator(**given, **options, backend=backend, output_final_state=True)
    assert final is not None
    if not case["gradients"]:
        return [o, final]
    generator = torch.Generator().manual_seed(case["seed"])
    upstream = [torch.randn(x.shape, generator=generator).to(dtype) for x in (o, final)]
    found = torch.autograd.grad([o, final], list(given.values()), upstream, allow_unused=True)
    return [o.detach(), final.detach(), *(torch.zeros(1) if x is None else x for x in found)]


def around(case: dict[str, Any], backend: str, dtype: torch.dtype) -> list[Tensor]:
    """The output and gradients of a convolution, a gated norm or a last query of tokens of the case's sizes."""
    generator = torch.Generator().manual_seed(case["seed"])
    normal = partial(torch.randn, generator=generator)
    B, T, size, width = case["B"], case["T"], case["K"], case["K"] * case["H"]
    if case["family"] == "convolution":
        taps = TAPS[case["seed"] % len(TAPS)]
        given = [normal(B, T, width + 3)[..., 1:-2], normal(width, taps), normal(width)]
        borders = case["cu_seqlens"] and sorted(set(case["cu_seqlens"]))
        function: Any = native.convolution if backend == "native" else plain_convolution
        options: tuple[Any, ...] = (borders, case["rows"])
    elif case["family"] == "tokens":
        H, V = case["H"], 1 + case["seed"] % 3
        z = normal(2, B, T, size).to(dtype)
        given = [normal(2, B, H, size), normal(2, H, V, size), normal(2, H, V if case["rows"] else 1, size)]
        given = given[: 3 if case["state"] else 2]
        tokens: Any = native.token_query if backend == "native" else plain_token_query
        function, options = (lambda u, a, w=None: tokens(z, u, a, w)), ()
    else:
        given = [normal(B, T, width), normal(B, T, width + 5)[..., 2:-3], normal(width)]
        function = native.norm if backend == "native" else plain_norm
        options = (size, 1e-5, case["rows"], ("silu", "sigmoid")[case["seed"] % 2], case["state"])
    leaves = [x.to(dtype).requires_grad_() for x in given]
    o = function(*leaves, *options)
    o = o if isinstance(o, Tensor) else o[0]
    return [o.detach(), *torch.autograd.grad(o, leaves, normal(*o.shape).to(dtype))]


if __name__ == "__main__":
    main()
