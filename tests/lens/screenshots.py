"""The pictures of docs/lens.md, from pages in Chromium: PYTHONPATH=tests python tests/lens/screenshots.py [FOLDER]

Trains the models of `gladient lens demo` if that was not done yet, about a minute and a half.
"""

import random
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tiny import MODELS
from torch.nn import functional

from browser import open_page
from gladient import lens
from gladient.experiments.demo.models import load_demo
from gladient.experiments.demo.story import encode, split_words, story, with_spaces
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


def changed() -> list[page.ModelView]:
    """The demo's GLA as it is, without gates, and what these are worth."""
    gla = load_demo()[0]
    see = partial(look, gla, None, max_bytes=2**31, outputs=True)
    draw = random.Random(0)
    texts = [encode([story(64, draw)])[0] for _ in range(40)]
    found = lens.worth(gla.module, texts[:32], calibrate=texts[32:])
    print(found)
    first = see()
    lengths = lens.memory_lengths(gla.module, texts)
    after = see(change=lens.intervene(gla.module, lens.fix_gates(0.0)), label="fix_gates=0", like=first)
    return [replace(first, worth=found, lengths=lengths), after]


# Name of the picture: the page, its size, dark, what is done on it, where it is scrolled to.
BESIDE = "document.getElementById('beside-card').offsetTop - 130"
PICK = "(([id, value]) => { const s = document.getElementById(id); s.value = value; s.onchange({ target: s }) })"
PAGES = {
    "lens": (demo, (1280, 1200), False, "0", "0"),
    "lens-heads": (changed, (1000, 500), False, f"{PICK}(['measure', 'fixed'])", "0"),
    "lens-beside": (changed, (1280, 1060), False, f"{PICK}(['quantity', 'gates'])", BESIDE),
    "lens-delta": (delta, (1280, 1060), False, "0", "0"),
    "lens-proof": (hybrid, (1280, 760), True, "0", "document.body.scrollHeight"),
}


def main(folder: Path, names: list[str]) -> None:
    for name, (make, (width, height), dark, act, top) in PAGES.items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as made:
            path = Path(made) / "lens.html"
            page.write_page(path, make())
            with open_page(path, width=width, height=height, dark=dark) as opened:
                ready = "document.body.dataset.ready ? done() : setTimeout(look, 20)"
                opened.run(f"new Promise(done => {{ const look = () => {ready}; look() }})")
                opened.run(act)
                opened.run(f"window.scrollTo(0, {top})")
                opened.screenshot(folder / f"{name}.png")
                print(folder / f"{name}.png", *opened.errors)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"), sys.argv[2:])
