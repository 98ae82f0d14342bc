"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, on random cases of the public operator.

`python -m benchmarks.sanitize` (about a minute on two cores, after one to compile) runs 2000 cases on
kernels built for x86-64-v3, whose plain loads the sanitizers see (`--level native` elsewhere), and holds outputs,
states and gradients against backend="eager" on the same inputs: every gate family, read="before" with and without a
bonus, grouped heads, packed sequences, odd sizes, last queries and single steps, float64 and float32. It prints what
was run and every fault, and exits with 1 if there was one. It needs gcc or clang with their sanitizers.
"""

import argparse
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

__all__: list[str] = []

FLAGS = "-fsanitize=address,undefined -fno-omit-frame-pointer -O1 -g"
SIZES = (1, 2, 3, 4, 5, 7, 8, 11, 15, 16, 17, 20, 31, 33, 64)
LENGTHS = (1, 2, 3, 15, 16, 17, 31, 33, 50, 64, 65, 100)
FAMILIES = {"none": [], "fixed": ["g"], "scalar": ["g"], "key": ["gk"], "value": ["gv"], "key×value": ["gk", "gv"]}
FAMILIES |= {"scalar×key": ["g", "gk"], "full": ["G"], "rates": ["A", "dt"]}
TOLERANCES = {"float64": 1e-9, "float32": 2e-3}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--level", default="v3", help="GLADIENT_CPU_LEVEL of the kernels")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_cases(options)
    else:
        sys.exit(watch(options))


def watch(options: argparse.Namespace) -> int:
    """Runs the cases in a process into which the sanitizer was loaded first, and counts what it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        log = str(Path(folder) / "log")
        environment = os.environ | {
            "GLADIENT_CPU_LEVEL": options.level,
            "GLADIENT_CXXFLAGS": FLAGS,
            "LD_PRELOAD": " ".join(map(runtime, ("asan", "ubsan"))),
            # Python frees little before its exit; recovered faults are counted one by one
            "ASAN_OPTIONS": f"detect_leaks=0:halt_on_error=0:log_path={log}",
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={log}",
        }
        compile_first(environment)
        done = subprocess.run([sys.executable, "-m", "benchmarks.sanitize", "--child", *sys.argv[1:]], env=environment)
        text = "\n".join(path.read_text(errors="replace") for path in sorted(Path(folder).iterdir()))
    found = Counter(re.findall(r"^.*(?:runtime error:|ERROR: AddressSanitizer:).*$", text, re.MULTILINE))
    print(text, end="")
    print(f"{sum(found.values())} faults seen by the sanitizers, {len(found)} of them different", flush=True)
    return int(bool(found) or done.returncode != 0)


def compile_first(environment: dict[str, str]) -> None:
    """Into the cache, in a process without the preloaded sanitizer, which every compiler would otherwise inherit."""
    quiet = {name: value for name, value in environment.items() if not name.endswith("_OPTIONS")}
    quiet["ASAN_OPTIONS"] = "verify_asan_link_order=0:detect_leaks=0"  # loads it afterwards all the same
    command = "import torch; from gladient.ops.native import build; build.library()"
    subprocess.run([sys.executable, "-c", command], env=quiet | {"LD_PRELOAD": ""}, check=True)


def runtime(sanitizer: str) -> str:
    """The compiler's own runtime of a sanitizer."""
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    names = (f"lib{sanitizer}.so", f"libclang_rt.{sanitizer}-x86_64.so")
    for name in names:
        found = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        if Path(found).is_absolute():
            return str(Path(found).resolve())
    raise SystemExit(f"{' '.join(compiler)} has none of {', '.join(names)}: install its sanitizers, or set CXX")


def run_cases(options: argparse.Namespace) -> None:
    import torch

    from gladient.ops import LayoutWarning

    warnings.simplefilter("ignore", LayoutWarning)
    torch.set_num_threads(options.threads)
    rng = random.Random(options.seed)
    done: Counter[str] = Counter()
    wrong = refused = 0
    for number in range(options.cases):
        case = draw(rng)
        try:
            worst = difference(case, seed=number)
        except RuntimeError as error:
            if "cannot run this" not in str(error):
                raise
            refused += 1
            continue
        done[f"{case['family']}, {case['dtype']}"] += 1
        if not worst <= TOLERANCES[case["dtype"]]:
            wrong += 1
            print(f"case {number} differs by {worst:.1e}: {case}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{options.cases}", end="", file=sys.stderr, flush=True)
    for name, count in sorted(done.items()):
        print(f"{name:24}{count:6}")
    print(f"{sum(done.values())} cases compared, {refused} that the native backend refuses, {wrong} differ from eager")
    sys.exit(int(wrong > 0))


def draw(rng: random.Random) -> dict[str, Any]:
    """One case: a family, sizes, heads, and what is asked for."""
    family, form = rng.choice(list(FAMILIES)), rng.choice(["chunked"] * 4 + ["last_query", "step"])
    H = rng.choice([1, 1, 2, 3, 4, 6])
    divisors = [h for h in range(1, H + 1) if H % h == 0]
    T = 1 if form == "step" else rng.choice(LENGTHS)
    # the largest states are eager's longest cases: both sizes are never the largest
    K, V = rng.choice(SIZES), rng.choice(SIZES)
    K, V = (K, V) if K * V <= 1100 and (K * V <= 300 or "full" not in family) else (min(K, 16), min(V, 17))
    borders = sorted({0, T, *(rng.randint(0, T) for _ in range(rng.randint(0, 3)))}) if form == "chunked" else [0, T]
    before = form == "chunked" and rng.random() < 0.3
    return {
        "family": family,
        "form": form,
        "dtype": rng.choice(["float64", "float32"]),
        "B": 1 if len(borders) > 2 else rng.choice([1, 1, 2, 3]),
        "T": T,
        "H": H,
        "heads": {"v": H} | {name: rng.choice(divisors) for name in ("q", "k", "g", "gk", "gv", "G", "A", "dt")},
        "K": K,
        "V": V,
        "read": "before" if before else "after",
        "bonus": before and rng.random() < 0.5,
        "cu_seqlens": borders if len(borders) > 2 else None,
        "state": rng.random() < 0.6,
        "extreme": rng.random() < 0.2,  # gates of exactly 0 and 1 among the others
        "gradients": form != "step" or rng.random() < 0.5,
    }


def tensors(case: dict[str, Any], seed: int) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, case["dtype"])
    B, T, H, K, V, heads = (case[x] for x in ("B", "T", "H", "K", "V", "heads"))
    queries = 1 if case["form"] == "last_query" else T
    sequences = len(case["cu_seqlens"] or [0, T]) - 1
    shapes = {"q": (B, queries, heads["q"], K), "k": (B, T, heads["k"], K), "v": (B, T, heads["v"], V)}
    gates = {"g": (B, T, heads["g"]), "gk": (B, T, heads["gk"], K), "gv": (B, T, heads["gv"], V)}
    gates |= {"G": (B, T, heads["G"], K, V), "A": (heads["A"], K, V), "dt": (B, T, heads["dt"], V)}
    if case["family"] == "fixed":
        gates["g"] = (heads["g"],)
    made = {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}
    for name in FAMILIES[case["family"]]:
        x = -torch.empty(gates[name], dtype=dtype).exponential_(3.0, generator=generator)
        if case["extreme"] and name not in ("A", "dt"):
            chance = torch.rand(x.shape, generator=generator)
            x = x.masked_fill(chance < 0.1, -torch.inf).masked_fill(chance > 0.9, 0.0)
        made[name] = -x if name == "dt" else x
    if case["state"]:
        shape = (sequences, H, K, V) if case["cu_seqlens"] else (B, H, K, V)
        made["initial_state"] = torch.randn(shape, generator=generator, dtype=dtype)
    if case["bonus"]:
        made["bonus"] = torch.randn((H, K), generator=generator, dtype=dtype)
    return made


def difference(case: dict[str, Any], seed: int) -> float:
    """The largest difference of any output or gradient from eager's, relative to that one's largest entry."""
    native, eager = (results(case, seed, backend) for backend in ("native", "eager"))
    scales = [max(float(y.abs().max()), 1.0) if y.numel() else 1.0 for y in eager]
    off = (float((x - y).abs().max()) / s if y.numel() else 0.0 for x, y, s in zip(native, eager, scales, strict=True))
    return max(off)


def results(case: dict[str, Any], seed: int, backend: str) -> list[Any]:
    """Outputs, final state and gradients, in float64; eager computes all of it in float64."""
    import torch

    from gladient.ops import gated_linear_attention

    given = tensors(case, seed)
    if backend == "eager":
        given = {name: x.double() for name, x in given.items()}
    if case["gradients"]:
        given = {name: x.requires_grad_() for name, x in given.items()}
    options = {name: case[name] for name in ("form", "read", "cu_seqlens")}
    o, final = gated_linear_attention(**given, **options, output_final_state=True, backend=backend)
    found = [o, final]
    if case["gradients"]:
        loss = o.double().square().sum() + final.double().sin().sum()
        gradients = torch.autograd.grad(loss, list(given.values()), allow_unused=True)
        found += [torch.zeros(0) if x is None else x for x in gradients]
    return [x.detach().double() for x in found]


if __name__ == "__main__":
    main()
