"""A sweep of the user's own: a grid of settings, models and seeds beside the exact theory.

    gladient sweep FILE.yaml

Each setting is one that `gladient risk` answers; each model is trained on it for each seed. results.csv has one line
for each trained model, with the exact risk that its kind can reach, the gap and z.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.figure import Figure as Picture

from gladient.experiments._figure import Column, Figure
from gladient.experiments._models import MODELS
from gladient.experiments._results import GAP_BOUND, Z_BOUND, Judgement, judge_gap, relative_gap
from gladient.experiments._rungs import RUNGS
from gladient.experiments._stack import Panel, Stack, spaced
from gladient.experiments._work import Record
from gladient.experiments.sweep.grid import AXES, SweepConfig
from gladient.experiments.sweep.picture import draw_sweep

__all__ = ["Sweep", "SweepPoint", "SweepRow"]

_MEMBERS = 16  # the most models that train side by side: enough to fill a vector, few enough to share out


@dataclass(frozen=True)
class SweepPoint:
    """The exact risk of a model's rung on one setting.

    Attributes:
        n, r, rho, spectrum: the setting's lists, numbers with spaces between; d numbers of the spectrum.
        d, sigma2: the setting's numbers.
        model, rung: the kind of model, and what it is compared with.
        exact: the exact risk, as `gladient risk` prints it.
    """

    n: str
    r: str
    d: int
    spectrum: str
    rho: str
    sigma2: float
    model: str
    rung: str
    exact: float


@dataclass(frozen=True)
class SweepRow(SweepPoint):
    """One trained model: its point, and what it reached.

    Attributes:
        seed: the seed of the training run.
        risk, standard_error: on fresh prompts.
        gap: risk / exact - 1.
        z: (risk - exact) / standard_error.
    """

    seed: int
    risk: float
    standard_error: float
    gap: float
    z: float


class Sweep(Figure[SweepConfig, Stack, SweepRow, SweepPoint]):
    """A grid of settings, models and seeds.

    Args:
        x: the axis that the picture goes along, one of `AXES`; the one with the most values if not given.

    Raises:
        ValueError: if x is not an axis.
    """

    name = "sweep"
    title = "A sweep beside the exact theory"
    abstract = (
        "Every model trained on every setting. Lines are exact risks, points the means over seeds of trained models "
        "with two standard errors. Risks are not divided by anything."
    )
    claim = "trained models reach their exact risk or lie below it"
    note = (
        "exact: the least risk that the model's rung allows; gap = risk / exact − 1; z = (risk − exact) / standard "
        f"error. A model reaches it if its risk ± {Z_BOUND:g} standard errors lies within {GAP_BOUND:.0%} of it, or "
        "below. Gates that move with the features can lie below their rung."
    )
    columns = (
        *(Column(name) for name in AXES),
        Column("model"),
        Column("seed", form="d"),
        Column("risk", form=".4f"),
        Column("standard_error", "standard error", ".4f"),
        Column("rung"),
        Column("exact", form=".4f"),
        Column("gap", form="+.2%"),
        Column("z", form="+.1f"),
    )
    row, point = SweepRow, SweepPoint

    def __init__(self, x: str | None = None) -> None:
        if x is not None and x not in AXES:
            raise ValueError(f"x is {x!r}; a picture goes along one of {', '.join(AXES)}")
        self.x = x

    def work(self, config: SweepConfig) -> list[Stack]:
        """Stacks of at most 16 models that read the same prompts."""
        stacks = []
        for place, panels in enumerate(config.stacks()):
            many = max(1, _MEMBERS // len(panels))
            for model in config.models:
                for r in range(0, len(panels), _MEMBERS):
                    for seed in range(0, config.seeds, many):
                        stacks.append(
                            Stack(
                                name=f"{place:05d}-{model}-r{r}-s{seed}",
                                model=model,
                                panels=panels[r : r + _MEMBERS],
                                seeds=tuple(range(seed, min(seed + many, config.seeds))),
                                training=config.training,
                                test_prompts=config.test_prompts,
                                device=config.device,
                            )
                        )
        return stacks

    def rows(self, config: SweepConfig, records: Mapping[Stack, Sequence[Record]]) -> list[SweepRow]:
        """A row for each trained model."""
        rows = []
        for stack, found in records.items():
            points = {panel.name: (_point(panel, stack.model), panel.setting.M) for panel in stack.panels}
            for run in found:
                point, M = points[run["panel"]]
                risk, error = M * run["risk"], M * run["standard_error"]
                rows.append(
                    SweepRow(
                        **vars(point),
                        seed=run["seed"],
                        risk=risk,
                        standard_error=error,
                        gap=relative_gap(risk, point.exact),
                        z=(risk - point.exact) / error,
                    )
                )
        return rows

    def points(self, config: SweepConfig, records: Mapping[Stack, Sequence[Record]]) -> list[SweepPoint]:
        """A point for each setting and model."""
        return [_point(panel, model) for panels in config.stacks() for panel in panels for model in config.models]

    def draw(self, rows: Sequence[SweepRow], points: Sequence[SweepPoint]) -> Picture:
        """Risk along one axis, a panel for each combination of the others."""
        return draw_sweep(rows, points, self.x)

    def judge(self, row: SweepRow) -> Judgement | None:
        """Whether the row reaches its rung or lies below it; a model without context, or without a rung, has none."""
        judged = MODELS[row.model].judged
        return judge_gap(row.risk, row.standard_error, row.exact, or_below=True) if judged else None

    def summary(self, judged: Sequence[SweepRow]) -> list[str]:
        """The median and the largest gap of each kind of model."""
        lines = []
        for model in dict.fromkeys(row.model for row in judged):
            gaps = [row.gap for row in judged if row.model == model]
            lines.append(f"{model}: median gap {median(gaps):+.2%}, largest {max(gaps):+.2%}")
        return lines


def _point(panel: Panel, model: str) -> SweepPoint:
    rung = MODELS[model].rung
    return SweepPoint(
        n=spaced(panel.n),
        r=panel.name,
        d=len(panel.spectrum),
        spectrum=spaced(panel.spectrum) if set(panel.spectrum) != {1.0} else "1",
        rho=spaced(panel.rho),
        sigma2=panel.sigma2,
        model=model,
        rung=rung,
        exact=RUNGS[rung](panel.setting),
    )
