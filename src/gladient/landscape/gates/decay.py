"""One gate γ for every token: the plateau at 1/2 and the best fixed decay."""

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.result import Certificate, Rung
from gladient.landscape.gates.scan import scan_rows
from gladient.prompts import MultitaskSetting

__all__ = ["fixed_decay", "half_gate"]

# Rates tried at once. A weight exp(-x) with x above 60 is nothing beside 1, so a weight that counts changes by a factor
# e over a sixtieth of its rate at the least; 4001 rates are a hundredth apart even for 10¹² examples. In 400 random
# settings a tenth of them finds the same minima.
_GRID = 4001


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
    # from where no weight of the prompt changes by more than 1e-6, to where e^-rate is nearly the least float64
    rates = np.concatenate(([0.0], np.geomspace(1e-6 / steps, 700.0, _GRID)))
    best = scan_rows(rates, lambda _, rate: (_risks(reduced, rate), rate[:, None]), 1)
    bracket = float(np.exp(-best.high[0])), float(np.exp(-best.low[0]))
    return _at(reduced, float(best.at[0]), Certificate(bracket=bracket))


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
    # counted from the last example of the last task: the factor common to all weights would underflow
    n, rate = reduced.n, rates[:, None]
    steps = np.cumsum((n + 1.0)[::-1])[::-1] - (n + 1.0)  # tokens between a task's last example and the last task's
    sums = np.exp(-rate * steps) * _geometric(rate, n)
    energy = np.exp(-2.0 * rate * steps) * _geometric(2.0 * rate, n)
    return sums, energy.sum(axis=1)


def _geometric(rate: Float[Array, "G 1"], n: Float[Array, " K"]) -> Float[Array, "G K"]:
    r"""$\sum_{i<n} e^{-i\,\text{rate}}$."""
    # (1 - e^(-n rate)) / (1 - e^-rate), both by expm1: near 0 the differences from 1 lose all digits
    safe = np.where(rate > 0.0, rate, 1.0)
    return np.where(rate > 0.0, np.expm1(-n * safe) / np.expm1(-safe), n)
