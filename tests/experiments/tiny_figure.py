"""The multitask figure in a minute size, as a program: `python tiny_figure.py OUT [gladient reproduce options]`."""

import signal
import sys
from pathlib import Path

from gladient.cli import main
from gladient.experiments import FIGURES
from gladient.experiments.figures.multitask import Multitask, MultitaskConfig
from gladient.training import TrainingConfig

COMMAND = [sys.executable, str(Path(__file__).resolve())]


class Tiny(Multitask):
    """Two lengths, few steps."""

    training = TrainingConfig(steps=100, batch_size=64, checkpoint_every=20)
    full = MultitaskConfig(n=(4, 6), training=training, test_prompts=2000)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin deaf to it
    FIGURES["multitask"] = Tiny()
    sys.exit(main(["reproduce", "--workers", "2", "--out", *sys.argv[1:]]))
