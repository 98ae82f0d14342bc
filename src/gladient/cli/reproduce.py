"""`gladient reproduce`: trained models beside the exact theory."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Reproduce"]


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Train a figure's models and draw them beside the exact theory: results.csv, PNG, SVG and report.html.

    Example: gladient reproduce --quick --out results/quick

    Stop it with Ctrl-C, or kill it; --resume goes on and ends with the same results.
    """

    figure: str = "multitask"
    """Which figure: multitask (risk against prompt length, four task correlations), weights (what trained gates make of
    each example, beside the best weights), depth (layers as steps), family (presets on the ladder of gates)."""
    quick: bool = False
    """Fewer points, each trained in full."""
    seeds: int | None = None
    """Training runs a point; the figure's own number if not given."""
    out: Path | None = None
    """Folder to write to; results/FIGURE if not given, results/FIGURE-quick with --quick."""
    resume: bool = False
    """Go on with what the folder already holds; start if it holds nothing."""
    workers: int = os.cpu_count() or 1
    """Processes that train side by side, one thread each; the results do not depend on it."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:0 …"""

    def run(self) -> int:
        """Make the figure; 1 if a trained point does not keep the figure's claim."""
        from gladient.experiments import FIGURES, reproduce

        out = self.out or Path("results") / (self.figure + ("-quick" if self.quick else ""))
        rows = reproduce(
            self.figure,
            out=out,
            quick=self.quick,
            seeds=self.seeds,
            resume=self.resume,
            workers=self.workers,
            device=self.device,
        )
        figure = FIGURES[self.figure]
        missed = figure.missed(rows)
        for row in missed:
            print(f"miss: {figure.describe(row)}")
        print("\n".join([figure.verdict(rows), *figure.summary(figure.judged(rows)), f"report: {out / 'report.html'}"]))
        return 1 if missed else 0
