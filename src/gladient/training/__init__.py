"""Training: a loss as an argument, Adam, checkpoints, and risk on fresh prompts."""

from gladient._tensors import CheckpointError, load_tensors, pack_tensors, save_tensors
from gladient.training._config import TrainingConfig
from gladient.training._evaluate import TestRisk, evaluate
from gladient.training._loop import History, TrainingDivergedError, train

__all__ = [
    "CheckpointError",
    "History",
    "TestRisk",
    "TrainingConfig",
    "TrainingDivergedError",
    "evaluate",
    "load_tensors",
    "pack_tensors",
    "save_tensors",
    "train",
]
