"""`gladient reproduce`: trained models beside the exact theory."""

from dataclasses import dataclass
from pathlib import Path

from gladient._text import did_you_mean
from gladient.cli.numbers import AnyWhole
from gladient.cli.run import RunOptions, print_made

__all__ = ["Reproduce"]


@dataclass(frozen=True, kw_only=True)
class Reproduce(RunOptions):
    """Train a figure's models and draw them beside the exact theory: results.csv, PNG, SVG and report.html.

    Example: gladient reproduce --quick --out results/quick

        multitask  risk against prompt length, four task correlations
        weights    what trained gates make of each example, beside the best weights
        depth      one and two layers beside the best stacks
        marks      two layers without gates that weigh tasks
        limits     laws of depth in many features; nothing is trained
        family     presets on the ladder of gates
        delta      delta rules beside gates
        rotation   states that turn, alone and with the delta rule
        drift      a task that moves
        real       gains of gating on flights, schools …, predicted and measured
        worth      small language models with gates, with fixed decays and without

    Stop it with Ctrl-C, or kill it; --resume goes on and ends with the same results.
    """

    figure: str = "multitask"
    """Which figure, see above."""
    quick: bool = False
    """Fewer points, each trained in full."""
    seeds: AnyWhole = None
    """Training runs per point; left out: the figure's own number."""
    out: Path | None = None
    """Folder to write to; left out: results/FIGURE, or results/FIGURE-quick."""

    def run(self) -> int:
        """Make the figure; 1 if a trained point does not keep the figure's claim, or is undecided."""
        from gladient.experiments import FIGURES, make

        if self.figure not in FIGURES:
            near = did_you_mean(self.figure, FIGURES) or f"; choose one of {', '.join(FIGURES)}"
            raise ValueError(f"there is no figure {self.figure!r}{near}")
        figure = FIGURES[self.figure]
        config = figure.config(quick=self.quick, seeds=self.seeds, device=self.device)
        out = self.out or Path("results") / (self.figure + ("-quick" if self.quick else ""))
        command = f"gladient reproduce --figure {self.figure}{' --quick' if self.quick else ''} --seeds {config.seeds}"
        return print_made(figure, make(figure, config, out, command=command, **self.engine()), out)
