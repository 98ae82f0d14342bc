"""One case measured: everybody checked equal to float64 first, then timed in turns beside what the machine can do."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.operators.cases import Case, inputs, reference
from benchmarks.operators.clock import interleaved, peak, seconds
from benchmarks.operators.ggml import scans
from benchmarks.operators.peers import KINDS, Kind, contenders, missing

__all__ = ["Result", "Row", "measure"]

_LARGEST_ERROR = 1e-4  # of the largest output; float32 explains no more
_NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """One contender on one case; NaN where it has no such number.

    Seconds forward, seconds forward and backward, MiB above the inputs (forward and backward), largest error relative
    to the largest entry, seconds of the first call forward and of the first with gradients, where they compile.
    """

    name: str
    kind: Kind
    forward: float
    training: float
    peak: float
    error: float
    first: tuple[float, float] = (_NAN, _NAN)


@dataclass(frozen=True)
class Result:
    """Rows, ours first; the machine's most in FLOP/s, for a last query or a step in bytes/s; who is absent."""

    case: Case
    rows: tuple[Row, ...]
    ceiling: float
    left_out: tuple[str, ...]


def measure(case: Case, rounds: int = 5, threads: int = 1, peers: Collection[Kind] = KINDS) -> Result:
    """Ours and every peer at hand, of these kinds, that computes the same function.

    Raises:
        RuntimeError: if a contender's outputs differ from ours by more than float32 explains.
    """
    given, absent = inputs(case), missing(case) if {"ours", *peers} >= set(KINDS) else []
    exact = reference(case, given)
    upstream = torch.randn(exact[0].shape)
    forward: dict[str, Callable[[], Any]] = {}
    training: dict[str, Callable[[], Any]] = {}
    kinds: dict[str, Kind] = {}
    errors, firsts, afterwards = {}, {}, {}
    for name, contender in contenders(case).items():
        if contender.kind not in ("ours", *peers):
            continue
        own = given if contender.given is None else contender.given
        own = own | ({"initial_state": given["initial_state"].clone()} if case.step else {})  # inplace writes to it
        leaves = {name: x.clone().requires_grad_() for name, x in own.items()} if not case.step else {}
        jobs = partial(_forward, contender.operator, own), partial(_training, contender.operator, leaves, upstream)
        if contender.kind == "compiled":
            try:
                firsts[name] = seconds(jobs[0]), seconds(jobs[1])
            except RuntimeError as error:
                absent.append(f"{name} (it did not compile: {str(error).strip().splitlines()[0]})")
                continue
        if contender.given is None:
            errors[name] = _error(jobs[0](), exact)
        forward[name], kinds[name] = jobs[0], contender.kind
        training |= {} if case.step else {name: jobs[1]}
    for name, scan in (scans(case, given, threads) if "ggml" in peers else {}).items():
        scan.graph.compute()
        errors[name] = _error(scan.outputs(), exact)
        forward[name], kinds[name], afterwards[name, "forward"] = scan.graph.compute, "ggml", scan.graph.rest
        scan.graph.rest()
    for name, off in errors.items():
        if not off < _LARGEST_ERROR:
            raise RuntimeError(f"{name} is off by {off:.1e} of the largest output; it computes something else")
    peaks = {}
    for name, job in training.items():
        peaks[name] = peak(job)
    limit, work = _limit(case)
    everyone: dict[Any, Callable[[], Any]] = {"limit": limit}
    for name in forward:
        everyone[name, "forward"] = forward[name]
        if name in training:
            everyone[name, "training"] = training[name]
    with torch.set_grad_enabled(not case.step):  # once, as around a loop of decoding: it takes a tenth of a token
        times = interleaved(everyone, rounds, afterwards)
    rows = tuple(
        Row(
            name,
            kinds[name],
            times[name, "forward"],
            times.get((name, "training"), _NAN),
            peaks.get(name, _NAN),
            errors.get(name, _NAN),
            firsts.get(name, (_NAN, _NAN)),
        )
        for name in forward
    )
    return Result(case, rows, work / times["limit"], tuple(absent))


def _forward(operator: Callable[..., tuple[Tensor, ...]], given: dict[str, Tensor]) -> tuple[Tensor, ...]:
    if not torch.is_grad_enabled():
        return operator(**given)
    with torch.no_grad():
        return operator(**given)


def _training(operator: Callable[..., tuple[Tensor, ...]], leaves: dict[str, Tensor], upstream: Tensor) -> None:
    torch.autograd.grad(operator(**leaves)[0], list(leaves.values()), upstream)


def _error(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """The worst of outputs and state."""
    pairs = zip(found, exact, strict=True)
    return max(float((x.double() - y).abs().max() / y.abs().max()) for x, y in pairs)


def _limit(case: Case) -> tuple[Callable[[], Tensor], float]:
    """A job that the machine does as fast as it can, and its bytes or FLOP."""
    if case.last or case.step or case.turns == "rotate":
        big, copy = torch.randn(1 << 26), torch.empty(1 << 26)
        return partial(copy.copy_, big), 2.0 * big.nbytes
    a, b, out = (torch.randn(512, 64, 64) for _ in range(3))
    return partial(torch.bmm, a, b, out=out), 2.0 * len(a) * 64**3
