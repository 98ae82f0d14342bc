"""One stand-alone interactive page: choose layer, head and position; weights are computed in the browser."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from gladient import __version__
from gladient._files import write_atomically
from gladient._text import finite, json_text
from gladient.lens.corpus import MemoryLengths
from gladient.lens.encode import FINE, Rows
from gladient.lens.gate_worth import HeadWorth, Rise, Worth
from gladient.lens.layers import Ungated
from gladient.lens.pack import PageLayer, keep, moved
from gladient.lens.records import Record

__all__ = ["ModelView", "PageLayer", "keep", "pack", "render", "write_packed", "write_page"]

_AIM = 2**23 - 2**15  # bytes of a page, which are estimated before it is made
# Steps of queries and keys in the layer that a page opens with and in the others: the first that fit are taken.
_STEPS = [(FINE, FINE), (FINE, 127), (FINE, 63), (FINE, 31), (127, 31), (127, 15), (63, 15), (63, 7), (31, 7), (15, 7)]
_STEPS += [(7, 7), (15, 3), (7, 3)]
_PROVED = 2  # rank of layers that do not fail
_FEWEST = 4  # heads of a layer that are kept however large the page
_MOVED = 127  # steps of how far an output moves: 1% of the largest is seen
_SCRIPTS = ("weights.js", "draw.js", "overview.js", "beside.js", "page.js")  # each knows those before it


@dataclass(frozen=True)
class ModelView:
    """A model that read one text: what a page shows of it.

    Views of one name are of one model, with labels that tell them apart: as it is, inside `intervene`, with another
    text. The page puts two of them beside each other. Of one that reads the same text as the first of its name it says
    how far outputs moved.

    Args:
        name: the model's name.
        tokens: the text, one string per token; put together they are the text.
        records: one for each layer, of a batch of one, with all queries; or what `keep` made of them.
        facts: one line about the model.
        position: the query that the page shows first; the last if not given.
        ungated: its layers of attention.
        predictions: for each token, the model's likeliest next ones with their probabilities.
        label: what tells the view apart from others of the model, such as "scale_gates=2".
        losses: for each token, the loss at its successor, in nats.
        worth: what gates are worth, as `lens.worth` found it, or rows of it.
        lengths: memory lengths over other texts.
    """

    name: str
    tokens: Sequence[str]
    records: Sequence[Record | PageLayer]
    facts: str = ""
    position: int | None = None
    ungated: Sequence[Ungated] = ()
    predictions: Sequence[Sequence[tuple[str, float]]] | None = None
    label: str = ""
    losses: Sequence[float] | None = None
    worth: Worth | Sequence[HeadWorth] = ()
    lengths: MemoryLengths | None = None


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
    kept = _keep_all(views, heads)
    others = len(render([])) + sum(_other_bytes(view) for view in views)
    while not (found := _choose_steps(kept, others)) and any(_is_wide(layer) for layers in kept for layer in layers):
        kept = _halve(views, kept)
    fine, rest = found or _STEPS[-1]
    bases = [_base(views, place) for place in range(len(views))]
    return [
        _pack_model(view, layers, (fine, rest), base, [] if base is None else kept[base])
        for view, layers, base in zip(views, kept, bases, strict=True)
    ]


def render(packed: Sequence[dict[str, Any]]) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.j2")).render(
        title=", ".join(model["name"] for model in packed),
        style=_part("page.css"),
        scripts=[_part(name) for name in _SCRIPTS],
        data=json_text(packed, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        version=__version__,
    )


def _keep_all(views: Sequence[ModelView], heads: int) -> list[list[PageLayer]]:
    """Of views of one model the same heads, and their outputs, to compare them."""
    names, same = [view.name for view in views], dict[tuple[str, int], list[int]]()
    kept = []
    for view in views:
        _check(view)
        layers = []
        for record in view.records:
            if isinstance(record, PageLayer):
                layer = record
            else:
                chosen = same.get((view.name, record.layer), heads)
                layer = keep(record, heads=chosen, outputs=names.count(view.name) > 1)
            same.setdefault((view.name, layer.facts["layer"]), layer.facts["heads"])
            layers.append(layer)
        kept.append(layers)
    return kept


def _check(view: ModelView) -> None:
    if not view.records:
        raise ValueError(f"{view.name} has no records; run the model inside `with lens.capture(model)`")
    for record in view.records:
        tokens = record.tokens if isinstance(record, PageLayer) else record.shape[3]
        if tokens != len(view.tokens):
            module = record.facts["module"] if isinstance(record, PageLayer) else record.module
            raise ValueError(f"{module} has {tokens} tokens but {len(view.tokens)} were named; give one name per token")


def _halve(views: Sequence[ModelView], kept: Sequence[Sequence[PageLayer]]) -> list[list[PageLayer]]:
    """Half of the heads, the same ones in all views of a model that have them."""
    same: dict[tuple[str, int], list[int]] = {}

    def halved(name: str, layer: PageLayer) -> PageLayer:
        if not _is_wide(layer):
            return layer
        known = layer.facts["heads"]
        chosen = [head for head in same.get((name, layer.facts["layer"]), []) if head in known]
        found = layer.some(chosen or max(_FEWEST, len(known) // 2))
        same.setdefault((name, layer.facts["layer"]), found.facts["heads"])
        return found

    return [[halved(view.name, layer) for layer in layers] for view, layers in zip(views, kept, strict=True)]


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


def _choose_steps(kept: Sequence[Sequence[PageLayer]], others: int) -> tuple[int, int] | None:
    """The most with which the page takes about `_AIM` bytes, of layers that have the most bits and of the others."""
    size = cache(lambda m, p, steps: kept[m][p].size(steps))
    every = [(m, p, _is_fine(layers, p)) for m, layers in enumerate(kept) for p in range(len(layers))]
    for fine, rest in _STEPS:
        if others + sum(size(m, p, fine if first else rest) for m, p, first in every) <= _AIM:
            return fine, rest
    return None


def _other_bytes(view: ModelView) -> int:
    return len(json_text([view.tokens, view.predictions, view.losses], ensure_ascii=False).encode(errors="replace"))


def _base(views: Sequence[ModelView], place: int) -> int | None:
    """The first view of the same model and text, if it is before this one."""
    this = views[place]
    same = (other.name == this.name and list(other.tokens) == list(this.tokens) for other in views[:place])
    return next((place for place, found in enumerate(same) if found), None)


def _pack_model(
    view: ModelView, layers: Sequence[PageLayer], steps: tuple[int, int], base: int | None, before: Sequence[PageLayer]
) -> dict[str, Any]:
    was = {layer.facts["layer"]: layer for layer in before}
    together = [row for row in _rows(view) if row.layer is None]
    packed = {
        "name": view.name,
        "label": view.label,
        "facts": view.facts,
        "tokens": list(view.tokens),
        "position": len(view.tokens) - 1 if view.position is None else view.position,
        "opens": _opens(layers),
        "layers": [
            _pack_layer(view, layer, steps[not _is_fine(layers, place)], was.get(layer.facts["layer"]))
            for place, layer in enumerate(layers)
        ],
        "not_gated": [asdict(layer) for layer in view.ungated],
        "predictions": view.predictions,
        "losses": view.losses,
        "base": base,
        "texts": view.lengths.texts if view.lengths else 0,
        "together": _rises(together[0]) if together else None,
    }
    found: dict[str, Any] = finite(packed)
    return found


def _pack_layer(view: ModelView, layer: PageLayer, steps: int, was: PageLayer | None) -> dict[str, Any]:
    """With what is known of its heads besides."""
    packed = layer.encode(steps)
    known: list[dict[str, Any]] = [{} for _ in packed["heads"]]
    worth = {(row.layer, row.head): row for row in _rows(view)}
    lengths = None if view.lengths is None else view.lengths.lengths.get(packed["layer"])
    for head, found in zip(packed["heads"], known, strict=True):
        if (row := worth.get((packed["layer"], head))) is not None:
            found["worth"] = _rises(row)
        if lengths is not None:
            found["corpus"] = [lengths[:, head].mean().item(), lengths[:, head].std().item()]
    far = None if was is None else moved(was, layer)
    if far is not None:
        packed["moved"] = Rows.of_rows(far).encode(_MOVED)
        for found, each in zip(known, far.square().mean(1).sqrt().tolist(), strict=True):
            found["moved"] = each
    return packed | {"summary": [a | b for a, b in zip(packed["summary"], known, strict=True)]}


def _rows(view: ModelView) -> Sequence[HeadWorth]:
    found = view.worth
    return (found.together, *found.heads) if isinstance(found, Worth) else found


def _rises(row: HeadWorth) -> dict[str, tuple[float, float]]:
    """Mean and standard error of each that was measured."""
    found = {field.name: getattr(row, field.name) for field in fields(row)}
    return {name: (rise.mean, rise.error) for name, rise in found.items() if isinstance(rise, Rise)}


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
