"""One stand-alone interactive page: choose layer, head and position; weights are computed in the browser."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from gladient._files import write_atomically
from gladient.lens._layers import Ungated
from gladient.lens._pack import choose_heads, pack_layer
from gladient.lens._record import Record

__all__ = ["ModelView", "pack", "render", "write_packed", "write_page"]


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
    """

    name: str
    tokens: Sequence[str]
    records: Sequence[Record]
    facts: str = ""
    position: int | None = None
    ungated: Sequence[Ungated] = ()


def write_page(path: Path, views: Sequence[ModelView], *, heads: int = 32, max_bytes: int = 2**26) -> int:
    """Write the page, whole or not at all.

    It holds operands, linear in the tokens, not weights, which the browser computes from them: queries and keys in
    float16, each head scaled by its largest entry, all else in float32. Gate weights are within 1e-4 of the record's,
    similarity and attention within 1e-3 of the largest |q| |k|.

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
    return [_pack_model(view, heads, last, on_head) for view in views]


def render(packed: Sequence[dict[str, Any]]) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.j2")).render(
        title=", ".join(model["name"] for model in packed),
        style=_part("page.css"),
        script=_part("page.js"),
        data=json.dumps(packed, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
        precision="2⁻¹¹",
        version=version("gladient"),
    )


def _pack_model(view: ModelView, heads: int, last: int, on_head: Callable[[], None]) -> dict[str, Any]:
    if not view.records:
        raise ValueError(f"{view.name} has no records; run the model inside `with lens.capture(model)`")
    wrong = [record for record in view.records if record.shape[3] != len(view.tokens)]
    if wrong:
        raise ValueError(
            f"{wrong[0].module} has {wrong[0].shape[3]} tokens but {len(view.tokens)} were named; give one name a token"
        )
    return {
        "name": view.name,
        "facts": view.facts,
        "tokens": list(view.tokens),
        "position": len(view.tokens) - 1 if view.position is None else view.position,
        "not_gated": [asdict(layer) for layer in view.ungated],
        "layers": [
            pack_layer(record, choose_heads(record.recurrence, heads), last=last, on_head=on_head)
            for record in view.records
        ],
    }


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
