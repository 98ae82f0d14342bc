"""`gladient lens`: the token weights of a real model's gates, on one interactive page or as JSON."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gladient._text import json_text, printable
from gladient.cli.changes import read_change, read_inputs
from gladient.cli.numbers import AnyFile, Whole, Wholes, html_file
from gladient.cli.progress import Report, reporting

if TYPE_CHECKING:
    from torch import nn

    from gladient.lens import MemoryLengths
    from gladient.lens.load import Loaded
    from gladient.lens.page import ModelView

__all__ = ["Lens"]

_TEXTS = 64  # of a corpus: the mean over them is off by an eighth of the spread
_LETTERS = 32  # of a token, that a corpus is cut to before it is read: few are as long
_MAX_BYTES = 2**31  # for the record of a layer, and for one request for weights


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Token weights that a model's gates induce: one stand-alone page, each layer proved by reconstruction.

    Example: gladient lens demo --change scale_gates=2 --out lens.html

    The page computes weights in the browser from what the layers computed; it needs no network. Exit code 1: a layer
    was not rebuilt within its tolerance.
    """

    model: Annotated[str, tyro.conf.Positional]
    """A folder with a model of transformers, its name on the hub (owner/name), or demo: two small models, trained here
    once."""
    text: str | None = None
    """What the model reads; demo has a text of its own."""
    file: AnyFile = None
    """A UTF-8 file with the text instead."""
    inputs: AnyFile = None
    """What the model is given instead of a text: arrays of an .npz file, by the names that its forward takes."""
    beside: str | None = None
    """A second text, to be shown beside the first."""
    change: str | None = None
    """Show the model changed, beside itself: scale_gates=2, fix_gates=-0.1 (log gates), scale_erase=0, keep_window=8,
    knock_out=3,5 (tokens), drop_tokens=3, ablate."""
    at: str | None = None
    """Where it is changed: a layer, 3, or one of its heads, 3.1; left out: everywhere."""
    corpus: AnyFile = None
    """A UTF-8 file of other texts: how far memory lengths differ over them, each as long as the text, at most 64."""
    worth: AnyFile = None
    """What gates are worth: the table that gladient worth --out FILE wrote, CSV or Parquet."""
    out: AnyFile = None
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
        self._check()
        text, corpus = self._text(), _read(self.corpus)
        change = None if self.change is None else read_change(self.change, self.at)
        if self.model != "demo":
            from gladient.lens.names import find_folder

            find_folder(self.model)  # a mistyped path is refused before anything large is imported
        with reporting() as report:
            loaded = _models(self.model, report, reads_text=self.inputs is None)
            views = [view for each in loaded for view in self._views(each, text, corpus, change, report)]
        from gladient.lens.page import pack, write_packed

        packed = pack(views)
        if out is not None:
            size = write_packed(out, packed)
            print(f"{printable(out)}: {size / 2**20:.2f} MiB", file=sys.stderr if self.json else sys.stdout)
        print(json_text(_summaries(packed)) if self.json else "\n".join(map(_line, packed)))
        return 0 if all(layer["reconstruction"]["passed"] for model in packed for layer in model["layers"]) else 1

    def _check(self) -> None:
        if self.heads < 1 or self.max_tokens < 1:
            raise ValueError(f"--heads is {self.heads}, --max-tokens {self.max_tokens}; each must be at least 1")
        given = [name for name in ("text", "file", "inputs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"both --{given[0]} and --{given[1]} are given; what is read comes from one of them")
        if not given and self.model != "demo":
            raise ValueError('no text is given; add --text "…", --file PATH, or --inputs FILE.npz')
        if self.inputs is not None and (self.model == "demo" or self.beside is not None or self.corpus is not None):
            raise ValueError("--inputs are of one call of a model; leave demo, --beside and --corpus out")
        for path in (self.inputs, self.worth):  # said now, not when the model has run
            if path is not None and not path.is_file():
                raise FileNotFoundError(2, "No such file", str(path))
        if self.at is not None and self.change is None:
            raise ValueError("--at says where a change is made, and there is none; add --change NAME=VALUE")

    def _text(self) -> str | None:
        text = self.text if self.file is None else _read(self.file)
        if any(each is not None and not each.strip() for each in (text, self.beside)):
            raise ValueError("the text is empty; give at least one word")
        for name, each, cure in (("text", self.text, "--file {}"), ("beside", self.beside, '--beside "$(cat {})"')):
            if each is not None and _is_file(each):
                raise ValueError(f"--{name} takes the text itself, and {each} is a file; give {cure.format(each)}")
        return text

    def _views(
        self,
        loaded: "Loaded",
        text: str | None,
        corpus: str | None,
        change: "Callable[[nn.Module], AbstractContextManager[None]] | None",
        report: Report,
    ) -> "Iterator[ModelView]":
        from gladient.lens.load import look
        from gladient.lens.worth_table import read_worth

        def see(label: str, text: str | None, **options: Any) -> "ModelView":
            return look(
                loaded,
                text,
                inputs=None if self.inputs is None else read_inputs(self.inputs),
                layers=self.layers or None,
                heads=self.heads,
                max_tokens=self.max_tokens,
                max_bytes=_MAX_BYTES,
                on_layer=lambda done, of: report(
                    ", ".join(filter(None, [f"layers of {loaded.name}", label])), done, of
                ),
                label=label,
                **options,
            )

        worth = () if self.worth is None else read_worth(self.worth, loaded, named=self.model == "demo")
        first = see("", text, outputs=self.change is not None)
        lengths = None if corpus is None else self._lengths(loaded, corpus, len(first.tokens), report)
        yield replace(first, worth=worth, lengths=lengths)
        if change is not None:
            label = f"{self.change}" + ("" if self.at is None else f" at {self.at}")
            yield see(label, text, change=change(loaded.module), like=first, outputs=True)
        if self.beside is not None:
            yield see(f"“{shorten(self.beside, 24, placeholder='…')}”", self.beside, like=first)

    def _lengths(self, loaded: "Loaded", corpus: str, tokens: int, report: Report) -> "MemoryLengths":
        """Over the corpus, cut into texts of so many tokens."""
        from gladient.lens import memory_lengths

        ids, _ = loaded.encode(corpus[: _TEXTS * tokens * _LETTERS])
        texts = list(ids[0].split(tokens))[: min(_TEXTS, ids.shape[1] // tokens)]
        if len(texts) < 2:
            raise ValueError(
                f"{self.corpus} has {ids.shape[1]:,} tokens; at least two texts as long as the one shown take "
                f"{2 * tokens:,}"
            )
        return memory_lengths(
            loaded.module,
            texts,
            layers=self.layers or None,
            on_text=lambda done, of: report(f"texts of {self.corpus}", done, of),
            **loaded.options,
        )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a text too long for a name, or with a null byte
        return False


def _read(path: Path | None) -> str | None:
    try:
        return None if path is None else path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def _models(name: str, report: Report, *, reads_text: bool) -> "list[Loaded]":
    from gladient.lens.load import load_pretrained, require_transformers

    require_transformers()  # before anything is trained: the demo has a model of theirs too
    if name == "demo":
        from gladient.experiments.demo.models import load_demo

        return load_demo(on_step=lambda model, done, steps: report(f"training {model}", done, steps))
    report(f"loading {name}", 0, 1)
    loaded = load_pretrained(name, reads_text=reads_text)
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
    moved = [head["moved"] for layer in layers for head in layer["summary"] if head.get("moved") is not None]
    if moved:
        parts.append(f"outputs of heads moved by {min(moved):,.2%} to {max(moved):,.2%}")
    return printable(
        f"{_titled(model['name'], model['label'])}: {'; '.join([*parts, *filter(None, [model['facts']])])}"
    )


def _titled(name: str, label: str) -> str:
    return ", ".join(filter(None, [name, label]))


def _distances(layers: list[dict[str, Any]]) -> str:
    own = max(layers, key=lambda layer: layer["reconstruction"]["error"] / layer["reconstruction"]["tolerance"])
    rounding, most = own["reconstruction"], max(layer["reconstruction"]["lens"] for layer in layers)
    return (
        f": rebuilt outputs equal the exact recurrence to {most:.1e}, the model's own differ by "
        f"{rounding['error']:.1e} (layer {own['layer']}; rounding explains {rounding['tolerance']:.1e})"
    )


def _summaries(packed: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        _titled(model["name"], model["label"]): {
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
