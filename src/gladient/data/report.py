"""The report of a comparison: one HTML file that needs no other."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from gladient._files import write_atomically
from gladient._text import printable
from gladient.data.crossfitting import CrossFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "write_report"]


def write_report(path: Path, found: CrossFit, *, roles: Sequence[str], command: str) -> None:
    """Write predicted and measured gains, weights, cautions and the setting as one HTML file.

    Args:
        path: the file.
        found: the comparison.
        roles: names of the sources' roles.
        command: what the report says that made it.
    """
    from jinja2 import Environment, StrictUndefined

    from gladient.pictures import svg_text

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
        svg=svg_text(draw(found)),
    )
    write_atomically(path, html)


def draw(found: CrossFit) -> "Figure":
    """Predicted and measured gains of each gate family with two standard errors."""
    from gladient.pictures import INK, PALE, blank, family, frame

    figure = blank(7.0, 2.6)
    axis = figure.subplots()
    gates = [name for name in found.gains if name != "linear_attention"]
    for shift, name, colour in ((-0.12, "predicted", PALE), (0.12, "measured", INK)):
        axis.errorbar(
            [getattr(found.gains[gate], name) for gate in gates],
            [place + shift for place in range(len(gates))],
            xerr=[2 * getattr(found.gains[gate], f"{name}_error") for gate in gates],
            fmt="o",
            color=colour,
            label=name,
        )
    axis.axvline(0.0, color=INK, linewidth=0.8)
    axis.set_yticks(range(len(gates)), [family(gate).title for gate in gates])
    axis.invert_yaxis()
    axis.set_xlabel("gain over linear attention, ± two standard errors")
    frame(axis, grid=False)
    axis.legend(frameon=False, fontsize=9)
    return figure
