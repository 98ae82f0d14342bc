"""What tests of the lens' page share: the numbers that it holds, and what is done on it."""

import base64
import zlib
from typing import Any

import numpy as np
import pytest

from browser import CHROMIUM, Page
from gladient import lens
from gladient.lens import page

__all__ = ["CENTRES", "choose_on", "needs_browser", "number", "planes", "point", "records_of", "select", "wait_for"]

needs_browser = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")


def records_of(shown: page.ModelView) -> list[lens.Record]:
    return [record for record in shown.records if isinstance(record, lens.Record)]


def planes(text: str, dtype: str) -> np.ndarray:
    """Deflated numbers whose bytes of equal weight lie together."""
    raw, size = zlib.decompress(base64.b64decode(text)), np.dtype(dtype).itemsize
    return np.frombuffer(np.frombuffer(raw, "u1").reshape(size, -1).T.tobytes(), dtype).astype(float)


def number(packed: dict[str, Any], head: int, heads: int) -> np.ndarray:
    """A head's operand, decoded by NumPy."""
    if "f32" in packed:
        values = planes(packed["f32"], "<f4")
    else:
        scales = planes(packed["scales"], "<f4")
        values = planes(packed["integers"], f"<i{packed['bytes']}").reshape(len(scales), -1) * scales[:, None]
    parts = max(packed["of"]) + 1 if "of" in packed else heads
    return values.reshape(parts, -1)[packed["of"][head] if "of" in packed else head]


def wait_for(opened: Page, ready: str) -> None:
    """Until the page has drawn what it was asked for that many times."""
    script = f"new Promise(done => {{ const look = () => document.body.dataset.ready === '{ready}' ? done() : "
    opened.run(script + "setTimeout(look, 5); look() })")


def choose_on(opened: Page, name: str, value: int) -> None:
    event = "input" if name == "position" else "change"
    change = f"s => {{ s.value = {value}; s.dispatchEvent(new Event('{event}')) }}"
    before = int(opened.run("document.body.dataset.ready"))
    opened.run(f"({change})(document.getElementById('{name}'))")
    wait_for(opened, str(before + (name in ("model", "layer", "head"))))


def select(opened: Page, name: str, value: str) -> None:
    change = f"s => {{ s.value = '{value}'; s.dispatchEvent(new Event('change')) }}"
    opened.run(f"({change})(document.getElementById('{name}'))")


CENTRES = """(place => [...document.querySelectorAll(place)].map(e => {
  e.scrollIntoView({ block: "center" });
  const r = e.getClientRects()[0];
  return [r.x + r.width / 2, r.y + r.height / 2] }).slice(-1))"""


def point(opened: Page, kind: str, at: list[float]) -> None:
    opened.call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1])
