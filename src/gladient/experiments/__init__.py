"""One module a figure, and what makes a figure from it."""

from gladient.experiments._reproduce import FIGURES, reproduce
from gladient.experiments._results import Row, read_rows
from gladient.experiments._stacks import ModelSpec, Stack, train_stack

__all__ = ["FIGURES", "ModelSpec", "Row", "Stack", "read_rows", "reproduce", "train_stack"]
