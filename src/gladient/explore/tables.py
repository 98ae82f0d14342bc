"""The tables and sentences of the page."""

from collections.abc import Sequence

from gladient._types import Array
from gladient.explore._ladder import COLOURS, Row
from gladient.landscape import Advantage, StationaryPoints, Uniqueness
from gladient.prompts import MultitaskSetting

__all__ = ["ladder", "sentences", "stationary"]

_STYLE = (
    "<style>.gladient{width:auto} .gladient td,.gladient th{padding:0.1rem 1rem 0.1rem 0;text-align:left} "
    ".gladient td{font-variant-numeric:tabular-nums} .gladient td:first-child{white-space:nowrap}</style>"
)
_REASONS = {
    "paper": "the paper's condition holds, by a margin of {margin:.4g}",
    "slope": "the slope of the fixed-point map is at most {slope:.4g}, below 1",
    "roots": "every fixed point was isolated",
    "trivial": "r = 0, so no weights help",
}


def ladder(rows: Sequence[Row], setting: MultitaskSetting) -> str:
    """One row per gate family, its risk also as a bar beside the risk of predicting 0, which fills the width."""
    most = max(setting.M, *(row.risk for row in rows))
    return _table(
        ("gates", "", "risk", "risk/d", "gain", "weight of one example of each task"),
        [
            (row.title, _bar(row, most), f"{row.risk:.6g}", f"{row.risk / setting.d:.4f}", f"{row.gain:.2%}", row.text)
            for row in rows
        ],
    )


def stationary(found: StationaryPoints) -> str:
    """One row per stationary point."""
    return _table(
        ("stationary point", "risk", "γ", "slope", "weight of one example of each task"),
        [
            (point.kind, f"{point.risk:.8g}", f"{point.gamma:.6g}", f"{point.slope:.4g}", _numbers(point.omega))
            for point in found.points
        ],
    )


def sentences(verdict: Uniqueness, gain: Advantage) -> str:
    """Whether the optimum is the only stationary point and why, and what gates gain."""
    if verdict.verdict == "several":
        unique = f"There are {verdict.count} stationary points; the optimum is the lowest."
    elif verdict.verdict == "undecided":
        unique = "It could not be decided whether the optimum is the only stationary point."
    else:
        reason = _REASONS[verdict.reason].format(margin=verdict.paper_margin, slope=verdict.slope_bound)
        unique = f"The optimum is the only stationary point: {reason}."
    if not gain.strict:
        return f"{unique} Gates gain nothing over linear attention."
    order = ", ".join(f"ω{k + 1} ≥ {f'ω{k}' if k else '0'}" for k in gain.binding)
    scalar = "a scalar gate reaches it" if gain.scalar_attains else f"a scalar gate does not reach it: {order} binds"
    return f"{unique} The best gates have a risk lower than linear attention's by {gain.gain:.4g}; {scalar}."


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"{_STYLE}<table class='gladient'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _bar(row: Row, most: float) -> str:
    filled = f"width:{100 * row.risk / most:.2f}%;height:0.9rem;background:{COLOURS[row.name]}"
    return f'<div style="width:11rem;background:#f1f4f8"><div style="{filled}"></div></div>'


def _numbers(values: Array) -> str:
    return " ".join(f"{value:.4g}" for value in values)
