"""The multitask figure in a minute size, as a program: `python tiny_figure.py OUT [gladient reproduce options]`."""

import sys
from dataclasses import replace
from typing import Any

from gladient.cli import main
from gladient.experiments import FIGURES
from gladient.experiments.multitask import FIGURE, MultitaskConfig
from gladient.training import TrainingConfig


def make_config(*, quick: bool, seeds: int, device: str) -> Any:
    training = TrainingConfig(steps=300, batch_size=64, checkpoint_every=20)
    return MultitaskConfig(n=(4, 6), seeds=seeds, training=training, test_prompts=2000, device=device)


if __name__ == "__main__":
    FIGURES["multitask"] = replace(FIGURE, make_config=make_config)
    sys.exit(main(["reproduce", "--workers", "2", "--out", *sys.argv[1:]]))
