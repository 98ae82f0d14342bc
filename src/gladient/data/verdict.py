"""Would gating help on these data? One verdict for each gate family, in words, from predicted beside measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gladient.data.agreement import BASE, SMALL, Drift, Z, apart, drift_of
from gladient.data.cautions import FEW
from gladient.data.crossfitting import Compared, CrossFit
from gladient.data.culprits import Culprit, culprits
from gladient.data.refusal import RefusedError

__all__ = ["GateVerdict", "Kind", "Verdicts", "judge", "judge_refusal"]

Kind = Literal["helps", "does not help", "cannot be told", "the model fails"]

# An interval of 95% leaves 0 out in four of five repetitions if the truth is 1.96 + 0.84 standard errors from 0.
POWER = 2.8


@dataclass(frozen=True)
class GateVerdict:
    """What the data say of one gate family.

    Attributes:
        kind: helps, does not help, cannot be told, or the model fails.
        text: the verdict in a sentence, with its numbers.
        prompts: about how many would tell, where it cannot be told.
    """

    kind: Kind
    text: str
    prompts: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Its parts."""
        return asdict(self)


@dataclass(frozen=True)
class Verdicts:
    """The answer to "would gating help on these data?", and the verdict on each gate family.

    Attributes:
        kind: of the answer.
        text: the answer in a sentence or two.
        gate: the family that it speaks of; the last if of all, "" if none was measured.
        gates: verdicts by gate family; none if the prompts tell no setting.
        culprits: the assumptions that the data break, the likeliest first.
    """

    kind: Kind
    text: str
    gate: str
    gates: Mapping[str, GateVerdict]
    culprits: tuple[Culprit, ...] = ()


def judge(found: CrossFit) -> Verdicts:
    """The verdict on each gate family, and one answer for all.

    A gate *helps* if the interval of its measured gain lies above 0 and reaches a hundredth of linear attention's risk;
    it *does not help* if the interval ends below that; it *cannot be told* if the interval holds both. *The model
    fails* where predicted and measured differ by more than three standard errors, in the risk or the gain of the gate
    or in the risk of linear attention; where the measured risk is above 1, what one fit leaves of its own prompts, and
    not predicted to be; or where it cannot be told and measured risks rise or fall beside the predicted ones along the
    clusters.

    >>> import numpy as np
    >>> from gladient.data import Prompt, cross_fit
    >>> rng = np.random.default_rng(0)
    >>> def prompt():
    ...     old, new = rng.normal(size=(2, 2))
    ...     X = rng.normal(size=(3, 8, 2))
    ...     old, new, query = [(x, x @ beta + rng.normal(size=8)) for x, beta in zip(X, [old, new, new])]
    ...     return Prompt([old, new], query)
    >>> judge(cross_fit([prompt() for _ in range(100)])).kind
    'helps'
    """
    drift = drift_of(found)
    gates = {name: _verdict(found, name, drift) for name in found.gains if name != BASE}
    kind, text, gate = _answer(found, gates)
    blamed = culprits(found, gate, drift)
    return Verdicts(kind, " ".join([text, *_blamed(kind, blamed)]), gate, gates, blamed)


def judge_refusal(refused: RefusedError, prompts: int) -> Verdicts:
    """The answer where the prompts tell no setting.

    That no weights help is said where it is shown: no step gains more over the one fit to all than the variance of the
    tasks' coefficients, so an upper end of that variance below a hundredth shows it.

    Args:
        refused: why.
        prompts: how many there are.

    >>> judge_refusal(RefusedError("tasks do not differ", variance=-0.001, error=0.002), 1000).kind
    'does not help'
    """
    kind, text = _refusal(refused, prompts)
    return Verdicts(kind, text, "", {})


def _refusal(refused: RefusedError, prompts: int) -> tuple[Kind, str]:
    variance, error, reason = refused.variance, refused.error, refused.reason
    if variance is None or not refused.plain:
        return "cannot be told", f"It cannot be told from these data: {reason}."
    if variance < -Z * error:
        return "the model fails", f"Do not trust the model: a variance cannot be below 0, and {reason}."
    if variance > -2.0 * error and variance + 2.0 * error < SMALL:
        most = max(0.0, variance + 2.0 * error)
        return "does not help", (
            f"No: coefficients that differ from task to task make at most {most:.2%} of the labels' mean square (95%), "
            "and no weights gain more than that over one fit to all."
        )
    needed = _rounded(max(2.0 * prompts, prompts * (2.0 * error / SMALL) ** 2))
    return "cannot be told", f"It cannot be told from these data: {reason} (about {needed})."


def _verdict(found: CrossFit, name: str, drift: Drift | None) -> GateVerdict:
    gain, small = found.gains[name], SMALL * abs(found.risks[BASE].measured)
    share = gain.measured / found.risks[BASE].measured
    broken = apart(found, name)
    if broken:
        return GateVerdict("the model fails", f"{broken}. The {_measured(gain)}")
    if gain.low > 0.0 and gain.high >= small:
        return GateVerdict("helps", f"lowers the risk by {gain.measured:.4g} ({_interval(gain)}), {share:.1%} of it")
    if gain.high < small:
        return GateVerdict("does not help", f"changes the risk by less than {SMALL:.0%} of it. The {_measured(gain)}")
    # Last: what was measured over all the clusters stands, though no prediction does. Seasons, which come again, leave
    # those for whole years right.
    if drift is not None and drift.rises:
        return GateVerdict("the model fails", f"{drift.text}. The {_measured(gain)}")
    needed = _needed(gain, small, found.prompts)
    few = f", and {found.estimated.clusters} clusters are few" if found.estimated.clusters < FEW else ""
    why = (
        f"the {_measured(gain)}, which holds both 0 and {SMALL:.0%} of the risk{few}; about {needed} prompts would tell"
    )
    return GateVerdict("cannot be told", why, prompts=needed)


def _needed(gain: Compared, small: float, prompts: int) -> int:
    target = max(gain.predicted, small)
    count = prompts * (POWER * gain.measured_error / target) ** 2 if target else 0.0
    return _rounded(max(count, 2.0 * prompts))  # fewer than twice as many would hardly change the interval


def _rounded(count: float) -> int:
    """To two digits.

    >>> _rounded(12345.6)
    12000
    """
    return int(float(f"{min(count, 1e15):.1e}"))


def _answer(found: CrossFit, gates: Mapping[str, GateVerdict]) -> tuple[Kind, str, str]:
    by_kind: dict[Kind, list[str]] = {"helps": [], "the model fails": [], "cannot be told": [], "does not help": []}
    for name, verdict in gates.items():
        by_kind[verdict.kind].append(name)
    failing = by_kind["the model fails"]
    if by_kind["helps"]:
        best = max(by_kind["helps"], key=lambda name: found.gains[name].low)
        but = f" The model fails for the {_listed(failing)}." if failing else ""
        return "helps", f"Yes: a {_title(best)} {gates[best].text}.{but}", best
    if failing:
        return "the model fails", f"Do not trust the prediction: {gates[failing[0]].text}.", failing[0]
    unknown = by_kind["cannot be told"]
    if unknown:
        most = max(unknown, key=lambda name: found.gains[name].measured)
        return "cannot be told", f"It cannot be told from these data: for a {_title(most)}, {gates[most].text}.", most
    return "does not help", f"No: no gate lowers the risk of linear attention by {SMALL:.0%} of it.", list(gates)[-1]


def _blamed(kind: Kind, found: tuple[Culprit, ...]) -> list[str]:
    """What the answer says of the assumptions that the data break."""
    if kind == "the model fails":
        return [
            f"The likely culprit: {found[0]}."
            if found
            else "No known culprit was found; noise that a task's examples share would be one."
        ]
    if kind == "cannot be told":
        return [f"A likely reason: {found[0]}." for _ in found[:1]]
    return [f"But the data drift: {each.message}." for each in found if each.kind == "drift"]


def _title(name: str) -> str:
    return name.replace("_", " ")


def _listed(names: list[str]) -> str:
    *first, last = map(_title, names)
    return f"{', '.join(first)} and the {last}" if first else last


def _measured(gain: Compared) -> str:
    return f"measured gain is {gain.measured:.4g} ({_interval(gain)})"


def _interval(each: Compared) -> str:
    return f"95%: {each.low:.3g} to {each.high:.3g}"
