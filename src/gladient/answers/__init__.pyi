from .circles import Circle, around
from .layers import STACK_MEANINGS, StackAnswer, has_stacks, stacks
from .planes import Gain, Plane, gain_plane, plane_through
from .rungs import MEANINGS, Answer, delta_rules, floors, gates, rotations, rung
from .settings import SETTING_KEYS, described, number, numbers, parts, real, require_memory, whole
from .verdicts import Verdict, verdict

__all__ = [
    # a setting as people write it
    "SETTING_KEYS",
    "described",
    "number",
    "numbers",
    "parts",
    "real",
    "whole",
    "require_memory",
    # rungs
    "MEANINGS",
    "Answer",
    "gates",
    "rotations",
    "delta_rules",
    "floors",
    "rung",
    # several layers
    "STACK_MEANINGS",
    "StackAnswer",
    "has_stacks",
    "stacks",
    # what is proved
    "Verdict",
    "verdict",
    # the risk of all weights of two tasks
    "Circle",
    "around",
    # gains over a plane
    "Gain",
    "Plane",
    "gain_plane",
    "plane_through",
]
