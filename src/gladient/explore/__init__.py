"""The explorer: one setting on a local page, moved by hand; its ladder, its landscape, and a model trained on it."""

from gladient.explore._circle import Circle, around
from gladient.explore._fields import Fields
from gladient.explore._ladder import Row, delta_rows, gate_rows
from gladient.explore._plane import Gains, gains
from gladient.explore._training import WATCHED, Training

__all__ = ["Circle", "Fields", "Gains", "Row", "Training", "WATCHED", "around", "delta_rows", "gains", "gate_rows"]
