"""`gladient sweep`: a grid of the user's own beside the exact theory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gladient.cli.numbers import AnyWhole
from gladient.cli.run import ModelOptions, print_made

__all__ = ["Sweep"]


@dataclass(frozen=True, kw_only=True)
class Sweep(ModelOptions):
    """Train every model on every setting of a grid: one table with the exact risk, gap and z beside each trained risk.

    Example: gladient sweep grid.yaml --out results/mine --x n

    The file lists values of n, r, d or spectrum, rho, sigma2, the models, the number of seeds, and training options:

        n: [[10, 10], [25, 25]]
        r: [[0.2, 0.8], [0.8, 0.2]]
        d: 10
        models: [linear_attention, scalar_gate, value_gate]
        seeds: 3
        training: {steps: 400}

    Stop it with Ctrl-C, or kill it; --resume goes on and ends with the same results.
    """

    file: Annotated[Path, tyro.conf.Positional]
    """The grid, YAML or JSON."""
    out: Path | None = None
    """Folder to write to; left out: results/FILE without its suffix."""
    x: str | None = None
    """Axis of the figure: n, r, d, spectrum, rho or sigma2; left out: that with the most values."""
    seeds: AnyWhole = None
    """Training runs for each model and setting, in place of the file's."""
    parquet: bool = False
    """Write results.parquet too."""

    def run(self) -> int:
        """Make the sweep; 1 if a training diverged."""
        from gladient.cli.read import read_object
        from gladient.experiments import Sweep as Swept
        from gladient.experiments import make, read_grid

        self.import_models()
        changes = {"device": self.device} | ({} if self.seeds is None else {"seeds": self.seeds})
        config = read_grid(read_object(self.file), **changes)
        out = self.out or Path("results") / self.file.stem
        figure = Swept(self.x)
        made = make(figure, config, out, command=f"gladient sweep {self.file}", parquet=self.parquet, **self.engine())
        if config.left_out:
            print(f"{config.left_out} settings cannot occur: their correlations contradict one another")
        print_made(figure, made, out, misses=False)
        return 1 if made.diverged else 0
