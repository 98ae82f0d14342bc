"""The explorer: one setting on a local page, moved by hand; what theory says of it, and a model trained on it."""

from gladient.explore.fields import Fields
from gladient.explore.training import WATCHED, Training

__all__ = ["Fields", "Training", "WATCHED"]
