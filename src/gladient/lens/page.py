"""One stand-alone interactive page: choose layer, head and position; weights are computed in the browser."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from gladient import __version__
from gladient._files import write_atomically
from gladient.lens._encode import FINE
from gladient.lens._layers import Ungated
from gladient.lens._pack import choose_heads, count_numbers, pack_layer
from gladient.lens._record import Record

__all__ = ["ModelView", "pack", "render", "write_packed", "write_page"]

_AIM = 2**23  # bytes of a page
_STEPS = (FINE, 127, 63, 31, 15)


@dataclass(frozen=True)
class ModelView:
    """A model that read one text: what a page shows of it.

    Args:
        name: of the model.
        tokens: the text, one string a token; put together they are the text.
        records: one for each layer, of a batch of one, with all queries.
        facts: one line about the model.
        position: the query that the page shows first; the last if not given.
        ungated: its layers of attention.
        predictions: for each token, the model's likeliest next ones with their probabilities.
    """

    name: str
    tokens: Sequence[str]
    records: Sequence[Record]
    facts: str = ""
    position: int | None = None
    ungated: Sequence[Ungated] = ()
    predictions: Sequence[Sequence[tuple[str, float]]] | None = None


def write_page(path: Path, views: Sequence[ModelView], *, heads: int = 32, max_bytes: int = 2**26) -> int:
    """Write the page, whole or not at all.

    It holds operands, linear in the tokens, not weights, which the browser computes from them. Gate weights are within
    2e-4 of the record's. Queries and keys of the layer that the page opens with, and of those that are not proved, have
    16 bits: similarity and attention are within 1e-3 of the largest |q| |k|. The other layers have as many bits, 16 to
    5, as let the page take about 8 MiB.

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


def write_packed(path: Path, packed: Sequence[dict[str, Any]], *, max_bytes: int = 2**26) -> int:
    """`write_page` of what `pack` returned."""
    page = render(packed).encode()
    if len(page) > max_bytes:
        raise ValueError(
            f"the page would take {len(page) / 2**20:.1f} MiB, more than {max_bytes / 2**20:.1f} MiB; choose fewer "
            "layers or heads, or a shorter text"
        )
    write_atomically(path, page)
    return len(page)


def pack(
    views: Sequence[ModelView],
    *,
    heads: int = 32,
    last: int = 8,
    on_head: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Operands, summaries and reconstruction of every layer, as JSON values.

    Args:
        views: one or more models.
        heads: the most heads of a layer to keep.
        last: k of the share of the weight on the last k tokens.
        on_head: called when a head is done.

    Raises:
        ValueError: if there is nothing to show, or records and tokens do not go together.
    """
    if heads < 1:
        raise ValueError(f"heads is {heads}; a page shows at least 1 of each layer")
    chosen = [_choose(view, heads) for view in views]
    steps = _choose_steps(views, chosen)
    return [_pack_model(view, entry, steps, last, on_head) for view, entry in zip(views, chosen, strict=True)]


def render(packed: Sequence[dict[str, Any]]) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.j2")).render(
        title=", ".join(model["name"] for model in packed),
        style=_part("page.css"),
        weights=_part("weights.js"),
        script=_part("page.js"),
        data=json.dumps(packed, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        version=__version__,
    )


@dataclass(frozen=True)
class _Chosen:
    """The layer that the page opens with, those in full precision, and the heads of each."""

    opens: int
    fine: set[int]
    heads: list[list[int]]


def _choose(view: ModelView, heads: int) -> _Chosen:
    if not view.records:
        raise ValueError(f"{view.name} has no records; run the model inside `with lens.capture(model)`")
    wrong = [record for record in view.records if record.shape[3] != len(view.tokens)]
    if wrong:
        raise ValueError(
            f"{wrong[0].module} has {wrong[0].shape[3]} tokens but {len(view.tokens)} were named; give one name a token"
        )
    failing = [place for place, record in enumerate(view.records) if not record.reconstruction_error.passed]
    opens = failing[0] if failing else len(view.records) - 1
    return _Chosen(opens, {opens, *failing}, [choose_heads(record.recurrence, heads) for record in view.records])


def _choose_steps(views: Sequence[ModelView], chosen: Sequence[_Chosen]) -> int:
    """Of queries and keys of the other layers: the most with which the page takes about `_AIM` bytes."""
    fine = coarse = 0.0
    for view, found in zip(views, chosen, strict=True):
        for place, (record, heads) in enumerate(zip(view.records, found.heads, strict=True)):
            own, others = count_numbers(record, heads)
            fine += 10 * others + (16 * own if place in found.fine else 0)
            coarse += 0 if place in found.fine else own
    bits = (_AIM * 8 * 3 / 4 - fine) / max(coarse, 1)  # base64 takes 4 bytes for 3
    return next((steps for steps in _STEPS if math.log2(steps) + 0.5 <= bits), _STEPS[-1])


def _pack_model(view: ModelView, chosen: _Chosen, steps: int, last: int, on_head: Callable[[], None]) -> dict[str, Any]:
    layers = [
        pack_layer(record, heads, steps=FINE if place in chosen.fine else steps, last=last, on_head=on_head)
        for place, (record, heads) in enumerate(zip(view.records, chosen.heads, strict=True))
    ]
    return {
        "name": view.name,
        "facts": view.facts,
        "tokens": list(view.tokens),
        "position": len(view.tokens) - 1 if view.position is None else view.position,
        "opens": chosen.opens,
        "layers": layers,
        "not_gated": [asdict(layer) for layer in view.ungated],
        "predictions": view.predictions,
    }


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
