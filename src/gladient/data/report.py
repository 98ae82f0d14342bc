"""The report of a comparison: one HTML file that needs no other."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gladient._files import write_atomically
from gladient._text import plus_minus, printable
from gladient.data.asking import Answer
from gladient.data.crossfitting import CrossFit
from gladient.data.drawings import draw_errors, draw_gains, draw_weights
from gladient.data.ungated import Baseline, lower_risk

__all__ = ["write_report"]


def write_report(
    path: Path, answer: Answer, beside: Mapping[str, Baseline], *, roles: Sequence[str], command: str
) -> None:
    """Write the verdicts, predicted and measured gains, weights, cautions and the setting as one HTML file.

    Args:
        path: the file.
        answer: verdicts, and what was predicted and measured.
        beside: predictors without gates.
        roles: names of the sources' roles.
        command: what the report says that made it.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["said"] = printable  # sentences that name prompts hold the table's own text
    page = environment.from_string(files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    environment.globals["pair"] = plus_minus
    names = [printable(role) for role in roles]
    html = page.render(
        found=answer.found,
        judged=answer.verdicts,
        roles=names,
        command=printable(command),
        beside=beside,
        lower=lower_risk(answer.found, beside),
        **(_of_gates(answer.found, names) if answer.found else {}),
    )
    write_atomically(path, html)


def _of_gates(found: CrossFit, roles: Sequence[str]) -> dict[str, Any]:
    """What the page says where gates were measured."""
    from gladient.pictures import svg_text

    setting = found.estimated.setting
    return {
        "joint": [[*row, last] for row, last in zip(setting.R.tolist(), setting.r.tolist(), strict=True)],
        "setting": setting,
        "spectrum": found.estimated.spectrum.tolist(),
        "errors": found.estimated.standard_errors,
        "warnings": [(caution.kind, printable(caution.message)) for caution in found.warnings],
        "pictures": [svg_text(draw_gains(found)), svg_text(draw_weights(found, roles)), svg_text(draw_errors(found))],
    }
