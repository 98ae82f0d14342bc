"""The tables of the page."""

from collections.abc import Sequence

from gladient._types import Array
from gladient.answers import STACK_MEANINGS, Answer, StackAnswer
from gladient.landscape import StationaryPoints
from gladient.pictures import family
from gladient.prompts import MultitaskSetting

__all__ = ["ladder", "layers", "stationary"]

_STYLE = (
    "<style>.gladient{width:auto} .gladient td,.gladient th{padding:0.1rem 1rem 0.1rem 0;text-align:left} "
    ".gladient td{font-variant-numeric:tabular-nums} .gladient td:first-child{white-space:nowrap}</style>"
)


def ladder(rows: Sequence[Answer], setting: MultitaskSetting) -> str:
    """One row per gate family, its risk also as a bar beside the risk of predicting 0, which fills the width."""
    most = max(setting.M, *(row.risk for row in rows))
    return _table(
        ("gates", "", "risk", "risk/M", "gain", "weight of one example of each task"),
        [
            (row.title, _bar(row, most), f"{row.risk:.6g}", f"{row.risk / setting.M:.4f}", f"{row.gain:.2%}", row.text)
            for row in rows
        ],
    )


def layers(rows: Sequence[StackAnswer], setting: MultitaskSetting) -> str:
    """One row per kind of stack, then what no depth goes below and the delta rule."""
    return _table(
        ("layers", "gates", "risk", "risk/M", "gain", "what it is"),
        [
            (
                "any" if row.name == "floor" else str(row.layers or 1),
                row.name.replace("_", " "),
                f"{row.risk:.6g}",
                f"{row.risk / setting.M:.4f}",
                f"{row.gain:.2%}",
                STACK_MEANINGS[row.name],
            )
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


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"{_STYLE}<table class='gladient'><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _bar(row: Answer, most: float) -> str:
    filled = f"width:{100 * row.risk / most:.2f}%;height:0.9rem;background:{family(row.name).colour}"
    return f'<div style="width:11rem;background:#f1f4f8"><div style="{filled}"></div></div>'


def _numbers(values: Array) -> str:
    return " ".join(f"{value:.4g}" for value in values)
