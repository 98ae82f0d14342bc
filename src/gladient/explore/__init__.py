"""The explorer: one setting on a local page, moved by hand; what theory says of it, and a model trained on it."""

from gladient.explore._fields import Fields
from gladient.explore._training import WATCHED, Training

__all__ = ["Fields", "Training", "WATCHED"]
