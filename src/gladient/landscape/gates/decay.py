"""One gate γ for every token: the plateau at 1/2 and the best fixed decay."""

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import Certificate, Rung
from gladient.prompts import MultitaskSetting

__all__ = ["fixed_decay", "half_gate"]

_GRID = 4001  # rates tried at once: weights that matter change by e over a rate's sixtieth part at the least


def half_gate(setting: MultitaskSetting | Reduced) -> Rung:
    """The gate 1/2 on every token: where a sigmoid gate with zero weights and no bias sits.

    Delimiters and the query's own token count as steps.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)
    >>> print(f"{half_gate(setting).risk:.10f}")
    8.6285714826
    """
    return _at(reduce(setting), float(np.log(2.0)), Certificate())


def fixed_decay(setting: MultitaskSetting | Reduced) -> Rung:
    r"""Best fixed decay $\omega_i = \gamma^{n-i}$ over γ in [0, 1] (RetNet); γ = 1 is linear attention.

    The decay acts on every token: delimiters and the query count as steps. γ → 0 keeps the last example alone. The risk
    need not have a single minimum: a grid of rates -log γ over all scales is refined around each of its minima.

    Source: derived.

    >>> best = fixed_decay(MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10))
    >>> print(f"{best.risk:.10f} {best.gamma:.6f}")
    5.4327053932 0.958951
    """
    reduced = reduce(setting)
    steps = float(np.sum(reduced.n + 1.0))
    rates = np.concatenate(([0.0], np.geomspace(1e-6 / steps, 700.0, _GRID)))
    risks = _risks(reduced, rates)
    fenced = np.concatenate(([np.inf], risks, [np.inf]))
    minima = np.flatnonzero((risks < fenced[:-2]) & (risks <= fenced[2:]))
    promising = minima[np.argsort(risks[minima])[:8]]  # the rest is rounding on flat stretches
    return min((_refined(reduced, rates, int(i)) for i in promising), key=lambda found: found.risk)


def _refined(reduced: Reduced, rates: Array, i: int) -> Rung:
    """Zoom into the neighbours of the i-th rate until they agree to half the digits; the risk then has all of them."""
    low, high = rates[max(i - 1, 0)], rates[min(i + 1, len(rates) - 1)]
    best = rates[i]
    while high - low > max(1e-9 * high, 1e-12 / np.sum(reduced.n)):
        fine = np.append(np.linspace(low, high, 33), best)
        fine.sort()
        i = int(np.argmin(_risks(reduced, fine)))
        low, best, high = fine[max(i - 1, 0)], fine[i], fine[min(i + 1, len(fine) - 1)]
    return _at(reduced, float(best), Certificate(bracket=(float(np.exp(-high)), float(np.exp(-low)))))


def _at(reduced: Reduced, rate: float, certificate: Certificate) -> Rung:
    sums, energy = _sums(reduced, np.array([rate]))
    m = reduced.summed_moments(sums[0], float(energy[0]))
    return Rung(
        risk=reduced.risk(m),
        omega=sums[0] / reduced.n,
        certificate=certificate,
        reduced=reduced,
        moments=m,
        gamma=float(np.exp(-rate)),
    )


def _risks(reduced: Reduced, rates: Float[Array, " G"]) -> Float[Array, " G"]:
    """Profile risks of many rates at once."""
    sums, energy = _sums(reduced, rates)
    signal = sums @ reduced.r
    excess = np.clip(np.sum((sums @ reduced.unexplained) * sums, axis=1), 0.0, None)
    return reduced.risks(signal, excess, energy)


def _sums(reduced: Reduced, rates: Float[Array, " G"]) -> tuple[Float[Array, "G K"], Float[Array, " G"]]:
    """Each task's sum of weights, and the total of the squared weights; the last example of the last task weighs 1."""
    n, rate = reduced.n, rates[:, None]
    steps = np.cumsum((n + 1.0)[::-1])[::-1] - (n + 1.0)  # tokens between a task's last example and the last task's
    sums = np.exp(-rate * steps) * _geometric(rate, n)
    energy = np.exp(-2.0 * rate * steps) * _geometric(2.0 * rate, n)
    return sums, energy.sum(axis=1)


def _geometric(rate: Float[Array, "G 1"], n: Float[Array, " K"]) -> Float[Array, "G K"]:
    r"""$\sum_{i<n} e^{-i\,\text{rate}}$."""
    safe = np.where(rate > 0.0, rate, 1.0)
    return np.where(rate > 0.0, np.expm1(-n * safe) / np.expm1(-safe), n)
