"""One colour and marker for each gate family, and no others anywhere."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import cnames, is_color_like, to_rgb
from matplotlib.markers import MarkerStyle

from gladient.experiments import MODELS
from gladient.landscape import ladder
from gladient.pictures import FAMILIES, INK, add_family, family
from gladient.prompts import MultitaskSetting

BUILT_IN = dict(FAMILIES)
PACKAGE = Path(__file__).parents[2] / "src" / "gladient"
RUNGS = (
    *("linear_attention", "fixed_decay", "scalar_gate", "value_gate", "key_gate", "delta_rule", "gated_delta_rule"),
    *("fixed_rotation", "rotating_gate", "rotating_delta_rule"),
)
NEUTRAL = {"white", "black"}
# from red, green and blue in linear light to what is seen without one kind of cone (Viénot, Brettel and Mollon, 1999)
TO_CONES = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
TO_XYZ = np.array([[0.4339, 0.3762, 0.1898], [0.2127, 0.7152, 0.0722], [0.0178, 0.1095, 0.8730]])  # of white: 1, 1, 1
WITHOUT = {
    "red": np.array([[0.0, 2.02344, -2.52581], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    "green": np.array([[1.0, 0.0, 0.0], [0.494207, 0.0, 1.24827], [0.0, 0.0, 1.0]]),
}


def test_no_two_families_look_the_same() -> None:
    assert len({(each.colour, each.marker) for each in FAMILIES.values()}) == len(FAMILIES)
    assert len({each.title for each in FAMILIES.values()}) == len(FAMILIES)
    assert all(is_color_like(each.colour) and MarkerStyle(each.marker) for each in FAMILIES.values())


def test_the_rungs_are_told_apart_by_colour_alone() -> None:
    """By people who lack red or green cones too. A distance of 15 in CIELAB is seen at once; 2 is barely seen."""
    colours = [FAMILIES[name].colour for name in RUNGS]
    for lacking in (None, *WITHOUT):
        seen = [_seen(colour, lacking) for colour in colours]
        least = min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2))
        assert least > 15.0, (lacking, least)


def test_every_model_and_rung_has_its_family() -> None:
    found = ladder(MultitaskSetting.isotropic(n=[2, 2], r=[0.2, 0.8], d=2))
    beside = {*RUNGS, "filter_floor", "any_key_floor"}
    for name in [*MODELS, *found.risks, "half_gate", *beside]:
        assert family(name) in FAMILIES.values(), name


def test_no_other_file_has_colours_of_families() -> None:
    """Nor any name of a colour, under which one could come in."""
    taken = {each.colour.lower() for each in FAMILIES.values()}
    quoted = re.compile(r"""["'](#[0-9a-f]{6}|tab:\w+|C\d|[a-z]+)["']""", re.IGNORECASE)
    named = re.compile(r"""colou?rs?["']?[=:]\s*["'](\w+)["']""")
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "ink.py":
            text = path.read_text(encoding="utf-8")
            assert not taken & {found.lower() for found in quoted.findall(text)}, path
            assert not {found for found in named.findall(text) if found in cnames} - NEUTRAL, path
            assert not re.search(r"""["'](tab:\w+|C\d)["']""", text), path


def test_what_is_no_family_is_ink() -> None:
    assert family("mine").colour == INK


def test_models_of_the_users_own_look_like_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a look of its own; the first four differ from all families, and from one another, by colour alone."""
    for name in [name for name in FAMILIES if name not in BUILT_IN]:  # which other tests registered
        monkeypatch.delitem(FAMILIES, name)
    names = [f"own_{i}" for i in range(16)]
    for name in [*names, *names]:  # registered again, a model keeps its look
        add_family(name)
    looks = [FAMILIES.pop(name) for name in names]
    assert len({(each.colour, each.marker) for each in looks}) == 16
    assert all(is_color_like(each.colour) and MarkerStyle(each.marker) for each in looks)
    own = {each.colour for each in looks[:4]}
    assert len(own) == 4
    for lacking in (None, *WITHOUT):
        for one in own:
            others = {each.colour for each in FAMILIES.values()} | own - {one}
            assert min(float(np.linalg.norm(_seen(one, lacking) - _seen(each, lacking))) for each in others) > 15.0
    add_family("gla")
    assert family("gla") == BUILT_IN["gla"]


def _seen(colour: str, lacking: str | None) -> np.ndarray:
    """The colour in CIELAB."""
    linear = np.array([part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)])
    if lacking is not None:
        linear = np.linalg.solve(TO_CONES, WITHOUT[lacking] @ TO_CONES @ linear)
    x, y, z = np.cbrt(TO_XYZ @ linear.clip(0.0))
    return np.array([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)])
