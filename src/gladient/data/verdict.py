"""Would gating help on these data? One verdict for each gate family, in words, from predicted beside measured."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gladient.data.cautions import FEW
from gladient.data.crossfitting import Compared, CrossFit
from gladient.data.culprits import Culprit, culprits

__all__ = ["GateVerdict", "Kind", "Verdicts", "judge"]

Kind = Literal["helps", "does not help", "cannot be told", "the model fails"]

BASE = "linear_attention"
SMALL = 0.01  # part of the risk of linear attention: nobody chooses a gate to lower an error by less
Z = 3.0  # standard errors between predicted and measured: ten such numbers are looked at, and two would cry wolf
WORSE = 1.25  # times the prediction: with 1 + few standard errors alone a risk near 1 would cross 1 by chance
# An interval of 95% leaves 0 out in four of five repetitions if the truth is 1.96 + 0.84 standard errors from 0.
POWER = 2.8


@dataclass(frozen=True)
class GateVerdict:
    """What the data say of one gate family.

    Attributes:
        kind: helps, does not help, cannot be told, or the model fails.
        text: the verdict in a sentence, with its numbers.
        prompts: about how many would tell, where it cannot be told.
        culprits: the assumptions that the data break, where the model fails.
    """

    kind: Kind
    text: str
    prompts: int | None = None
    culprits: tuple[Culprit, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Its parts."""
        return asdict(self)


@dataclass(frozen=True)
class Verdicts:
    """The answer to "would gating help on these data?", and the verdict on each gate family.

    Attributes:
        kind: of the answer.
        text: the answer in a sentence or two.
        gate: the family that it speaks of; the last if of all.
        gates: verdicts by gate family.
    """

    kind: Kind
    text: str
    gate: str
    gates: Mapping[str, GateVerdict]


def judge(found: CrossFit) -> Verdicts:
    """The verdict on each gate family, and one answer for all.

    A gate *helps* if the interval of its measured gain lies above 0 and reaches a hundredth of linear attention's risk;
    it *does not help* if the interval ends below that; it *cannot be told* if the interval holds both. *The model
    fails* where predicted and measured differ by more than three standard errors, in the risk or the gain of the gate
    or in the risk of linear attention, or where the measured risk is above 1, worse than one fit to all, and not
    predicted to be.

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
    gates = {name: _verdict(found, name) for name in found.gains if name != BASE}
    return Verdicts(*_answer(found, gates), gates)


def _verdict(found: CrossFit, name: str) -> GateVerdict:
    gain, small = found.gains[name], SMALL * abs(found.risks[BASE].measured)
    broken = _broken(found, name)
    if broken:
        return GateVerdict("the model fails", f"{broken}. The {_measured(gain)}", culprits=culprits(found, name))
    share = gain.measured / found.risks[BASE].measured
    if gain.low > 0.0 and gain.high >= small:
        return GateVerdict("helps", f"lowers the risk by {gain.measured:.4g} ({_interval(gain)}), {share:.1%} of it")
    if gain.high < small:
        return GateVerdict("does not help", f"changes the risk by less than {SMALL:.0%} of it. The {_measured(gain)}")
    needed = _needed(gain, small, found.prompts)
    few = f", and {found.estimated.clusters} clusters are few" if found.estimated.clusters < FEW else ""
    why = (
        f"the {_measured(gain)}, which holds both 0 and {SMALL:.0%} of the risk{few}; about {needed} prompts would tell"
    )
    return GateVerdict("cannot be told", why, prompts=needed)


def _broken(found: CrossFit, name: str) -> str:
    """In which way predicted and measured disagree, the worst first; nothing if they do not."""
    base, risk, gain = found.risks[BASE], found.risks[name], found.gains[name]
    named = {"the risk": risk, "the risk of linear attention": base}
    for what, each in named.items():
        if _is_worse(each):
            measured = f"{what} is measured {each.measured:.4g}, worse than one fit to all (1)"
            return f"{measured}, and predicted {each.predicted:.4g}"
    for what, each in (named | {"the gain": gain}).items():
        if abs(each.z) > Z and abs(each.predicted - each.measured) > SMALL * abs(base.measured):
            predicted = f"{each.predicted:.4g} ± {each.predicted_error:.2g}"
            measured = f"{each.measured:.4g} ± {each.measured_error:.2g}"
            return f"{what} is predicted {predicted} and measured {measured}, {abs(each.z):.1f} standard errors apart"
    return ""


def _is_worse(risk: Compared) -> bool:
    # without the measured one's own error, which the prompt that makes the risk large makes large as well
    beyond = max(1.0, WORSE * risk.predicted, risk.predicted + 2.0 * risk.predicted_error)
    return risk.measured > beyond


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
        worst = gates[failing[0]]
        blamed = _blamed(worst.culprits)
        return "the model fails", f"Do not trust the prediction: {worst.text}. {blamed}", failing[0]
    unknown = by_kind["cannot be told"]
    if unknown:
        most = max(unknown, key=lambda name: found.gains[name].measured)
        return "cannot be told", f"It cannot be told from these data: for a {_title(most)}, {gates[most].text}.", most
    return "does not help", f"No: no gate lowers the risk of linear attention by {SMALL:.0%} of it.", list(gates)[-1]


def _blamed(found: tuple[Culprit, ...]) -> str:
    if not found:
        return "No known culprit was found; noise that a task's examples share would be one."
    return f"The likely culprit: {found[0]}."


def _title(name: str) -> str:
    return name.replace("_", " ")


def _listed(names: list[str]) -> str:
    *first, last = map(_title, names)
    return f"{', '.join(first)} and the {last}" if first else last


def _measured(gain: Compared) -> str:
    return f"measured gain is {gain.measured:.4g} ({_interval(gain)})"


def _interval(each: Compared) -> str:
    return f"95%: {each.low:.3g} to {each.high:.3g}"
