"""The colours: one colour and marker for each gate family in every picture, and what all else is drawn with."""

from typing import NamedTuple

__all__ = ["FAMILIES", "INK", "PALE", "Family", "add_family", "family", "ordered"]

INK = "#1b1f24"
"""Axes, text, and what belongs to no gate family."""
PALE = "#9db8cf"
"""What stands behind: single batches, single heads."""


class Family(NamedTuple):
    """How a gate family, or a model of it, is named and drawn.

    Attributes:
        title: its name in words.
        colour: as matplotlib and HTML take it.
        marker: as matplotlib takes it.
    """

    title: str
    colour: str
    marker: str


# Okabe and Ito's colours for the seven families that stand side by side most often, which every kind of colour vision
# tells apart. There are no eight such colours on white, so the delta rule's relatives have Paul Tol's darker ones, and
# the rotations two that are as far from all of these as any two are; markers repeat the distinction. What no gate can
# pass is drawn in ink.
FAMILIES: dict[str, Family] = {
    "half_gate": Family("gates at 1/2", "#777777", "x"),
    "linear_attention": Family("linear attention", "#D55E00", "o"),
    "fixed_decay": Family("fixed decay", "#E69F00", "v"),
    "scalar_gate": Family("scalar gate", "#0072B2", "s"),
    "value_gate": Family("value gate", "#009E73", "D"),
    "key_gate": Family("key gate", "#CC79A7", "^"),
    "fixed_rotation": Family("fixed rotation", "#aa9955", "8"),
    "rotating_gate": Family("rotating gate", "#7744cc", "p"),
    "delta_rule": Family("delta rule", "#56B4E9", "P"),
    "gated_delta_rule": Family("gated delta rule", "#882255", "X"),
    "gated_delta_rule_unit": Family("gated, keys of length 1", "#332288", "d"),
    "delta_rule_per_task": Family("gated, a step per task", "#661100", "<"),
    "delta_rule_per_task_unit": Family("the same, keys of length 1", "#DDCC77", ">"),
    "rotating_delta_rule": Family("rotating delta rule", "#117733", "*"),
    "schedule": Family("optimal filter (steps per token)", INK, "+"),
    "filter_floor": Family("floor, linear keys", INK, "_"),
    "any_key_floor": Family("floor, any keys", INK, "|"),
    "bayes": Family("Bayes", INK, "*"),
    # layers of other papers have their family's colour and a marker of their own
    "retnet": Family("RetNet", "#E69F00", "1"),
    "mamba2": Family("Mamba-2", "#0072B2", "h"),
    "mamba": Family("Mamba", "#009E73", "H"),
    "gla": Family("GLA", "#CC79A7", "p"),
    "rwkv6": Family("RWKV-6", "#CC79A7", "8"),
    "hgrn2": Family("HGRN-2", "#CC79A7", "2"),
    "deltanet": Family("DeltaNet", "#56B4E9", "3"),
    "gated_deltanet": Family("Gated DeltaNet", "#882255", "4"),
    "kda": Family("KDA", "#882255", "|"),
    "comba": Family("Comba", "#882255", "_"),
    "rwkv7": Family("RWKV-7", "#882255", "$7$"),
    "mamba3": Family("Mamba-3", "#0072B2", "$3$"),
}
"""Every gate family by name: rungs as `landscape.Ladder` names them, models as `experiments.MODELS` does."""

# Of models of the user's own: the colours farthest from all above and from one another, in CIELAB, for every kind of
# colour vision. Four of each make 16 looks before one comes again.
_OWN_COLOURS, _OWN_MARKERS = ("#4060ff", "#00009f", "#9f80ff", "#402060"), ("*", ".", "+", "x")
_BUILT_IN = len(FAMILIES)

_ALIASES = {  # models and curves that are a family by another name
    "without_context": "half_gate",
    "stream_gate": "scalar_gate",
    "stream_delta_rule": "delta_rule",
    "stream_gated_delta_rule": "gated_delta_rule",
}


def add_family(name: str) -> None:
    """Give a model of the user's own a colour and a marker that no family has; the next of 16, in the order they come.

    >>> add_family("first_of_mine"), add_family("second_of_mine")
    (None, None)
    >>> family("first_of_mine").colour == family("second_of_mine").colour
    False
    """
    if family(name) not in FAMILIES.values():
        place = len(FAMILIES) - _BUILT_IN
        marker = _OWN_MARKERS[(place + place // len(_OWN_COLOURS)) % len(_OWN_MARKERS)]
        FAMILIES[name] = Family(name.replace("_", " "), _OWN_COLOURS[place % len(_OWN_COLOURS)], marker)


def family(name: str) -> Family:
    """How a rung or a model is drawn; in ink if it belongs to no family.

    >>> family("stream_gate") == family("scalar_gate")
    True
    >>> family("my_gate")
    Family(title='my gate', colour='#1b1f24', marker='.')
    """
    return FAMILIES.get(_ALIASES.get(name, name), Family(name.replace("_", " "), INK, "."))


def ordered(count: int) -> list[str]:
    """Colours of things in an order that are no families, such as layers or tasks, from dark to light.

    >>> ordered(2)
    ['#482475', '#5ec962']
    """
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    # viridis without its ends, which are too close to ink and to white
    return [to_hex(mpl.colormaps["viridis"](0.1 + 0.65 * place / max(count - 1, 1))) for place in range(count)]
