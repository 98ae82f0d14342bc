"""The delta rule's relatives: a rate per channel, a copy of the keys per task, several steps per token, rotation."""

from dataclasses import asdict, dataclass
from functools import partial
from math import acos, atan2, cos, exp, expm1, lgamma, log1p, pi, sin
from typing import Any

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.delta.floors import filter_floor
from gladient.landscape.delta.isotropic import noise_share, require_isotropic
from gladient.landscape.delta.rungs import DeltaCertificate
from gladient.landscape.delta.search import search
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import few
from gladient.prompts import MultitaskSetting

__all__ = ["StepRung", "channel_rates", "key_copies", "repeated_steps", "rotating_delta_rule"]

_SEARCHED = 1000  # examples of a search, which takes them one by one: some seconds
_LISTED = 10**7  # rates of a schedule: 80 MB
_MOST = 4000  # risks that one search may look at; the searches of 5 rates end after a quarter
# How far from the first optimal rate a rate is searched: it shrinks with the number of examples, or grows in directions
# of little variance, which wait until the others are known.
_BELOW, _ABOVE = 1e4, 1e2
_SAME = 1e-12  # 1 - ρ² of two tasks that are one


@dataclass(frozen=True, eq=False)
class StepRung:
    """What a relative of the delta rule can do.

    Attributes:
        risk: expected squared error of the query's prediction.
        steps: its steps or rates; their function says which.
        certificate: how they were found.
        turns: angle by which each delimiter turns the state, [K]; None without rotation.
        gain: what the query's estimate is multiplied by; None without rotation.
    """

    risk: float
    steps: Array
    certificate: DeltaCertificate
    turns: Float[Array, " K"] | None = None
    gain: float | None = None

    @property
    def weights(self) -> None:
        """None: what an example weighs depends on the keys after it."""

    @property
    def text(self) -> str:
        """The first steps, and the turns."""
        turns = "" if self.turns is None else f"; turns {few(self.turns)}"
        return f"β = {few(self.steps.ravel())}{turns}"

    def numbers(self) -> dict[str, Any]:
        """risk, steps, turns and gain if there are any, and the certificate, for JSON."""
        turns = {} if self.turns is None else {"turns": self.turns.tolist(), "gain": self.gain}
        return {"risk": self.risk, "steps": self.steps.tolist(), **turns, "certificate": asdict(self.certificate)}


_KNOWN = DeltaCertificate("closed form", 1, None, attained=True)


def channel_rates(setting: MultitaskSetting | Reduced, *, schedule: str = "own") -> StepRung:
    r"""A rate for each direction of Σ, $b \leftarrow b - A_t x\,(x^\top b - y)$: RWKV-7's, with $k_a = 1$; one task.

    * "own": each direction has a schedule of its own. The best one is the filter's,
      $a_j = V_j / (2 s_j V_j + \sum_i s_i V_i + \sigma^2)$, so the risk is `filter_floor`. `steps` is [N, d].
    * "common": $a_j / (1 + c\,t)$ after t examples. `steps` is $(a_1, \dots, a_d, c)$; searched.
    * "constant": one rate for each direction, which is DeltaNet with fixed keys $A^{1/2} x$. `steps` is [d]; searched.

    Convention: keys are not normalised (RWKV-7 sets |k| = 1, with a layer norm before it), and directions are in
    ascending order of $s_j$.

    Raises:
        ValueError: if there is more than one task, the features are not Gaussian, or there are more than 1000 examples
            for a search, or 10⁷ rates for a schedule.

    Source: derived.

    >>> setting = MultitaskSetting([10], [[1.0]], [1.0], np.diag([4.0, 1.0, 0.25]), 0.5)
    >>> for schedule in ("constant", "common", "own"):
    ...     print(f"{schedule:8} {channel_rates(setting, schedule=schedule).risk:.4f}")
    constant 1.1137
    common   1.1082
    own      1.0898
    """
    reduced = reduce(setting)
    n = _one_task(reduced, "a rate per channel")
    s, rho2 = reduced.s, float(reduced.r[0]) ** 2
    M = float(s.sum()) + reduced.sigma2
    if schedule not in ("own", "common", "constant"):
        raise ValueError(f'schedule is {schedule!r}; it must be "own", "common" or "constant"')
    if schedule == "own":
        _require(n * len(s) <= _LISTED, f"{n:g} examples and {len(s)} rates", f"at most {_LISTED:g} rates are listed")
        rates, V = np.zeros((n, len(s))), np.ones(len(s))
        for t in range(n):
            rates[t] = V / (2.0 * s * V + s @ V + reduced.sigma2)
            V = V - s * rates[t] * V
        return StepRung(filter_floor(reduced).risk, rates, _KNOWN)
    _require(n <= _SEARCHED, f"{n:g} examples", f"a search takes {_SEARCHED} at most; schedule='own' takes more")
    value = partial(_rated, n=n, s=s, sigma2=reduced.sigma2, rho2=rho2)
    first = np.log(1.0 / (2.0 * s + M))
    low, high = first - np.log(_BELOW), first + np.log(_ABOVE)
    # the best constants shrink with n; a schedule starts from the first optimal rates
    starts = [np.maximum(first - shift, low) for shift in (0.0, 1.0, np.log(1.0 + n / len(s)))]
    if schedule == "common":
        low, high = np.append(low, np.log(1e-4)), np.append(high, np.log(10.0))
        starts = [np.append(start, np.log(rate)) for start, rate in zip(starts, (0.1, 0.03, 1e-3), strict=True)]
    x, risk, points = min((search(value, start, low, high, _MOST) for start in starts), key=lambda found: found[1])
    return StepRung(risk, np.exp(x), DeltaCertificate("search", points, None, attained=True))


def _rated(x: Float[Array, "G J"], *, n: int, s: Array, sigma2: float, rho2: float) -> Float[Array, " G"]:
    """Risks of rates exp(x[:, :d]), with a common schedule where there is one more column."""
    d = len(s)
    rates, slow = np.exp(x[:, :d]), np.exp(x[:, d:]) if x.shape[1] > d else 0.0
    # mean w θ of the state and the variance ν around it, direction by direction: sums of squares
    w, nu = np.zeros_like(rates), np.zeros_like(rates)
    for t in range(n):
        c = rates / (1.0 + slow * t)
        error = (1.0 - w) ** 2
        own = error + nu
        nu = (1.0 - c * s) ** 2 * nu + c * c * s * (s * own + (own @ s)[:, None] + sigma2)
        w = w + c * s * (1.0 - w)
    return np.asarray(sigma2 + (1.0 - rho2 * w**2 / (w**2 + nu)) @ s)


def key_copies(setting: MultitaskSetting | Reduced, ratio: float) -> StepRung:
    r"""RWKV-7 with a copy of the keys for each task, in K d channels, whose writes get smaller from task to task.

    The read key is $(c_1 x, \dots, c_K x)$ with $c_k = \text{ratio}^{K-k}$; an example of task k switches on the rates
    of the k-th copy alone: $b_k \leftarrow b_k - \beta_k x\,(x^\top \sum_l c_l b_l / c_k - y)$. What a task reads of
    earlier ones vanishes with the ratio, and one head becomes one head per task: for uncorrelated tasks without noise
    `filter_floor` is the limit of ratio → 0. `steps` are β, one for each task, searched; the read-out is the best.

    Args:
        setting: the data, Σ ∝ I.
        ratio: scale of one task over that of the next, in (0, 1].

    Raises:
        ValueError: if the ratio is out of its range, Σ is not a multiple of I, or there are more than 1000 examples.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=10)
    >>> for ratio in (1.0, 0.5, 0.1):
    ...     print(f"{ratio} {key_copies(setting, ratio).risk / 10:.4f}")
    1.0 0.6093
    0.5 0.6062
    0.1 0.6049
    """
    reduced = reduce(setting)
    require_isotropic(reduced, "copies of keys have an exact risk for Σ ∝ I alone: whiten x")
    _require(0.0 < ratio <= 1.0, f"ratio is {ratio:g}", "it lies above 0, at most 1")
    total, K = float(reduced.n.sum()), len(reduced.n)
    _require(total <= _SEARCHED, f"{total:g} examples", f"a search takes {_SEARCHED} at most")
    d, scale = len(reduced.s), float(reduced.s.mean())
    scales = ratio ** np.arange(K - 1, -1, -1.0)
    value = partial(_copied, reduced=reduced, scales=scales, d=d, sigma2=noise_share(reduced.sigma2, scale))
    first = np.full(K, -np.log(d + 2.0))
    starts = [first, first - np.log(2.0), *(first - 3.0 * np.eye(K)[k] for k in range(K))]
    found = [search(value, start, first - np.log(_BELOW), first + np.log(2.0), _MOST) for start in starts]
    x, risk, points = min(found, key=lambda one: one[1])
    certificate = DeltaCertificate("search", points, None, attained=True)
    return StepRung(reduced.sigma2 + scale * risk, np.exp(x) / scale, certificate)


def _copied(x: Float[Array, "G K"], *, reduced: Reduced, scales: Array, d: int, sigma2: float) -> Float[Array, " G"]:
    """Risks, but for σ² and in units of the features' variance, of rows of log steps; Gaussian keys."""
    R = np.column_stack((reduced.r, reduced.R))  # of each task with the query's and with all
    G, K = x.shape
    # E b_k'b_l / d and E b_k'θ_l / d: only the copy that is written changes
    a, m = np.zeros((G, K, K)), np.zeros((G, K, K + 1))
    for k, n in enumerate(reduced.n.astype(int).tolist()):
        c, beta = scales / scales[k], np.exp(x[:, k])
        for _ in range(n):
            read, seen = a @ c, np.einsum("l,gli->gi", c, m)  # of what the copies say together
            gain = (d + 2.0) * (read @ c - 2.0 * seen[:, k + 1] + 1.0) + sigma2
            own = a[:, k, k] + 2.0 * beta * (m[:, k, k + 1] - read[:, k]) + beta**2 * gain
            row = a[:, k] + beta[:, None] * (m[:, :, k + 1] - read)
            a[:, k], a[:, :, k] = row, row
            a[:, k, k] = own
            m[:, k] += beta[:, None] * (R[k] - seen)
    # the best read-out; the copies' sizes differ by the scales, so each is taken in its own unit
    unit = 1.0 / np.sqrt(np.einsum("gkk->gk", a))
    scaled, h = a * unit[:, :, None] * unit[:, None, :], m[:, :, 0] * unit
    return np.asarray(d * (1.0 - np.einsum("gk,gk->g", h, np.linalg.solve(scaled, h[:, :, None])[:, :, 0])))


def repeated_steps(setting: MultitaskSetting | Reduced, count: int) -> StepRung:
    r"""The best delta rule with several steps along each example's key (DeltaProduct with one key); one task, no noise.

    The best steps are the reciprocals of the zeros in |x|² of $L_c^{(d/2)}(|x|^2 / 2)$, a Laguerre polynomial, and each
    example leaves $1 - (1 - 1/\binom{d/2 + c}{c})/d$ of the error: (d+1)/(d+2) for one step, 1 - 1/d (`any_key_floor`)
    in the limit. Keys of length 1 gain nothing: two steps are one of $\beta_1 + \beta_2 - \beta_1 \beta_2$. `steps` is
    [count], in any order.

    Args:
        setting: the data, Σ ∝ I.
        count: steps for each example, at least 1.

    Raises:
        ValueError: if count < 1, there is more than one task, noise, or Σ is not a multiple of I.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[20], r=[1.0], d=10)
    >>> for count in (1, 2, 3):
    ...     found = repeated_steps(setting, count)
    ...     print(f"{found.risk:.6f}", found.steps.round(4))
    1.754805 [0.0833]
    1.351096 [0.1148 0.0518]
    1.264932 [0.1438 0.0683 0.0379]
    """
    reduced = reduce(setting)
    _require(
        count >= 1 and count == int(count), f"count is {count}", "an example takes a whole number of steps, from 1 on"
    )
    count = int(count)
    n = _one_task(reduced, "several steps per example")
    require_isotropic(reduced, "several steps per example have an exact risk for Σ ∝ I alone: whiten x")
    _require_noiseless(reduced, "several steps per example")
    d, scale = len(reduced.s), float(reduced.s.mean())
    # zeros of the Laguerre polynomial in |x|²/2: eigenvalues of its Jacobi matrix
    i = np.arange(1.0, count)
    off = np.sqrt(i * (i + d / 2.0))
    zeros = np.linalg.eigvalsh(np.diag(2.0 * np.arange(count) + d / 2.0 + 1.0) + np.diag(off, 1) + np.diag(off, -1))
    log_ways = lgamma(d / 2.0 + count + 1.0) - lgamma(d / 2.0 + 1.0) - lgamma(count + 1.0)
    known = -expm1(n * log1p(expm1(-log_ways) / d))
    rho2 = float(reduced.r[0]) ** 2
    return StepRung(scale * d * (1.0 - rho2 * known), 1.0 / (2.0 * scale * zeros), _KNOWN)


def rotating_delta_rule(setting: MultitaskSetting | Reduced) -> StepRung:
    r"""One head of the delta rule whose state turns at delimiters: `filter_floor`, exactly, for one or two tasks.

    2 d channels, keys (x_j, 0), the constant step 1/(d + 2), no decay, the paper's tokens. The first delimiter turns by
    arccos ρ, so that the second task's keys lie at the angle of the tasks' correlation to the first's. The turn before
    the query brings its own key a quarter turn from what is read: it erases nothing of its answer. Without rotation the
    gated delta rule stays at linear attention where earlier tasks count more.

    Raises:
        ValueError: if there are more than two tasks, noise, or Σ is not a multiple of I.

    Source: derived.

    >>> best = rotating_delta_rule(MultitaskSetting.isotropic(n=[10, 10], r=[0.8, 0.2], d=5))
    >>> print(f"{best.risk / 5:.4f} {best.steps[0]:.4f}", best.turns.round(3))
    0.4656 0.1429 [1.571 0.245]
    """
    reduced = reduce(setting)
    K, d = len(reduced.n), len(reduced.s)
    _require(K <= 2, f"{K} tasks", "a plane has room for the memories of two; use filter_floor for the bound")
    require_isotropic(reduced, "the rotating delta rule has an exact risk for Σ ∝ I alone: whiten x")
    _require_noiseless(reduced, "the rotating delta rule")
    r, rho = reduced.r, float(reduced.R[0, -1])
    turn = acos(max(-1.0, min(1.0, rho))) if K == 2 else 0.0
    first, second = np.array([1.0, 0.0]), np.array([cos(turn), sin(turn)])
    read = r[0] * first
    if K == 2 and 1.0 - rho * rho > _SAME:
        # the second task's examples also tell of the first: with ψ of its error left they carry κ of what they find
        psi = exp(-reduced.n[0] * log1p(1.0 / (d + 1.0)))
        kappa = rho * psi / (1.0 - rho * rho * (1.0 - psi))
        w = np.linalg.solve(reduced.R, r)
        read = w[0] * np.linalg.solve(np.stack((first, second)), [1.0, kappa]) + w[1] * second
    # the read-out vector of the last delimiter's frame: a quarter turn on lies the query's own key
    last = atan2(read[1], read[0]) + pi / 2.0 - turn
    turns = np.array([turn, last][-K:])
    steps, gain = np.array([1.0 / ((d + 2.0) * reduced.s.mean())]), float(np.linalg.norm(read))
    return StepRung(filter_floor(reduced).risk, steps, _KNOWN, turns, gain)


def _one_task(reduced: Reduced, what: str) -> int:
    _require(
        len(reduced.n) == 1, f"{len(reduced.n)} tasks", f"{what} is solved for one; use filter_floor for the bound"
    )
    return int(reduced.n[0])


def _require_noiseless(reduced: Reduced, what: str) -> None:
    _require(reduced.sigma2 == 0.0, f"sigma2 is {reduced.sigma2:g}", f"{what} is solved without noise, sigma2 = 0")


def _require(holds: bool, came: str, rule: str) -> None:
    if not holds:
        raise ValueError(f"{came}; {rule}")
