"""The best delta rule and the best gated delta rule: a scan over the step, the gates solved inside."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from gladient._types import Array
from gladient.landscape._delta import delta_model
from gladient.landscape._delta_diagonal import Diagonal
from gladient.landscape._delta_gates import best_decays, ratios
from gladient.landscape._delta_isotropic import Isotropic
from gladient.landscape._delta_search import Found, Score, scan, search
from gladient.landscape._reduced import Reduced, reduce
from gladient.landscape._rungs import optimum_rung, scalar_rung
from gladient.prompts import MultitaskSetting

__all__ = ["DeltaCertificate", "DeltaRung", "delta_rule", "delta_rung", "gated_delta_rule", "gated_delta_rung"]

_STARTS = 3  # directions of steps that a search begins along
_MOST = 6000  # risks that a search looks at
_LARGE = 100  # tasks times directions, for other Σ, above which gates are not searched


@dataclass(frozen=True)
class DeltaCertificate:
    """How the best step was searched. No proof: the risk can have several dips in the step.

    Attributes:
        kind: "scan": a grid over all scales of one step, every minimum of the grid refined, the gates exact for each
            step. "search": several steps, or gates with Σ not ∝ I, from several starts: the risk is exact, and an upper
            bound of the best. "closed form": the step was given.
        points: steps of the grid, or risks that the search looked at.
        bracket: the steps between which the best one lies; None for a search.
        attained: whether a step > 0 has this risk; if not, it is the limit of small steps, and `steps` are 0.
    """

    kind: Literal["scan", "search", "closed form"]
    points: int
    bracket: tuple[float, float] | None
    attained: bool


@dataclass(frozen=True, eq=False)
class DeltaRung:
    """The best that a delta rule can do: `delta_risk(setting, steps, decays=decays)` gives `risk` back.

    Attributes:
        risk: expected squared error of the query's prediction.
        steps: β of each task, [K]; all 0: the limit of small steps, gated linear attention.
        decays: what each task's delimiter leaves of the state, [K]; the last one is 1.
        certificate: how they were found.
    """

    risk: float
    steps: Float[Array, " K"]
    decays: Float[Array, " K"]
    certificate: DeltaCertificate


def delta_rule(setting: MultitaskSetting, *, keys: str = "gaussian") -> DeltaRung:
    """Best constant step without gates (DeltaNet); a step of 0 is linear attention.

    The step is found by a scan: 10 steps per factor e from a thousandth of where the first effect of a step shows up to
    the bound of stability, each minimum of the grid refined. A dip that is narrower than a tenth of its own step could
    be missed. Keys and the other arguments are those of `delta_risk`.

    Source: derived.

    >>> best = delta_rule(MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10))
    >>> print(f"{best.risk:.6f} {best.steps[0]:.5f}")
    3.675879 0.04728
    """
    return delta_rung(reduce(setting), keys)


def gated_delta_rule(setting: MultitaskSetting, per_task: bool = False, *, keys: str = "gaussian") -> DeltaRung:
    """Best step and best decays of the delimiters (Gated DeltaNet, its gates closed between tasks alone).

    For Σ ∝ I the decays are exact for each step (the cone problem of the scalar gate), and the step is scanned as in
    `delta_rule`. One step per task (`per_task`), and gates with other Σ, are searched from several starts: an upper
    bound. For other Σ with K d > 100 the better of no decays and the scalar gate's decays is taken, with its best step.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10)
    >>> best, free = gated_delta_rule(setting), gated_delta_rule(setting, per_task=True)
    >>> print(f"{best.risk:.6f} {best.steps[0]:.5f} {best.decays[0]:.4f}; {free.risk:.6f}", free.steps.round(4))
    3.663549 0.04625 0.7441; 3.661821 [0.0833 0.0446]
    """
    return gated_delta_rung(reduce(setting), keys, per_task)


def delta_rung(reduced: Reduced, keys: str = "gaussian") -> DeltaRung:
    """`delta_rule` of a reduced setting."""
    model = delta_model(reduced, keys)
    return _constant(model, _score_ungated(model), len(reduced.n))


def gated_delta_rung(
    reduced: Reduced, keys: str = "gaussian", per_task: bool = False, start: DeltaRung | None = None
) -> DeltaRung:
    """`gated_delta_rule` of a reduced setting; `start` is its `delta_rung` if that is known."""
    model = delta_model(reduced, keys)
    if isinstance(model, Isotropic):
        best = _constant(model, lambda steps: best_decays(model, steps), len(reduced.n))
        return _per_task(model, best, reduced) if per_task else best
    return _searched(model, start or delta_rung(reduced, keys), reduced, per_task)


def _score_ungated(model: Isotropic | Diagonal) -> Score:
    def score(steps: Array) -> tuple[Array, Array]:
        ones = np.ones(steps.shape)
        return model.risks(steps, ones), ones

    return score


def _constant(model: Isotropic | Diagonal, score: Score, K: int) -> DeltaRung:
    found, grid, bracket = scan(model, lambda beta: score(np.repeat(beta[:, None], K, axis=1)), K)
    low, high = (float(end * model.step_unit) for end in bracket)
    return _rung(model, found, DeltaCertificate("scan", grid, (low, high), bool(found.steps[0] > 0.0)))


def _per_task(model: Isotropic, constant: DeltaRung, reduced: Reduced) -> DeltaRung:
    """From the constant step, the critical one, the best weights of a value gate, and each task left out."""
    K, points = len(reduced.n), 0
    omega = optimum_rung(reduced).omega
    lines = [*np.maximum([omega, -omega], 0.0), *(1.0 - np.eye(K))]
    scanned = [
        (scan(model, lambda c, line=line: best_decays(model, c[:, None] * line), K)[0], line)
        for line in lines
        if line.any()
    ]
    scanned.sort(key=lambda one: one[0].risk)
    starts = [constant.steps / model.step_unit, np.full(K, model.critical)]
    starts += [found.steps * line for found, line in scanned[:_STARTS]]
    low, high = np.full(K, np.log(1e-9 * model.bound / np.sum(model.n))), np.full(K, np.log(model.bound))
    best, least = starts[0], np.inf
    for start in starts:
        log_steps, value, count = search(
            lambda x: best_decays(model, np.exp(x))[0], np.log(_positive(start, model)), low, high, K, _MOST
        )
        points += count
        if value < least:
            best, least = np.minimum(np.exp(log_steps), model.bound), value
    if least >= constant.risk:
        limit = DeltaCertificate("search", points, None, constant.certificate.attained)
        return DeltaRung(constant.risk, constant.steps, constant.decays, limit)
    risks, decays = best_decays(model, best[None])
    return _rung(model, Found(float(risks[0]), best, decays[0]), DeltaCertificate("search", points, None, True))


def _positive(steps: Array, model: Isotropic | Diagonal) -> Array:
    """Steps whose logarithm can be taken: 0 is so small that nothing changes."""
    return np.maximum(steps, 1e-6 * model.bound / float(np.sum(model.n)))


def _searched(model: Diagonal, constant: DeltaRung, reduced: Reduced, per_task: bool) -> DeltaRung:
    """Steps and decays of any Σ together, from the best step without gates and from the scalar gate's decays."""
    K = len(reduced.n)
    gates = ratios(scalar_rung(reduced).omega[None])[0]
    gated, points, _ = scan(model, lambda beta: _with_decays(model, beta, gates), K)
    best = Found(constant.risk, constant.steps / model.step_unit, constant.decays)
    best, other = sorted((best, gated), key=lambda found: found.risk)
    J = K if per_task else 1
    low = np.concatenate((np.full(J, np.log(1e-9 * model.bound / np.sum(model.n))), np.zeros(K - 1)))
    high = np.concatenate((np.full(J, np.log(model.bound)), np.ones(K - 1)))

    def parts(x: Array) -> tuple[Array, Array]:
        steps = np.minimum(np.broadcast_to(np.exp(x[:, :J]), (len(x), K)), model.bound)
        return steps, np.column_stack((x[:, J:], np.ones(len(x))))

    small = K * len(model.s) <= _LARGE
    for start in (best, other) if small else ():
        x = np.concatenate((np.log(_positive(start.steps[:J], model)), start.decays[:-1]))
        x, value, count = search(lambda x: model.risks(*parts(x)), x, low, high, J, _MOST)
        points += count
        if value < best.risk:
            steps, decays = parts(x[None])
            best = Found(value, steps[0], decays[0])
    return _rung(model, best, DeltaCertificate("search", points, None, bool(best.steps.any())))


def _with_decays(model: Diagonal, beta: Array, decays: Array) -> tuple[Array, Array]:
    steps = np.repeat(beta[:, None], len(decays), axis=1)
    rows = np.broadcast_to(decays, steps.shape)
    return model.risks(steps, rows), rows


def _rung(model: Isotropic | Diagonal, found: Found, certificate: DeltaCertificate) -> DeltaRung:
    return DeltaRung(found.risk, found.steps * model.step_unit, found.decays, certificate)
