"""The report of a comparison: one HTML file that needs no other."""

import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from gladient._files import write_atomically
from gladient._text import printable
from gladient.data._cross_fit import CrossFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "write_report"]

_INK, _BLUE = "#1b1f24", "#0072B2"


def write_report(path: Path, found: CrossFit, *, roles: Sequence[str], command: str) -> None:
    """Write predicted and measured gains, weights, cautions and the setting as one HTML file.

    Args:
        path: the file.
        found: the comparison.
        roles: names of the sources' roles.
        command: what the report says that made it.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    setting = found.estimated.setting
    joint = [[*row, last] for row, last in zip(setting.R.tolist(), setting.r.tolist(), strict=True)]
    html = page.render(
        found=found,
        roles=[printable(role) for role in roles],
        joint=joint,
        setting=setting,
        spectrum=found.estimated.spectrum.tolist(),
        errors=found.estimated.standard_errors,
        command=printable(command),
        warnings=[(caution.kind, printable(caution.message)) for caution in found.warnings],
        svg=_svg(draw(found)),
    )
    write_atomically(path, html)


def draw(found: CrossFit) -> "Figure":
    """Predicted and measured gains of each gate family with two standard errors."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    gates = [name for name in found.gains if name != "linear_attention"]
    for shift, name, colour in ((-0.12, "predicted", _BLUE), (0.12, "measured", _INK)):
        axis.errorbar(
            [getattr(found.gains[gate], name) for gate in gates],
            [place + shift for place in range(len(gates))],
            xerr=[2 * getattr(found.gains[gate], f"{name}_error") for gate in gates],
            fmt="o",
            color=colour,
            label=name,
        )
    axis.axvline(0.0, color=_INK, linewidth=0.8)
    axis.set_yticks(range(len(gates)), [gate.replace("_", " ") for gate in gates])
    axis.invert_yaxis()
    axis.set_xlabel("gain over linear attention, ± two standard errors")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9)
    return figure


def _svg(figure: "Figure") -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "gladient", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
