"""Training: a loss as an argument, Adam, checkpoints, and risk on fresh prompts."""

from gladient._tensors import CheckpointError, load_tensors, pack_tensors, save_tensors
from gladient.training.config import TrainingConfig
from gladient.training.evaluation import TestRisk, evaluate
from gladient.training.loop import History, TrainingDivergedError, train

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
