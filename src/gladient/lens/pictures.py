"""Pictures of records with matplotlib: heat maps of a head, memory length over layers, a text coloured by weight."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from gladient.lens.records import Record
from gladient.pictures import INK, PALE, blank, frame

__all__ = ["heat_maps", "memory_profile", "token_strip"]

_BLUES = ["#f1f4f8", "#c9dcf2", "#86b4e4", "#3b82c9", "#14579f", "#08305f"]
_ORANGES = ["#f1f4f8", "#fadcc6", "#f0a675", "#d86b33", "#a5431a", "#5f2409"]
_UP = LinearSegmentedColormap.from_list("weights", _BLUES)
_BOTH = LinearSegmentedColormap.from_list("signed weights", [*_ORANGES[:0:-1], *_BLUES])
_TITLES = {
    "gate_weights": "Γ, the gates' weight",
    "signed_weights": "Γ cos φ, decay and turn",
    "similarity": "qᵀk, similarity",
    "implicit_attention": "implicit attention",
}
_LINE = 90  # characters of a strip's line


def heat_maps(record: Record, head: int, *, batch: int = 0) -> Figure:
    """Gate weights, similarity and implicit attention of one head; rows are queries, columns tokens.

    For the delta rule, whose weights do not separate, the exact implicit attention alone. Layers that rotate have a map
    besides of decay times the cosine of the turn, blue where a token is read as it was written, orange where reversed.
    """
    x = record.recurrence
    apart = ["gate_weights", "similarity"] if x.separable else []
    shown = {*apart, "implicit_attention", *(["signed_weights"] if x.phase is not None else [])}
    names = [name for name in _TITLES if name in shown]
    figure = blank(3.6 * len(names), 3.6)
    positions = record.recurrence.positions.numpy(force=True)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        weights = getattr(record, name)(head)[batch, 0].numpy(force=True)
        seen = np.arange(weights.shape[1]) <= positions[:, None]
        image = axes.imshow(
            np.ma.masked_where(~seen, weights), norm=_norm(weights, name), cmap=_colours(name), interpolation="nearest"
        )
        figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.9, pad=0.02)
        axes.set_title(_TITLES[name], fontsize=10)
        axes.set_xlabel("token")
        axes.set_ylabel("captured query" if len(positions) < weights.shape[1] else "query")
        frame(axes, grid=False)
    figure.suptitle(f"{record.module}, head {head}", fontsize=11)
    return figure


def memory_profile(records: Sequence[Record]) -> Figure:
    """Memory length, the mean age of the gates' weight, over layers: a dot a head, the median a line.

    Raises:
        ValueError: if there are no records.
    """
    if not records:
        raise ValueError("there are no records; run the model inside `with lens.capture(model)`")
    figure = blank(6.4, 3.6)
    axes = figure.subplots()
    lengths = [_memory_lengths(record) for record in records]
    for place, each in enumerate(lengths):
        spread = np.linspace(-0.25, 0.25, len(each)) if len(each) > 1 else np.zeros(1)
        axes.plot(place + spread, each, "o", color=PALE, markersize=4, markeredgewidth=0)
    axes.plot([np.median(each) for each in lengths], color=INK, label="median")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(len(records)), [str(record.layer) for record in records])
    axes.set_xlabel("layer")
    axes.set_ylabel("memory length, tokens")
    axes.legend(frameon=False)
    frame(axes)
    return figure


def token_strip(
    record: Record,
    head: int,
    query: int,
    tokens: Sequence[str],
    *,
    weights: str = "implicit_attention",
    batch: int = 0,
) -> Figure:
    """The text, each token on the colour of its weight at one query, which is framed.

    Args:
        record: the layer's record.
        head: which of its heads.
        query: a captured position.
        tokens: one string per token.
        weights: gate_weights, signed_weights, similarity or implicit_attention.
        batch: which text.

    Raises:
        ValueError: if tokens and record do not go together, or `weights` is none of these.
    """
    if weights not in _TITLES or len(tokens) != record.shape[3]:
        raise ValueError(
            f"weights is {weights!r} and there are {len(tokens)} tokens; give one of {', '.join(_TITLES)} and one "
            f"string for each of {record.shape[3]} tokens"
        )
    row = getattr(record, weights)(head, query)[batch, 0, 0].numpy(force=True)
    norm, colours, places = _norm(row, weights), _colours(weights), _lay_out(tokens)
    figure = blank(10.0, 0.6 + 0.3 * (places[-1][1] + 1))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(0, _LINE)
    axes.set_ylim(places[-1][1] + 1, -1)
    query %= len(tokens)
    for place, (token, (x, line)) in enumerate(zip(tokens, places, strict=True)):
        colour = colours(norm(row[place])) if place <= query else (1, 1, 1, 0)
        ink = "#9aa6b5" if place > query else "white" if np.dot(colour[:3], [0.3, 0.59, 0.11]) < 0.5 else "#10161f"
        box = {"facecolor": colour, "edgecolor": INK if place == query else "none", "pad": 2}
        axes.text(x, line, _shown(token), family="monospace", fontsize=9, color=ink, bbox=box, va="center")
    axes.set_title(f"{record.module}, head {head}: {_TITLES[weights]} at token {query}", fontsize=10, loc="left")
    return figure


def _norm(weights: np.ndarray, name: str) -> Normalize:
    most = float(np.abs(weights).max()) or 1.0
    return Normalize(0 if name == "gate_weights" else -most, most)


def _colours(name: str) -> LinearSegmentedColormap:
    return _UP if name == "gate_weights" else _BOTH


def _memory_lengths(record: Record) -> Float[np.ndarray, " H"]:
    lengths = [record.summary(head).memory_length.item() for head in range(record.recurrence.heads)]
    return np.array(lengths)


def _shown(token: str) -> str:
    """As it can stand in a line; `$` would begin mathematics."""
    return token.replace("\n", "⏎").strip().replace("$", r"\$") or "␣"


def _lay_out(tokens: Sequence[str]) -> list[tuple[float, int]]:
    """Column and line of each token."""
    places: list[tuple[float, int]] = []
    x, line = 0.0, 0
    for token in tokens:
        width = len(_shown(token)) + 1.0
        if x + width > _LINE and x > 0:
            x, line = 0.0, line + 1
        places.append((x, line))
        x += width
    return places
