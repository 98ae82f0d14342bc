"""report.html: the figure, the table, the config and the versions in one file that needs no other."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from gladient._files import write_atomically
from gladient._text import printable
from gladient.experiments.engine.experiment import C, Experiment, P, R, W
from gladient.experiments.engine.versions import versions

__all__ = ["write_report"]

_PANELS = 12  # more lines are no summary


def write_report(
    folder: Path,
    *,
    figure: Experiment[C, W, R, P],
    command: str,
    rows: Sequence[R],
    diverged: Sequence[str],
    config: Mapping[str, Any],
    timing: Mapping[str, str],
) -> None:
    """Write report.html beside the figure and results that it shows.

    Args:
        folder: holds figure.svg; report.html is written here.
        figure: what is shown.
        command: what made it.
        rows: the table.
        diverged: models that no row counts, one line each.
        config: shown as JSON.
        timing: name and reading of each time taken.
    """
    svg = (folder / "figure.svg").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    html = page.render(
        figure=figure,
        verdict=figure.verdict(rows),
        command=printable(command),  # it names files
        svg=svg[svg.index("<svg") :],
        rows=[(row, figure.judge(row)) for row in rows],
        diverged=diverged,
        kept=len(figure.judged(rows)) == sum(figure.judge(row) == "reached" for row in rows),
        panels=_panels(figure, rows),
        date=datetime.now().astimezone().date().isoformat(),
        config=json.dumps(config, indent=1, allow_nan=False),
        versions=versions(),
        timing=timing,
    )
    write_atomically(folder / "report.html", html)


def _panels(figure: Experiment[C, W, R, P], rows: Sequence[R]) -> list[tuple[str, str, str]]:
    """What became of each panel, and the worst outcome in it."""
    judged = figure.panels(figure.judged(rows))
    if not 1 < len(judged) <= _PANELS:
        return []
    return [
        (
            panel,
            "; ".join([f"{sum(figure.judge(row) == 'reached' for row in own)} of {len(own)}", *figure.summary(own)]),
            "missed" if figure.missed(own) else "undecided" if figure.undecided(own) else "reached",
        )
        for panel, own in judged.items()
    ]
