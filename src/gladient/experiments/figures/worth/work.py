"""The work of the figure: one small language model, trained, and asked what its gates are worth."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from gladient import lens
from gladient.experiments.figures.worth.knocking import knock_outs, repeated_names
from gladient.experiments.figures.worth.text import corpus
from gladient.experiments.figures.worth.trained import Variant, WordSizes, losses, trained
from gladient.experiments.work import Measurement, OnStep, Outcome
from gladient.training import TrainingConfig, TrainingDivergedError, pack_tensors

__all__ = ["Asked", "TrainedWords", "texts_of"]


@dataclass(frozen=True)
class Asked:
    """What a trained model is asked.

    Args:
        texts: held-out texts on which its loss is measured, and decays that were fitted to it.
        judged: the first of them, on which each head's gate is judged.
        calibrate: texts on which decays are fitted.
        fit_steps: steps of that fit.
        probes: repeated names that are knocked out.
    """

    texts: int = 320
    judged: int = 48
    calibrate: int = 96
    fit_steps: int = 30
    probes: int = 200


@dataclass(frozen=True)
class TrainedWords:
    """One model.

    Args:
        kind: mamba2, gla or gated_deltanet.
        variant: gates, fixed, none or no_erase.
        seed: the random seed of its weights and of the texts that it is trained on.
        sizes: of models and texts.
        training: steps, step size, texts per step.
        asked: what it is asked.
    """

    kind: str
    variant: str
    seed: int
    sizes: WordSizes
    training: TrainingConfig
    asked: Asked

    @property
    def name(self) -> str:
        """What files are called."""
        return f"{self.kind}-{self.variant.replace('_', '-')}-seed{self.seed}"

    @property
    def passes(self) -> int:
        """Over the texts that are judged, for a model with gates."""
        heads, erases = self.sizes.layers * self.sizes.heads, self.kind == "gated_deltanet"
        return (4 + 4 * heads + erases * (1 + heads)) * (self.variant == "gates")

    @property
    def steps(self) -> int:
        """Of the training, and passes over the texts that are judged."""
        return self.training.steps + self.passes

    @property
    def cost(self) -> float:
        """Texts that are read, backward passes counting twice, changed ones three times as long as measured."""
        trained = 3.0 * self.training.steps * self.training.batch_size
        return trained + 3.0 * self.passes * self.asked.judged

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The losses of each text; with gates, also what each head's is worth, and knock-outs of names."""
        model = Variant(self.kind, self.variant, self.sizes, seed=self.seed)
        described = asdict(self)
        try:
            trained(model, self.training, checkpoint=scratch / "model.safetensors", run=described, on_step=on_step)
        except TrainingDivergedError:
            return Outcome([{"diverged": True, "seed": self.seed}])
        model.eval()
        text = corpus(self.sizes.words)
        judged, calibrate = (
            texts_of(part, self.sizes.length, count)
            for part, count in ((text.judge, self.asked.texts), (text.calibrate, self.asked.calibrate))
        )
        with torch.no_grad():
            found: list[Measurement] = [{"what": "loss", "losses": losses(model, judged).tolist()}]
        if self.variant == "gates":
            found += self._worth(model, judged, calibrate, lambda done: on_step(self.training.steps + done))
            asked = repeated_names(text, self.sizes.length, self.asked.probes)
            found += knock_outs(model.model, asked, what="names")
        return Outcome(found, {self.name: pack_tensors(dict(model.named_parameters()), run=described)})

    def _worth(self, model: Variant, judged: Tensor, calibrate: Tensor, on_pass: OnStep) -> list[Measurement]:
        """Losses with fitted decays; and each head's worth beside its memory length."""
        some = judged[: self.asked.judged]
        worth = lens.worth(
            model.model,
            list(some),
            calibrate=list(calibrate),
            steps=self.asked.fit_steps,
            on_pass=lambda done, of: on_pass(done),
        )
        with torch.no_grad(), lens.intervene(model.model, lens.fix_gates(worth.decays)):
            fitted: Measurement = {"what": "fitted", "losses": losses(model, judged).tolist()}
        with torch.no_grad(), lens.capture(model.model) as trace:
            model(some[:, :-1])
        lengths = {record.layer: record.summary(queries=-1).memory_length.tolist() for record in trace.records}
        rows = [
            {"what": "head", **_numbers(row), "memory_length": lengths[row.layer][row.head]}
            for row in worth.heads
            if row.layer is not None and row.head is not None
        ]
        return [fitted, {"what": "together", **_numbers(worth.together)}, *rows]


def _numbers(row: lens.HeadWorth) -> Measurement:
    return {name: list(value.values()) if isinstance(value, dict) else value for name, value in asdict(row).items()}


def texts_of(words: Int[Tensor, " M"], length: int, count: int) -> Int[Tensor, "N T"]:
    """Texts of a length and the word after it, one after another, `count` of them evenly spread.

    Raises:
        ValueError: if there are fewer.
    """
    texts = words[: len(words) // (length + 1) * (length + 1)].view(-1, length + 1)
    if len(texts) < count:
        raise ValueError(f"the corpus has {len(texts)} texts of {length + 1} words, fewer than {count}; ask for fewer")
    return texts[torch.linspace(0, len(texts) - 1, count).long()]
