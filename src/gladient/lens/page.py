"""One stand-alone interactive page: choose layer, head and position; weights are computed in the browser."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from gladient import __version__
from gladient._files import write_atomically
from gladient._text import finite, json_text
from gladient.lens.encode import FINE
from gladient.lens.layers import Ungated
from gladient.lens.pack import PageLayer, keep
from gladient.lens.records import Record

__all__ = ["ModelView", "PageLayer", "keep", "pack", "render", "write_packed", "write_page"]

_AIM = 2**23 - 2**15  # bytes of a page, which are estimated before it is made
# Steps of queries and keys in the layer that a page opens with and in the others: the first that fit are taken.
_STEPS = [(FINE, FINE), (FINE, 127), (FINE, 63), (FINE, 31), (127, 31), (127, 15), (63, 15), (63, 7), (31, 7), (15, 7)]
_STEPS += [(7, 7), (15, 3), (7, 3)]
_PROVED = 2  # rank of layers that do not fail
_FEWEST = 4  # heads of a layer that are kept however large the page


@dataclass(frozen=True)
class ModelView:
    """A model that read one text: what a page shows of it.

    Args:
        name: the model's name.
        tokens: the text, one string per token; put together they are the text.
        records: one for each layer, of a batch of one, with all queries; or what `keep` made of them.
        facts: one line about the model.
        position: the query that the page shows first; the last if not given.
        ungated: its layers of attention.
        predictions: for each token, the model's likeliest next ones with their probabilities.
    """

    name: str
    tokens: Sequence[str]
    records: Sequence[Record | PageLayer]
    facts: str = ""
    position: int | None = None
    ungated: Sequence[Ungated] = ()
    predictions: Sequence[Sequence[tuple[str, float]]] | None = None


def write_page(path: Path | str, views: Sequence[ModelView], *, heads: int = 32, max_bytes: int = 2**26) -> int:
    """Write the page, whole or not at all.

    It holds operands, linear in the tokens, not weights, which the browser computes from them. Queries and keys of the
    layer that the page opens with, and of those that are not proved, have 16 bits: similarity and attention are within
    1e-3 of the largest |q| |k|, gate weights within 2e-4 of the record's. The other layers have as many bits as let the
    page take about 8 MiB; where that is not enough, the first ones have fewer too, and then layers are left with fewer
    heads. The page names bits and errors.

    Args:
        path: the HTML file.
        views: one or more models.
        heads: the most heads of a layer to keep, spread from the one that forgets fastest to the slowest.
        max_bytes: the largest page to write.

    Returns:
        The page's size in bytes.

    Raises:
        ValueError: if there is nothing to show, records and tokens do not go together, or the page would be too large.
    """
    return write_packed(path, pack(views, heads=heads), max_bytes=max_bytes)


def write_packed(path: Path | str, packed: Sequence[dict[str, Any]], *, max_bytes: int = 2**26) -> int:
    """`write_page` of what `pack` returned."""
    page = render(packed).encode(errors="replace")  # a token may hold half of a character
    if len(page) > max_bytes:
        raise ValueError(
            f"the page would take {len(page) / 2**20:.1f} MiB, more than {max_bytes / 2**20:.1f} MiB; choose fewer "
            "layers or heads, or a shorter text"
        )
    write_atomically(Path(path), page)
    return len(page)


def pack(views: Sequence[ModelView], *, heads: int = 32) -> list[dict[str, Any]]:
    """Operands, summaries and reconstruction of every layer, as JSON values: None for numbers that are not finite.

    Args:
        views: one or more models.
        heads: the most heads of a layer to keep.

    Raises:
        ValueError: if there is nothing to show, or records and tokens do not go together.
    """
    kept = [_keep_all(view, heads) for view in views]
    others = len(render([])) + sum(_other_bytes(view) for view in views)
    while not (found := _choose_steps(kept, others)) and any(_is_wide(layer) for layers in kept for layer in layers):
        kept = [[_halved(layer) for layer in layers] for layers in kept]
    fine, rest = found or _STEPS[-1]
    return [_pack_model(view, layers, fine, rest) for view, layers in zip(views, kept, strict=True)]


def render(packed: Sequence[dict[str, Any]]) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.j2")).render(
        title=", ".join(model["name"] for model in packed),
        style=_part("page.css"),
        weights=_part("weights.js"),
        script=_part("page.js"),
        data=json_text(packed, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        version=__version__,
    )


def _keep_all(view: ModelView, heads: int) -> list[PageLayer]:
    if not view.records:
        raise ValueError(f"{view.name} has no records; run the model inside `with lens.capture(model)`")
    layers = []
    for record in view.records:
        tokens = record.tokens if isinstance(record, PageLayer) else record.shape[3]
        if tokens != len(view.tokens):
            module = record.facts["module"] if isinstance(record, PageLayer) else record.module
            raise ValueError(f"{module} has {tokens} tokens but {len(view.tokens)} were named; give one name per token")
        layers.append(record if isinstance(record, PageLayer) else keep(record, heads=heads))
    return layers


def _opens(layers: Sequence[PageLayer]) -> int:
    """The layer that a page opens with: the first of those that fail worst, else the last."""
    ranks = [_rank(layer) for layer in layers]
    return ranks.index(min(ranks)) if min(ranks) < _PROVED else len(layers) - 1


def _rank(layer: PageLayer) -> int:
    """0 without a distance, for NaN or infinity; 1 for one that is too large."""
    found = layer.reconstruction_error
    return _PROVED if found.passed else int(math.isfinite(found.lens + found.error))


def _is_fine(layers: Sequence[PageLayer], place: int) -> bool:
    """Whether a layer has the most bits."""
    return place == _opens(layers) or not layers[place].reconstruction_error.passed


def _is_wide(layer: PageLayer) -> bool:
    """Whether fewer heads would make it smaller: they have keys of their own."""
    return layer.different > _FEWEST


def _halved(layer: PageLayer) -> PageLayer:
    return layer.some(max(_FEWEST, len(layer.facts["heads"]) // 2)) if _is_wide(layer) else layer


def _choose_steps(kept: Sequence[Sequence[PageLayer]], others: int) -> tuple[int, int] | None:
    """The most with which the page takes about `_AIM` bytes, of layers that have the most bits and of the others."""
    size = cache(lambda m, p, steps: kept[m][p].size(steps))
    every = [(m, p, _is_fine(layers, p)) for m, layers in enumerate(kept) for p in range(len(layers))]
    for fine, rest in _STEPS:
        if others + sum(size(m, p, fine if first else rest) for m, p, first in every) <= _AIM:
            return fine, rest
    return None


def _other_bytes(view: ModelView) -> int:
    return len(json_text([view.tokens, view.predictions], ensure_ascii=False).encode(errors="replace"))


def _pack_model(view: ModelView, layers: Sequence[PageLayer], fine: int, rest: int) -> dict[str, Any]:
    packed = {
        "name": view.name,
        "facts": view.facts,
        "tokens": list(view.tokens),
        "position": len(view.tokens) - 1 if view.position is None else view.position,
        "opens": _opens(layers),
        "layers": [layer.encode(fine if _is_fine(layers, p) else rest) for p, layer in enumerate(layers)],
        "not_gated": [asdict(layer) for layer in view.ungated],
        "predictions": view.predictions,
    }
    found: dict[str, Any] = finite(packed)
    return found


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
