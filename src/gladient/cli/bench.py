"""`gladient bench`: ours and the peers' operators on this machine, same inputs, checked equal before they are timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

__all__ = ["Bench", "Case", "CASES", "Row", "measure", "interleaved"]


Tensor = Any  # torch itself is imported when a measurement runs, so that the other commands start fast


@dataclass(frozen=True)
class Case:
    """One shape and gate family; `last` asks for the last output only."""

    family: str
    B: int
    T: int
    H: int
    K: int
    V: int
    last: bool = False

    @property
    def title(self) -> str:
        """One line that names the case."""
        what = "last query" if self.last else "all outputs"
        return f"{self.family} gates, {what}, B={self.B} T={self.T} H={self.H} K={self.K} V={self.V}"


CASES = {
    "scalar": Case("scalar", 8, 2048, 4, 64, 64),
    "key": Case("key", 8, 2048, 4, 64, 64),
    "last": Case("scalar", 1024, 50, 1, 11, 11, last=True),
    "scalar-short": Case("scalar", 8, 512, 4, 64, 64),
    "scalar-long": Case("scalar", 8, 8192, 4, 64, 64),
    "key-short": Case("key", 8, 512, 4, 64, 64),
    "key-long": Case("key", 8, 8192, 4, 64, 64),
    "context": Case("scalar", 1024, 50, 1, 11, 11),
    "full": Case("full", 2, 512, 1, 16, 64),
}
_FAST = 0.05  # seconds
_SLOWEST = 5.0  # seconds: a contender that needs more for one call is timed once


@dataclass(frozen=True)
class Row:
    """One contender on one case: seconds forward, seconds forward and backward, MiB above the inputs, largest error."""

    name: str
    ours: bool
    forward: float
    training: float
    peak: float
    error: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time gated linear attention here: ours beside flash-linear-attention's torch functions and transformers' Mamba.

    Example: gladient bench --cases scalar key last

    Peers that are not installed are left out, and the table says what to install.
    """

    cases: tuple[str, ...] = ("scalar", "key", "last")
    """Which of scalar, key, last, scalar-short, scalar-long, key-short, key-long, context, full."""
    threads: int = 2
    """CPU threads."""
    rounds: int = 5
    """Interleaved rounds; the table shows medians."""

    def run(self) -> None:
        """Print one table a case."""
        import torch

        unknown = [name for name in self.cases if name not in CASES]
        if unknown or self.rounds < 1 or self.threads < 1:
            given = f"cases {list(self.cases)}, threads {self.threads}, rounds {self.rounds}"
            raise ValueError(f"{given}; cases must be of {', '.join(CASES)}, the others at least 1")
        torch.set_num_threads(self.threads)
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
        for name in self.cases:
            print(table(CASES[name], *measure(CASES[name], self.rounds)), flush=True)


def table(case: Case, rows: list[Row], ceiling: float) -> str:
    """The rows in text, ratios to the fastest peer; ours also as a share of the machine's ceiling."""
    tokens = case.B * case.T / 1e3
    peers = [row for row in rows if not row.ours]
    best = [min((getattr(row, kind) for row in peers), default=float("nan")) for kind in ("forward", "training")]
    lines = [f"\n{case.title}"]
    heads = f"{'ktok/s':>9}{'×peer':>8}"
    lines += [f"{'':34}{'fwd ms':>9}{heads}{'f+b ms':>10}{heads}{'MiB':>7}{'error':>9}"]
    for row in rows:
        fwd, both = row.forward, row.training
        lines.append(
            f"{row.name:34}{fwd * 1e3:9.1f}{tokens / fwd:9.0f}{best[0] / fwd:8.1f}"
            f"{both * 1e3:10.1f}{tokens / both:9.0f}{best[1] / both:8.1f}{row.peak:7.0f}{row.error:9.0e}"
        )
    if case.last:
        work, counted = 4 * (case.K + case.V + 1), "k, v, g read twice, gradients written once"
        unit, limit = "GB/s", "a copy"
    else:
        work, counted = 5 * case.K * case.V, "5·K·V FLOP a token and head, ×3 for training"
        unit, limit = "GFLOP/s", "64³ products"
    rate = 3 * work * case.B * case.T * case.H / rows[0].training
    lines.append(f"{counted}: ours {rate / 1e9:.0f} {unit}, {rate / ceiling:.0%} of {limit} at {ceiling / 1e9:.0f}")
    from gladient.cli._peers import missing

    return "\n".join(lines + [f"left out: {text}" for text in missing()])


def measure(case: Case, rounds: int = 5) -> tuple[list[Row], float]:
    """Ours and every installed peer that computes the same function; ours first.

    Beside them what the machine can do: bytes/s of a copy for the last query, else FLOP/s of 64³ products.

    Raises:
        RuntimeError: if a contender's outputs differ from ours by more than float32 explains.
    """
    import torch

    from gladient.cli._peers import contenders

    inputs = _inputs(case)
    with torch.no_grad():
        reference = _reference(case, inputs)
    entered: dict[str, tuple[bool, Callable[..., Tensor]]] = contenders(case)
    errors = {}
    for name, (_, function) in entered.items():
        with torch.no_grad():
            errors[name] = float((function(**inputs).double() - reference).abs().max() / reference.abs().max())
        if not errors[name] < 1e-3:
            raise RuntimeError(f"{name} is off by {errors[name]:.1e} of the largest output; it computes something else")
    upstream = torch.randn(reference.shape)
    leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}

    def forward(function: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            function(**inputs)

    def training(function: Callable[..., Tensor]) -> None:
        torch.autograd.grad(function(**leaves), list(leaves.values()), upstream)

    peaks = {name: _peak(partial(training, function)) for name, (_, function) in entered.items()}
    limit, work = _limit(case)
    jobs: dict[Any, Callable[[], Any]] = {"limit": limit}
    jobs |= {
        (name, way): partial(way, function) for name, (_, function) in entered.items() for way in (forward, training)
    }
    times = interleaved(jobs, rounds)
    rows = [
        Row(name, ours, times[name, forward], times[name, training], peaks[name], errors[name])
        for name, (ours, _) in entered.items()
    ]
    return rows, work / times["limit"]


def interleaved(jobs: Mapping[Any, Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """Median seconds of every job, one after the other in every round; those of seconds have a single round.

    Short jobs run ten times in a row, their inputs in cache, as in a training loop.
    """
    times: dict[Any, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            if not times[name] or times[name][0] < _SLOWEST:
                times[name].append(_seconds(job))
            if times[name][-1] < _FAST:
                times[name].extend(_seconds(job) for _ in range(9))
    return {name: median(taken) for name, taken in times.items()}


def _limit(case: Case) -> tuple[Callable[[], Tensor], float]:
    """A job that the machine does as fast as it can, and its bytes or FLOP."""
    import torch

    if case.last:
        big, copy = torch.randn(1 << 26), torch.empty(1 << 26)
        return partial(copy.copy_, big), 2.0 * big.nbytes
    a, b, out = (torch.randn(512, 64, 64) for _ in range(3))
    return partial(torch.bmm, a, b, out=out), 2.0 * len(a) * 64**3


def _inputs(case: Case) -> dict[str, Tensor]:
    import torch

    generator = torch.Generator().manual_seed(0)
    B, T, H, K, V = case.B, case.T, case.H, case.K, case.V
    gate_shapes = {"scalar": ("g", ()), "key": ("gk", (K,)), "full": ("G", (K, V))}
    name, rest = gate_shapes[case.family]
    q, k = (torch.randn(B, T, H, K, generator=generator) / K**0.5 for _ in range(2))
    log_gates = -0.1 * torch.rand(B, T, H, *rest, generator=generator)
    if case.family == "full":  # Mamba's A does not depend on the token
        log_gates[:] = log_gates[:1, :1].clone()
    return {
        "q": q[:, -1:].clone() if case.last else q,
        "k": k,
        "v": torch.randn(B, T, H, V, generator=generator),
        name: log_gates,
    }


def _reference(case: Case, inputs: dict[str, Tensor]) -> Tensor:
    """Ours in float64, which the tests hold against plain loops."""
    from gladient.ops import gated_linear_attention

    doubled: dict[str, Any] = {name: x.double() for name, x in inputs.items()}
    return gated_linear_attention(**doubled, form="last_query" if case.last else "auto")[0]


def _seconds(job: Callable[[], Any]) -> float:
    import time

    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _peak(job: Callable[[], Any]) -> float:
    """Largest resident memory during the job above that before it, in MiB; NaN where /proc does not tell."""
    import ctypes
    from pathlib import Path

    from gladient.ops._memory import release

    def kilobytes(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1])

    try:
        release()  # what earlier contenders freed does not count as free room
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = kilobytes("VmRSS")
        job()
        return (kilobytes("VmHWM") - before) / 1024
    except OSError:
        return float("nan")
