"""The page: what it holds is the records', what the browser makes of it are their weights; nothing from outside."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROMIUM, open_page
from tiny import MODELS

from gladient import lens
from gladient.lens import page

# One of each kind of recurrence: shared scalar gates, key gates with a rate, a normaliser read before the write,
# an input gate, fixed gates of 0, and the delta rule with scalar and with key gates.
KINDS = ["mamba2", "mamba", "rwkv4", "xlstm", "recurrentgemma", "gladient", "qwen3-next", "kimi-linear"]
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")


def view(name: str, tokens: int = 24) -> page.ModelView:
    tiny = MODELS[name]
    ids = torch.randint(3, tiny.vocabulary, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    model = tiny.build(0)
    with torch.no_grad(), lens.capture(model) as trace:
        model(input_ids=ids)
    return page.ModelView(name, [f" <w&{i}>" for i in ids[0].tolist()], trace.records, "a fact")


def number(packed: dict[str, Any], head: int, heads: int) -> np.ndarray:
    """A head's operand, decoded by NumPy."""
    if "f16" in packed:
        values = np.frombuffer(base64.b64decode(packed["f16"]), "<f2").astype(float)
        values = values.reshape(len(packed["scales"]), -1) * np.array(packed["scales"])[:, None]
        return values[packed["of"][head]]
    values = np.frombuffer(base64.b64decode(packed["f32"]), "<f4").astype(float)
    parts = max(packed["of"]) + 1 if "of" in packed else heads
    return values.reshape(parts, -1)[packed["of"][head] if "of" in packed else head]


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.data = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "link", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script" and data.startswith("["):
            self.data = data


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[page.ModelView], Path]:
    views = [view(name) for name in KINDS]
    path = tmp_path_factory.mktemp("page") / "lens.html"
    page.write_page(path, views)
    return views, path


def test_html_is_whole_and_refers_to_nothing(shown: tuple[list[page.ModelView], Path]) -> None:
    views, path = shown
    reader, text = Reader(), path.read_text("utf-8")
    reader.feed(text)
    assert reader.open == []
    assert [link for link in reader.links if not link.startswith("data:")] == []
    assert not re.search(r"https?://|@import|\burl\(", text)
    models = json.loads(reader.data)
    assert [model["tokens"] for model in models] == [list(view.tokens) for view in views]


@pytest.mark.parametrize("index", range(len(KINDS)), ids=KINDS)
def test_operands_are_the_records(shown: tuple[list[page.ModelView], Path], index: int) -> None:
    views, path = shown
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    for record, layer in zip(views[index].records, json.loads(reader.data)[index]["layers"], strict=True):
        x, heads = record.recurrence.double(), layer["heads"]
        for place, head in enumerate(heads):
            for name, tensor in (("q", x.q), ("k", x.k)):
                wanted = tensor[0, :, head].flatten().numpy()
                np.testing.assert_allclose(
                    number(layer[name], place, len(heads)), wanted, rtol=0, atol=2**-11 * np.abs(wanted).max()
                )
            if x.log_gates is not None and "rate" not in layer:
                wanted = x.log_gates[0, :, head].flatten().numpy()
                np.testing.assert_allclose(number(layer["gates"], place, len(heads)), wanted, rtol=1e-6)
        assert layer["reconstruction"]["passed"]


@pytest.mark.parametrize("name", ["mamba2", "mamba"])
def test_weights_follow_from_the_operands(shown: tuple[list[page.ModelView], Path], name: str) -> None:
    """Plain loops over what the page holds give the record's gate weights and attention."""
    views, path = shown
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    record, layer = views[KINDS.index(name)].records[0], json.loads(reader.data)[KINDS.index(name)]["layers"][0]
    heads, K, head = len(layer["heads"]), layer["size"], layer["heads"][1]
    q, k, gates = (number(layer[part], 1, heads) for part in ("q", "k", "gates"))
    rate = number(layer["rate"], 1, heads) if "rate" in layer else np.ones(1)
    q, k = q.reshape(-1, K), k.reshape(-1, K)
    T = len(q)
    logs = gates.reshape(T, -1) * rate
    found, attended = np.zeros((T, T)), np.zeros((T, T))
    for t in range(T):
        for i in range(t + 1):
            weight = np.exp(logs[i + 1 : t + 1].sum(0))
            found[t, i] = weight.mean()
            attended[t, i] = (q[t] * weight * k[i]).sum()
    np.testing.assert_allclose(found, record.gate_weights(head)[0, 0], rtol=1e-4, atol=1e-7)
    most = np.linalg.norm(q, axis=1).max() * np.linalg.norm(k, axis=1).max()
    np.testing.assert_allclose(attended, record.implicit_attention(head)[0, 0], rtol=0, atol=1e-3 * most)


def test_a_thousand_tokens_are_light(tmp_path: Path) -> None:
    """Linear in the tokens: no weights are stored."""
    sizes = []
    for tokens in (250, 1000):
        page.write_page(tmp_path / "lens.html", [view("mamba2", tokens)])
        sizes.append((tmp_path / "lens.html").stat().st_size)
    assert sizes[1] < 500_000
    assert sizes[1] < 4 * sizes[0]


def test_heads_are_chosen_from_the_fastest_to_the_slowest(tmp_path: Path) -> None:
    packed = page.pack([view("mamba")], heads=3)
    layer = packed[0]["layers"][0]
    lengths = [head["memory_length"] for head in layer["summary"]]
    assert len(layer["heads"]) == 3 < layer["of"]
    assert max(lengths) > 1.2 * min(lengths)


def test_bad_input(tmp_path: Path) -> None:
    good = view("mamba2")
    out = tmp_path / "lens.html"
    with pytest.raises(ValueError, match="no records"):
        page.write_page(out, [page.ModelView("m", good.tokens, [])])
    with pytest.raises(ValueError, match="give one name a token"):
        page.write_page(out, [page.ModelView("m", good.tokens[1:], good.records)])
    with pytest.raises(ValueError, match="fewer layers or heads"):
        page.write_page(out, [good], max_bytes=1000)
    with pytest.raises(ValueError, match="at least 1"):
        page.write_page(out, [good], heads=0)
    model = MODELS["mamba2"].build(0)
    with torch.no_grad(), lens.capture(model, positions=3) as trace:
        model(input_ids=torch.ones(1, 24, dtype=torch.long))
    with pytest.raises(ValueError, match="1 of 24 queries"):
        page.write_page(out, [page.ModelView("m", good.tokens, trace.records)])
    assert list(tmp_path.iterdir()) == []


@needs_browser
def test_the_browser_computes_the_records_weights(shown: tuple[list[page.ModelView], Path]) -> None:
    views, path = shown
    with open_page(path) as opened:
        for m, each in enumerate(views):
            for n, record in enumerate(each.records):
                layer = opened.run(f"(({{heads, separable}}) => ({{heads, separable}}))(lens.models[{m}].layers[{n}])")
                for place, head in list(enumerate(layer["heads"]))[:2]:
                    run = f"lens.matrix(lens.operands(lens.models[{m}].layers[{n}], {place}))"
                    script = f"Object.fromEntries(Object.entries({run}).map(([n, v]) => [n, [...v]]))"
                    found = {name: np.reshape(values, (24, 24)) for name, values in opened.run(script).items()}
                    compare(record, head, found)
        assert opened.errors == []


def compare(record: lens.Record, head: int, found: dict[str, np.ndarray]) -> None:
    x = record.recurrence.double()
    most = (x.q[0, :, head].norm(dim=1).max() * x.k[0, :, head].norm(dim=1).max()).item()
    attention = record.implicit_attention(head)[0, 0].numpy()
    worst = 1e-3 * (most if x.normalise == "none" else np.abs(attention).max())
    np.testing.assert_allclose(found["product"], attention, rtol=1e-3, atol=worst)
    assert set(found) == ({"gates", "similarity", "product"} if record.recurrence.separable else {"product"})
    if record.recurrence.separable:
        np.testing.assert_allclose(found["gates"], record.gate_weights(head)[0, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["similarity"], record.similarity(head)[0, 0], rtol=0, atol=1e-3 * most)


PIXELS = """(id => {
  const c = document.getElementById(id), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  return new Set(Array.from({length: d.length / 4}, (_, i) => d.slice(4 * i, 4 * i + 4).join())).size })"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_draws_and_its_selectors_work(shown: tuple[list[page.ModelView], Path], dark: bool) -> None:
    views, path = shown
    with open_page(path, dark=dark) as opened:

        def choose(name: str, value: int) -> None:
            event = "input" if name == "position" else "change"
            change = f"s => {{ s.value = {value}; s.dispatchEvent(new Event('{event}')) }}"
            opened.run(f"({change})(document.getElementById('{name}'))")

        assert opened.run(f"{PIXELS}('map-gates')") > 20
        assert opened.run(f"{PIXELS}('map-product')") > 20
        assert "✓" in opened.run("document.getElementById('verdict').textContent")
        for m, each in enumerate(views):
            choose("model", m)
            assert each.name in opened.run("document.getElementById('title').textContent")
            separable = each.records[-1].recurrence.separable
            assert opened.run("document.querySelectorAll('#maps canvas').length") == (3 if separable else 1)
            by_channel = separable and each.records[-1].family == "key"
            assert ("channel by channel" in opened.run("document.body.innerText")) == by_channel
            assert ("do not separate" in opened.run("document.body.innerText")) == (not separable)
        choose("model", 0)
        before = opened.run("document.getElementById('map-product').toDataURL()")
        choose("layer", 0)
        choose("head", 2)
        assert opened.run("document.getElementById('map-product').toDataURL()") != before
        choose("position", 5)
        assert opened.run("document.querySelector('#strip .query').dataset.i") == "5"
        assert "<w&" in opened.run("document.querySelector('#strip .query').textContent")
        opened.run("document.getElementById('strip').focus()")
        opened.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", code="ArrowLeft")
        assert opened.run("document.getElementById('position').value") == "4"
        inside = "r => [r.x + r.width * .05, r.y + r.height * .6]"
        place = opened.run(f"({inside})(document.getElementById('map-gates').getBoundingClientRect())")
        opened.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        assert "Γ" in opened.run("document.getElementById('tip').textContent")
        assert opened.run("document.getElementById('tip').hidden") is False
        assert opened.run("[...document.querySelectorAll('select, input')].every(e => e.labels.length)")
        assert opened.requests == [path.resolve().as_uri()]
        assert opened.errors == []
