"""Pictures of a comparison, narrow enough for a phone: gains, weights, and the errors of single prompts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gladient._text import printable
from gladient.data.cautions import called
from gladient.data.crossfitting import CrossFit
from gladient.data.verdict import BASE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_errors", "draw_gains", "draw_weights"]

_WIDTH = 4.2  # inches: 400 pixels, so that letters keep their size on a phone
_POINTS = 200  # of a curve over ranks: as many as such a picture can tell apart
_NAMED = 3


def draw_gains(found: CrossFit) -> "Figure":
    """Predicted and measured gains of each gate family, with 95% intervals."""
    from gladient.pictures import INK, PALE, family

    figure, axis = _axis(2.6)
    gates = [name for name in found.gains if name != BASE]
    gains = [found.gains[gate] for gate in gates]
    both = list(zip(gains, (found.gates[gate] for gate in gates), strict=True))
    places = np.arange(len(gates))
    axis.errorbar(
        [gain.predicted for gain in gains],
        places - 0.12,
        xerr=np.array([(gain.predicted - own.gain_low, own.gain_high - gain.predicted) for gain, own in both]).T.clip(
            0
        ),
        fmt="o",
        color=PALE,
        label="predicted",
    )
    measured = np.array([gain.measured for gain in gains])
    ends = np.array([[gain.low, gain.high] for gain in gains])
    # an interval that is not finite or does not hold its mean would stop the drawing
    sides = np.nan_to_num(np.abs(ends - measured[:, None]).T)
    axis.errorbar(measured, places + 0.12, xerr=sides, fmt="o", color=INK, label="measured")
    axis.axvline(0.0, color=INK, linewidth=0.8)
    axis.set_yticks(places, [family(gate).title for gate in gates])
    axis.invert_yaxis()
    axis.set_xlabel("gain over linear attention, 95% intervals")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def draw_weights(found: CrossFit, roles: Sequence[str]) -> "Figure":
    """The weight of one example of each source, with 95% intervals."""
    from gladient.pictures import INK, family

    figure, axis = _axis(2.6)
    gates = {name: gate for name, gate in found.gates.items() if gate.omega.ndim == 1 and name != BASE}
    for k, (name, gate) in enumerate(gates.items()):
        look = family(name)
        axis.errorbar(
            np.arange(len(roles)) + 0.1 * (k - (len(gates) - 1) / 2),
            gate.omega,
            yerr=1.96 * np.nan_to_num(gate.omega_error),
            fmt=look.marker,
            color=look.colour,
            label=look.title,
        )
    axis.axhline(0.0, color=INK, linewidth=0.8)
    axis.set_xticks(range(len(roles)), [role if len(role) < 16 else f"{role[:14]}…" for role in roles])
    axis.set_ylabel("weight of one example")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def draw_errors(found: CrossFit) -> "Figure":
    """Held-out errors of the prompts in order of their size, with and without gates; the largest are named."""
    from gladient.pictures import INK, family

    figure, axis = _axis(2.6)
    for name in (BASE, "value_gate"):
        errors, look = np.sort(found.errors[name])[::-1], family(name)
        ranks = np.unique(np.geomspace(1, len(errors), _POINTS).astype(int))
        axis.plot(ranks, errors[ranks - 1].clip(1e-12), ".-", color=look.colour, label=look.title, markersize=4)
    errors = found.errors["value_gate"]
    worst = [printable(called(found.of.split.names, place)) for place in np.argsort(-errors)[:_NAMED].tolist()]
    axis.annotate(
        "\n".join(name if len(name) < 36 else f"{name[:34]}…" for name in worst),
        (1.0, 1.0),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=7,
    )
    axis.axhline(1.0, color=INK, linewidth=0.8, linestyle=":")  # one fit to all
    axis.set(xscale="log", yscale="log", xlabel="prompts, the largest error first", ylabel="squared error of a prompt")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return figure


def _axis(height: float) -> tuple["Figure", "Axes"]:
    from gladient.pictures import blank, frame

    figure = blank(_WIDTH, height)
    axis = figure.subplots()
    frame(axis, grid=False)
    return figure, axis
