"""What does gating buy a small language model?"""

from dataclasses import dataclass

from gladient.experiments.engine.experiment import Column, Config, Reproducible
from gladient.experiments.figures.worth.trained import KINDS, VARIANTS, WordSizes
from gladient.experiments.figures.worth.work import Asked, TrainedWords
from gladient.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class WorthConfig(Config):
    """What decides the figure's numbers.

    Args:
        sizes: of models and texts.
        asked: what trained models are asked.
    """

    seeds: int = 3
    training: TrainingConfig = TrainingConfig(steps=300, batch_size=8, learning_rate=5e-3)
    sizes: WordSizes = WordSizes()
    asked: Asked = Asked()


@dataclass(frozen=True)
class Row:
    a: str


class Worth(Reproducible):
    name = "worth"
    title = abstract = claim = note = "x"
    columns = (Column("a"),)
    row = point = Row
    full = WorthConfig()
    quick = WorthConfig(seeds=1, training=TrainingConfig(steps=10, batch_size=8))

    def work(self, config):
        return [
            TrainedWords(kind, variant, seed, config.sizes, config.training, config.asked)
            for seed in range(config.seeds)
            for kind in KINDS
            for variant in VARIANTS
            if variant != "no_erase" or kind == "gated_deltanet"
        ]

    def rows(self, config, measured):
        return []

    def points(self, config, measured):
        return []

    def draw(self, rows, points):
        raise SystemExit("done")

    def judge(self, row):
        return None

    def summary(self, judged):
        return []
