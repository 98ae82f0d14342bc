"""`gladient lens`: the token weights of a real model's gates, on one interactive page or as JSON."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gladient._text import json_text, printable
from gladient.cli.numbers import Whole, Wholes, html_file
from gladient.cli.progress import Report, reporting

if TYPE_CHECKING:
    from gladient.lens.load import Loaded
    from gladient.lens.page import ModelView

__all__ = ["Lens"]

_MAX_BYTES = 2**31  # for the record of a layer, and for one request for weights


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Token weights that a model's gates induce: one stand-alone page, each layer proved by reconstruction.

    Example: gladient lens demo --out lens.html

    The page computes weights in the browser from what the layers computed; it needs no network. Exit code 1: a layer
    was not rebuilt within its tolerance.
    """

    model: Annotated[str, tyro.conf.Positional]
    """A folder with a model of transformers, its name on the hub (owner/name), or demo: two small models, trained here
    once."""
    text: str | None = None
    """What the model reads; demo has a text of its own."""
    file: Path | None = None
    """A UTF-8 file with the text instead."""
    out: Path | None = None
    """The page to write; left out: lens.html, none with --json."""
    layers: Wholes = ()
    """Numbers of the layers to show; left out: all."""
    heads: Whole = 32
    """The most heads to show per layer, of all memory lengths."""
    max_tokens: Whole = 2048
    """The longest text; a head's weights take 32 bytes times its square."""
    json: bool = False
    """Print what is known of each layer and head as one JSON object."""

    def run(self) -> int:
        """Write the page, print the summaries; 1 if a layer was not rebuilt."""
        out = html_file(self.out, None if self.json else "lens.html")
        text = self._text()
        if self.model != "demo":
            from gladient.lens.names import find_folder

            find_folder(self.model)  # a mistyped path is refused before anything large is imported
        with reporting() as report:
            views = [self._look(loaded, text, report) for loaded in _models(self.model, report)]
        from gladient.lens.page import pack, write_packed

        packed = pack(views)
        if out is not None:
            size = write_packed(out, packed)
            print(f"{printable(out)}: {size / 2**20:.2f} MiB", file=sys.stderr if self.json else sys.stdout)
        print(json_text(_summaries(packed)) if self.json else "\n".join(map(_line, packed)))
        return 0 if all(layer["reconstruction"]["passed"] for model in packed for layer in model["layers"]) else 1

    def _text(self) -> str | None:
        if self.heads < 1 or self.max_tokens < 1:
            raise ValueError(f"--heads is {self.heads}, --max-tokens {self.max_tokens}; each must be at least 1")
        if self.text is not None and self.file is not None:
            raise ValueError("both --text and --file are given; the text comes from one of them")
        if self.text is None and self.file is None and self.model != "demo":
            raise ValueError('no text is given; add --text "…" or --file PATH')
        try:
            text = self.text if self.file is None else self.file.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.file} is not UTF-8 text ({error.reason} at byte {error.start})") from None
        if text is not None and not text.strip():
            raise ValueError("the text is empty; give at least one word")
        return text

    def _look(self, loaded: "Loaded", text: str | None, report: Report) -> "ModelView":
        from gladient.lens.load import look

        return look(
            loaded,
            text,
            layers=self.layers or None,
            heads=self.heads,
            max_tokens=self.max_tokens,
            max_bytes=_MAX_BYTES,
            on_layer=lambda done, of: report(f"layers of {loaded.name}", done, of),
        )


def _models(name: str, report: Report) -> "list[Loaded]":
    from gladient.lens.load import load_pretrained, require_transformers

    require_transformers()  # before anything is trained: the demo has a model of theirs too
    if name == "demo":
        from gladient.experiments.demo.models import load_demo

        return load_demo(on_step=lambda model, done, steps: report(f"training {model}", done, steps))
    report(f"loading {name}", 0, 1)
    loaded = load_pretrained(name)
    report(f"loading {name}", 1, 1)
    return [loaded]


def _line(model: dict[str, Any]) -> str:
    layers = model["layers"]
    failed = [layer for layer in layers if not layer["reconstruction"]["passed"]]
    found = [
        layer for layer in layers if None not in (layer["reconstruction"]["lens"], layer["reconstruction"]["error"])
    ]
    parts = [f"{len(layers) - len(failed)} of {len(layers)} layers proved{_distances(found) if found else ''}"]
    if failed:
        worst = layers[model["opens"]]
        parts.append(f"layer {worst['layer']} is not: {worst['reconstruction']['reason']}")
    lengths = [head["memory_length"] for layer in layers for head in layer["summary"]]
    known = [length for length in lengths if length is not None]
    if known:
        parts.append(f"memory length of heads {min(known):.1f} to {max(known):.1f} tokens")
    if model["not_gated"]:
        kinds = sorted({layer["kind"] for layer in model["not_gated"]})
        others = ", ".join(str(layer["layer"]) for layer in model["not_gated"])
        parts.append(f"not gated: {'/'.join(kinds)} (layers {others})")
    return printable(f"{model['name']}: {'; '.join([*parts, *filter(None, [model['facts']])])}")


def _distances(layers: list[dict[str, Any]]) -> str:
    own = max(layers, key=lambda layer: layer["reconstruction"]["error"] / layer["reconstruction"]["tolerance"])
    rounding, most = own["reconstruction"], max(layer["reconstruction"]["lens"] for layer in layers)
    return (
        f": rebuilt outputs equal the exact recurrence to {most:.1e}, the model's own differ by "
        f"{rounding['error']:.1e} (layer {own['layer']}; rounding explains {rounding['tolerance']:.1e})"
    )


def _summaries(packed: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        model["name"]: {
            "tokens": len(model["tokens"]),
            "facts": model["facts"],
            "not_gated": model["not_gated"],
            "layers": [_summary(layer, model["tokens"]) for layer in model["layers"]],
        }
        for model in packed
    }


def _summary(layer: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    names = ("layer", "module", "architecture", "separable", "reconstruction")
    heads = [
        {"head": head, **found, "closing_tokens": [tokens[i].strip() for i in found["closing"]]}
        for head, found in zip(layer["heads"], layer["summary"], strict=True)
    ]
    return {name: layer[name] for name in names} | {
        "last_tokens": layer["last"],
        "of_heads": layer["of"],
        "heads": heads,
    }
