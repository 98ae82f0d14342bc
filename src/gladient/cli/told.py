"""The answer of `gladient data` as text: the verdict, then predicted beside measured in aligned columns."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from gladient._text import plus_minus, printable

if TYPE_CHECKING:
    from gladient.data import Answer, Baseline, Compared, CrossFit, Estimated

__all__ = ["told"]

_HEADS = ["gate", "risk", "measured", "z", "gain", "measured", "z", "weight of one example"]


def told(answer: "Answer", beside: "Mapping[str, Baseline]", roles: tuple[str, ...]) -> str:
    """The whole answer.

    Args:
        answer: verdicts and what was measured.
        beside: predictors without gates.
        roles: names of the sources' roles.
    """
    from gladient.data.ungated import lower_risk

    lower, found = lower_risk(answer.found, beside), answer.found
    lines = [f"would gating help on these data? {answer.verdicts.text}"]
    lines += [f"without gates, {lower}"] if lower else []
    rows = [_HEADS] if found is not None else [["without gates", "", "measured"]] if beside else []
    if found is not None:
        rows += [_row(found, name) for name in found.gates]
    rows += [[name, "", each.text] for name, each in beside.items() if not each.note]
    lines += ["", *_aligned(rows)] if rows else []
    lines += [f"{name}: {each.note}" for name, each in beside.items() if each.note]
    if found is not None:
        lines += _below(answer, found, roles)
    lines.append("risk: of 1, the mean square that one fit to all examples leaves; gain: over linear attention")
    return "\n".join(map(printable, [*lines, *(found.warnings if found else ())]))  # roles are the table's own text


def _row(found: "CrossFit", name: str) -> list[str]:
    gate = found.gates[name]
    cells = [name, *_compared(found.risks[name]), *_compared(found.gains[name])]
    if gate.omega.ndim == 2:
        return [*cells, "one for each direction"]
    return [*cells, *(f"{w:.2f} ± {error:.2f}" for w, error in zip(gate.omega, gate.omega_error, strict=True))]


def _below(answer: "Answer", found: "CrossFit", roles: tuple[str, ...]) -> list[str]:
    setting, errors = found.estimated.setting, found.estimated.standard_errors
    lines = [f"{name}: {verdict.kind}: {verdict.text}" for name, verdict in answer.verdicts.gates.items()]
    lines += [f"in doubt: {each}" for each in answer.verdicts.culprits]
    r = "  ".join(f"{role} {plus_minus(*pair)}" for role, *pair in zip(roles, setting.r, errors["r"], strict=True))
    return [*lines, f"correlation with the query's task: {r}", _proved(found.estimated)]


def _proved(estimated: "Estimated") -> str:
    """What the theory proves of the best weights at the estimate, with the features' own moments."""
    from gladient.landscape import advantage, uniqueness

    reduced = estimated.reduced()
    verdict, gating = uniqueness(reduced).verdict, advantage(reduced)
    optimum = {"unique": "the only stationary point", "several": "the best of several stationary points"}
    scalar = "reaches them" if gating.scalar_attains else f"stays {gating.scalar_gap:.4f} above them"
    return f"best weights at this estimate: {optimum.get(verdict, 'no better ones exist')}; a scalar gate {scalar}"


def _compared(each: "Compared") -> list[str]:
    z = f"{round(each.z, 1) + 0.0:.1f}"  # + 0.0 makes -0.0 a 0.0
    return [plus_minus(each.predicted, each.predicted_error), plus_minus(each.measured, each.measured_error), z]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns as wide as their widest cell, the first to the left; a last cell hangs over.

    >>> _aligned([["a", "risk"], ["gate", "1"]])
    ['a     risk', 'gate     1']
    """
    widths = [max(map(len, column)) for column in zip_longest(*(row for row in rows), fillvalue="")]
    return [
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
