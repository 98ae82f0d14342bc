"""The report of a comparison: one HTML file that needs no other."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from gladient._files import write_atomically
from gladient._text import printable
from gladient.data.crossfitting import CrossFit
from gladient.data.drawings import draw_errors, draw_gains, draw_weights
from gladient.data.ungated import Baseline, lower_risk
from gladient.data.verdict import judge

__all__ = ["write_report"]


def write_report(
    path: Path, found: CrossFit, beside: Mapping[str, Baseline], *, roles: Sequence[str], command: str
) -> None:
    """Write the verdicts, predicted and measured gains, weights, cautions and the setting as one HTML file.

    Args:
        path: the file.
        found: the comparison.
        beside: predictors without gates.
        roles: names of the sources' roles.
        command: what the report says that made it.
    """
    from jinja2 import Environment, StrictUndefined

    from gladient.pictures import svg_text

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["said"] = printable  # sentences that name prompts hold the table's own text
    page = environment.from_string(files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    names = [printable(role) for role in roles]
    setting = found.estimated.setting
    joint = [[*row, last] for row, last in zip(setting.R.tolist(), setting.r.tolist(), strict=True)]
    html = page.render(
        found=found,
        roles=names,
        joint=joint,
        setting=setting,
        spectrum=found.estimated.spectrum.tolist(),
        errors=found.estimated.standard_errors,
        command=printable(command),
        warnings=[(caution.kind, printable(caution.message)) for caution in found.warnings],
        judged=judge(found),
        beside=beside,
        lower=lower_risk(found, beside),
        pictures=[svg_text(draw_gains(found)), svg_text(draw_weights(found, names)), svg_text(draw_errors(found))],
    )
    write_atomically(path, html)
