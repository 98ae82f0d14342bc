"""One module a figure, and what makes a figure from it."""

from gladient.experiments._figure import Column, Figure
from gladient.experiments._reproduce import FIGURES, reproduce
from gladient.experiments._results import Row, read_rows
from gladient.experiments._stacks import ModelSpec, Stack
from gladient.experiments._work import Record, Work

__all__ = ["FIGURES", "Column", "Figure", "ModelSpec", "Record", "Row", "Stack", "Work", "read_rows", "reproduce"]
