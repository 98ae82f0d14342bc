"""The pictures of docs/lens.md, from pages in Chromium: PYTHONPATH=tests python tests/lens/screenshots.py [FOLDER]

Trains the models of `gladient lens demo` if that was not done yet, about a minute and a half.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from tiny import MODELS
from torch.nn import functional

from browser import open_page
from gladient import lens
from gladient.experiments.demo.models import load_demo
from gladient.experiments.demo.story import encode, split_words, with_spaces
from gladient.lens import page
from gladient.lens.load import look

__all__ = ["PAGES"]

STORY = split_words(
    """a new day. Eve has the map. Ada has the key. Ben has the lamp. who has the map? Eve. who has the key? Ada.
    a new day. Ada has the map. Ben has the key. Eve has the lamp. who has the map? Ada. who has the lamp?"""
)


def demo() -> list[page.ModelView]:
    """What `gladient lens demo` shows."""
    return [look(loaded, None, max_bytes=2**31) for loaded in load_demo()]


def delta() -> list[page.ModelView]:
    """A delta rule that looks for the word that comes: what it wrote before the last time is erased."""
    different = list(dict.fromkeys(STORY))
    vectors = functional.normalize(torch.randn(len(different), 64, generator=torch.Generator().manual_seed(1)))
    k = vectors[[different.index(word) for word in STORY]][None, :, None]
    gates = torch.full(k.shape[:3], 0.97).log()
    record = lens.record(k, k, k, beta=torch.full(k.shape[:3], 0.95), g=gates, read="before", module="words")
    facts = "queries and keys are random vectors, one for each word; read before the write"
    return [page.ModelView("delta rule", with_spaces(STORY), [record], facts, len(STORY) - 2)]


def hybrid() -> list[page.ModelView]:
    """A tiny Qwen3-Next of random weights; values of one layer are bent by 1%, which its proof must see."""
    torch.manual_seed(0)
    model = MODELS["qwen3-next"].build(0)
    with torch.no_grad(), lens.capture(model) as trace:
        model(input_ids=encode([STORY]) % MODELS["qwen3-next"].vocabulary)
    first, *others = trace.records
    bent = replace(first, recurrence=replace(first.recurrence, v=1.01 * first.recurrence.v))
    facts = "random weights; the values of layer 0 are bent by 1% on purpose"
    return [page.ModelView("hybrid", with_spaces(STORY), [bent, *others], facts, None, trace.ungated)]


# Name of the picture: the page, its size, dark, where it is scrolled to.
PAGES = {
    "lens": (demo, (1280, 1160), False, "0"),
    "lens-delta": (delta, (1280, 900), False, "0"),
    "lens-proof": (hybrid, (1280, 760), True, "document.body.scrollHeight"),
}


def main(folder: Path, names: list[str]) -> None:
    for name, (make, (width, height), dark, top) in PAGES.items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "lens.html"
            page.write_page(path, make())
            with open_page(path, width=width, height=height, dark=dark) as opened:
                ready = "document.body.dataset.ready ? done() : setTimeout(look, 20)"
                opened.run(f"new Promise(done => {{ const look = () => {ready}; look() }})")
                opened.run(f"window.scrollTo(0, {top})")
                opened.screenshot(folder / f"{name}.png")
                print(folder / f"{name}.png", *opened.errors)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"), sys.argv[2:])
