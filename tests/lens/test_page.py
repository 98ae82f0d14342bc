"""The page: what it holds is the records', what the browser makes of it are their weights; nothing from outside."""

import csv
import io
import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from on_page import CENTRES, choose_on, needs_browser, number, point, records_of, select, wait_for
from recurrences import make
from tiny import MODELS

from browser import open_page
from gladient import lens
from gladient.lens import page
from gladient.lens.encode import SHUT

# One of each kind of recurrence: shared scalar gates, key gates with a rate, a normaliser read before the write,
# an input gate, fixed gates of 0, and the delta rule with scalar and with key gates.
KINDS = ["mamba2", "mamba", "rwkv4", "xlstm", "recurrentgemma", "gladient", "qwen3-next", "kimi-linear"]


def view(name: str, tokens: int = 24) -> page.ModelView:
    tiny = MODELS[name]
    ids = torch.randint(3, tiny.vocabulary, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    model = tiny.build(0)
    with torch.no_grad(), lens.capture(model) as trace:
        model(input_ids=ids)
    words = [f" <w&{i}>" for i in ids[0].tolist()]
    return page.ModelView(name, words, trace.records, "a fact", None, trace.ungated, [[(word, 0.5)] for word in words])


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
    for record, layer in zip(records_of(views[index]), json.loads(reader.data)[index]["layers"], strict=True):
        x, heads = record.recurrence.turned.double(), layer["heads"]
        for place, head in enumerate(heads):
            for name, tensor in (("q", x.q), ("k", x.k)):
                wanted = tensor[0, :, head].flatten().numpy()
                np.testing.assert_allclose(
                    number(layer[name], place, len(heads)), wanted, rtol=0, atol=2**-15 * np.abs(wanted).max()
                )
            if x.log_gates is not None and "rate" not in layer:
                wanted = x.log_gates[0, :, head].clamp_min(SHUT).cumsum(0).numpy()
                found = number(layer["gates"], place, len(heads)).reshape(wanted.shape).cumsum(0)
                np.testing.assert_allclose(found, wanted, rtol=0, atol=2**-13)
        assert layer["reconstruction"]["passed"]


@pytest.mark.parametrize("name", ["mamba2", "mamba"])
def test_weights_follow_from_the_operands(shown: tuple[list[page.ModelView], Path], name: str) -> None:
    """Plain loops over what the page holds give the record's gate weights and attention."""
    views, path = shown
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    record, layer = records_of(views[KINDS.index(name)])[0], json.loads(reader.data)[KINDS.index(name)]["layers"][0]
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
    np.testing.assert_allclose(found, record.gate_weights(head)[0, 0], rtol=2e-4, atol=1e-7)
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
    with pytest.raises(ValueError, match="give one name per token"):
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
            for n, record in enumerate(records_of(each)):
                layer = opened.run(f"(({{heads, separable}}) => ({{heads, separable}}))(lens.models[{m}].layers[{n}])")
                for place, head in list(enumerate(layer["heads"]))[:2]:
                    run = f"lens.operands(lens.models[{m}].layers[{n}], {place})"
                    lists = "x => Object.fromEntries(Object.entries(lens.matrix(x)).map(([n, v]) => [n, [...v]]))"
                    script = f"{run}.then({lists})"
                    found = {name: np.reshape(values, (24, 24)) for name, values in opened.run(script).items()}
                    compare(record, head, found)
        assert opened.errors == []


@needs_browser
@pytest.mark.parametrize("gates", ["scalar", "key"])
def test_a_delta_rule_that_erases_by_keys_of_its_own(gates: str, tmp_path: Path) -> None:
    x = make(B=1, T=24, gates=gates, kind="erase", initial=False)
    record = lens.Record("mixer", 0, "by hand", 0, x)
    page.write_page(tmp_path / "lens.html", [page.ModelView("by hand", ["a"] * 24, [record])])
    with open_page(tmp_path / "lens.html") as opened:
        script = "lens.operands(lens.models[0].layers[0], 1).then(x => [...lens.matrix(x).product])"
        found = np.reshape(opened.run(script), (24, 24))
    wanted = record.implicit_attention(1)[0, 0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def compare(record: lens.Record, head: int, found: dict[str, np.ndarray]) -> None:
    x = record.recurrence.double()
    most = (x.q[0, :, head].norm(dim=1).max() * x.k[0, :, head].norm(dim=1).max()).item()
    attention = record.implicit_attention(head)[0, 0].numpy()
    worst = 1e-3 * (most if x.normalise == "none" else np.abs(attention).max())
    np.testing.assert_allclose(found["product"], attention, rtol=1e-3, atol=worst)
    np.testing.assert_allclose(found["gates"], record.gate_weights(head)[0, 0], rtol=2e-4, atol=1e-6)
    if not record.recurrence.separable:
        plain = replace(record, recurrence=replace(x, beta=None, erase_query=None, erase_key=None)).implicit_attention(
            head
        )[0, 0]
        assert x.beta is not None
        np.testing.assert_allclose(found["kept"], plain * x.beta[0, :, head], rtol=1e-3, atol=worst)
        np.testing.assert_allclose(found["erased"], found["product"] - found["kept"], rtol=0, atol=1e-6)
    else:
        np.testing.assert_allclose(found["similarity"], record.similarity(head)[0, 0], rtol=0, atol=1e-3 * most)


PIXELS = """(id => {
  const c = document.getElementById(id), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  return new Set(Array.from({length: d.length / 4}, (_, i) => d.slice(4 * i, 4 * i + 4).join())).size })"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_draws_and_its_selectors_work(shown: tuple[list[page.ModelView], Path], dark: bool) -> None:
    views, path = shown
    with open_page(path, dark=dark) as opened:
        choose = partial(choose_on, opened)
        wait_for(opened, "1")
        assert opened.run(f"{PIXELS}('map-gates')") > 20
        assert opened.run(f"{PIXELS}('map-product')") > 20
        assert "✓" in opened.run("document.getElementById('verdict').textContent")
        for m, each in enumerate(views):
            choose("model", m)
            assert each.name in opened.run("document.getElementById('title').textContent")
            separable, turns = (
                records_of(each)[-1].recurrence.separable,
                records_of(each)[-1].recurrence.phase is not None,
            )
            assert opened.run("document.querySelectorAll('#maps canvas').length") == (3 if separable else 4) + turns
            by_channel = separable and records_of(each)[-1].family == "key"
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
        assert "<w&" in opened.run("document.getElementById('next').textContent")
        choose("head", -1)
        assert "mean of" in opened.run("document.getElementById('head').selectedOptions[0].textContent")
        assert opened.run("[...document.querySelectorAll('select, input')].every(e => e.labels.length)")
        assert opened.requests == [path.resolve().as_uri()]
        assert opened.errors == []


@needs_browser
def test_means_and_files_are_the_heads(shown: tuple[list[page.ModelView], Path]) -> None:
    """The mean of all heads' attention, as the bytes of an .npy file; a row as CSV."""
    views, path = shown
    record = records_of(views[0])[0]
    with open_page(path) as opened:
        opened.run("layer = lens.models[0].layers[0]")
        opened.run("Promise.all(layer.heads.map((_, h) => lens.operands(layer, h))).then(found => { xs = found })")
        saved = "lens.npy(all.product, xs[0].T).arrayBuffer().then(b => [...new Uint8Array(b)])"
        data = bytes(opened.run(f"lens.readAll(xs).then(all => {saved})"))
        text = opened.run("lens.csv(lens.models[0].tokens, lens.read(xs, 9)).text()")
        assert opened.errors == []
    wanted = record.implicit_attention()[0].mean(0).numpy()
    np.testing.assert_allclose(np.load(io.BytesIO(data)), wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["token"] for row in rows] == list(views[0].tokens[:10])
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    found = [float(row["product"]) for row in rows]
    np.testing.assert_allclose(found, wanted[9, :10], rtol=0, atol=1e-3 * np.abs(wanted).max())


@needs_browser
def test_cells_that_a_spreadsheet_would_compute_are_text(shown: tuple[list[page.ModelView], Path]) -> None:
    """A quote before them, as OWASP asks; all others are the tokens."""
    plain = [" word", 'a "quoted", one', "two\nlines", "1", "'", " <w&1>"]
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", '-2+3+cmd|" /C calc"!A0']
    with open_page(shown[1]) as opened:
        tokens = [*plain, *formulas]
        text = opened.run(f"lens.csv({json.dumps(tokens)}, {{share: {[-0.5] * len(tokens)}}}).text()")
    found = [row["token"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert found == [*plain, *("'" + formula for formula in formulas)]


STRANGE = [
    "</script><script>throw 1</script>",
    "<img src=x onerror=alert(1)>",
    "\u202egnol",
    "\u200b",
    "\u2028",
    "\t\r",
]
STRANGE += ["\x1b[2J", "שלום", "می\u200cخواهم", "", "\ud800", "=cmd|' /C calc'!A0"]


@needs_browser
@pytest.mark.parametrize("tokens", [STRANGE, STRANGE[2:3]], ids=["many", "one"])
def test_strange_tokens_are_shown_as_they_are(tokens: list[str], tmp_path: Path) -> None:
    """One of them, and one head, is a page too."""
    T = len(tokens)
    x = make(B=1, T=T, H=1, gates="scalar", initial=False)
    record = lens.Record("mixer", 0, "<b>by hand", 0, x)
    page.write_page(str(tmp_path / "lens.html"), [page.ModelView("<i>one", tokens, [record])])
    with open_page(tmp_path / "lens.html") as opened:
        wait_for(opened, "1")
        strip = opened.run("document.getElementById('strip').textContent")
        assert "⟨202e⟩gnol" in strip
        assert not re.search("[\u202e\u200b\u2028\t\r\x1b]", strip)
        assert opened.run("document.querySelectorAll('#strip span').length") == T
        if T > 1:
            assert tokens[0] in strip
            assert "␉␍" in strip
            assert tokens[8] in strip
        assert opened.run("document.querySelectorAll('img, #strip b').length") == 0
        assert opened.errors == []


# What a layer may hold that is no number, and what the page says of it.
BROKEN = {
    "rate": "NaN or infinite: rate",
    "log_gates": "NaN or infinite: log_gates",
    "v": "NaN or infinite: v",
    "output": "NaN or infinite: output",
    "initial_state": "NaN or infinite: initial_state",
}


@needs_browser
@pytest.mark.parametrize("what", BROKEN)
def test_a_layer_with_nan_comes_first_with_its_reason(what: str, tmp_path: Path) -> None:
    good = view("mamba2")
    first, second = records_of(good)
    wrong = torch.inf if what in ("v", "initial_state") else torch.nan
    before = getattr(second.recurrence, what)
    after = torch.zeros(1, 4, 8, 8) if before is None else before.clone(memory_format=torch.contiguous_format)
    after.view(-1)[-1 if what == "initial_state" else 0] = wrong
    broken = replace(second, recurrence=replace(second.recurrence, **{what: after}))  # type: ignore[arg-type]
    bent = replace(first, recurrence=replace(first.recurrence, v=1.01 * first.recurrence.v))
    packed = page.pack([replace(good, records=[bent, broken], predictions=[[("a", float("nan"))]] * 24)])
    json.dumps(packed, allow_nan=False)
    assert BROKEN[what] in packed[0]["layers"][1]["reconstruction"]["reason"]
    page.write_packed(tmp_path / "lens.html", packed)
    with open_page(tmp_path / "lens.html") as opened:
        wait_for(opened, "1")
        rows = opened.run("[...document.querySelectorAll('#proof tbody tr')].map(r => r.innerText)")
        assert [row[0] for row in rows] == ["1", "0"]
        assert BROKEN[what] in rows[0]
        assert opened.run("document.getElementById('layer').value") == "1"
        for head in (*range(4), -1):
            choose_on(opened, "head", head)
            for quantity in ("closed", "gates", "product"):
                select(opened, "quantity", quantity)
        assert "NaN" not in opened.run("document.body.innerText").replace("NaN or infinite", "")
        assert opened.errors == []


@needs_browser
@pytest.mark.parametrize("name", ["mamba2", "recurrentgemma", "qwen3-next"])
def test_whatever_is_pointed_at_answers(name: str, shown: tuple[list[page.ModelView], Path]) -> None:
    """Every token, map, dot and step shows its tooltip; every button, key and touch does what it says."""
    _, path = shown
    with open_page(path) as opened:
        wait_for(opened, "1")
        opened.run("URL.createObjectURL = blob => { globalThis.saved = [...globalThis.saved ?? [], blob]; return '#' }")
        choose_on(opened, "model", KINDS.index(name))
        for place in ("#strip span", "#strip span:last-child", "#maps canvas", "#step svg", "#memory .head"):
            for at in opened.run(f"{CENTRES}({json.dumps(place)})"):
                opened.run("document.getElementById('tip').hidden = true")
                point(opened, "mouseMoved", at)
                assert opened.run("document.getElementById('tip').hidden") is False, place
                assert len(opened.run("document.getElementById('tip').textContent")) > 10
        (at,) = opened.run(f"{CENTRES}('#strip span[data-i=\"3\"]')")
        point(opened, "mouseMoved", at)
        assert "at 3 seen from" in opened.run("document.getElementById('tip').textContent")
        gates = "its gates close by" in opened.run("document.getElementById('tip').textContent")
        assert gates == bool(
            opened.run("[...document.getElementById('quantity').options].some(o => o.value === 'closed')")
        )
        for kind, points in (("touchStart", [{"x": at[0], "y": at[1]}]), ("touchEnd", [])):
            opened.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        opened.run("document.querySelector('#strip span[data-i=\"3\"]').click()")
        assert opened.run("document.getElementById('position').value") == "3"
        for place in ("strip", "map-product"):
            opened.run(f"document.getElementById('{place}').focus()")
            for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "a"):
                opened.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)
        for chosen in ("quantity", "scale"):
            for value in opened.run(f"[...document.getElementById('{chosen}').options].map(o => o.value)"):
                select(opened, chosen, value)
        opened.run("document.querySelectorAll('#maps button, #csv').forEach(b => b.click())")
        assert opened.run("saved.length") == opened.run("document.querySelectorAll('#maps canvas').length") + 1
        opened.run("document.querySelectorAll('#heads button, #proof button, #memory .head').forEach(b => b.onclick())")
        opened.run("new Promise(done => setTimeout(done, 50))")
        assert opened.errors == []


@needs_browser
def test_what_fails_or_is_unusual_comes_first_and_attention_is_grey(tmp_path: Path) -> None:
    good = view("mamba2")
    layers = [replace(record, layer=more + record.layer) for more in (0, 3, 6) for record in records_of(good)]
    bent = replace(layers[1].recurrence, v=1.01 * layers[1].recurrence.v)
    x = layers[3].recurrence
    rough = replace(x, output=x.output * (1 + 2e-6 * torch.linspace(-1, 1, x.output.shape[1])[:, None, None]))
    layers[1], layers[3] = replace(layers[1], recurrence=bent), replace(layers[3], recurrence=rough)
    assert [record.reconstruction_error.passed for record in layers] == [True, False, *[True] * 4]
    attention = [lens.Ungated(9, "model.<i>", "</script><b>Attention")]
    hostile = "</script><script>throw 1</script>\u2028"
    page.write_page(
        tmp_path / "lens.html", [replace(good, name=hostile, records=layers, ungated=attention, predictions=None)]
    )
    with open_page(tmp_path / "lens.html") as opened:
        wait_for(opened, "1")
        table = "[...document.querySelectorAll('#proof tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
        rows = opened.run(table)
        assert [row[0] for row in rows] == ["1", "4", "0", "3", "6", "7", "9"]
        assert "farther from the recurrence than rounding explains" in rows[0][2]
        assert "times as much as the median layer" in rows[1][2]
        assert rows[-1][2] == attention[0].kind
        assert opened.run("document.getElementById('layer').value") == "1"
        assert "1 of 6 layers are NOT proved" in opened.run("document.getElementById('verdict').textContent")
        assert opened.run("document.querySelectorAll('#layer option:disabled').length") == 1
        assert opened.errors == []


def test_a_page_that_would_be_large_keeps_fewer_bits_and_then_fewer_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    good, found = view("qwen3-next", 100), []
    monkeypatch.setattr(page, "_FEWEST", 1)
    base = len(page.render([]))
    for layers_aim in (2**23, 24_000, 10_000, 0):
        monkeypatch.setattr(page, "_AIM", base + layers_aim)
        layers = page.pack([good])[0]["layers"]
        found.append([(layer["steps"], len(layer["heads"]), len(layer["summary"])) for layer in layers])
        assert layers_aim == 0 or sum(len(json.dumps(layer)) for layer in layers) < 1.1 * layers_aim
    assert found[0] == [(2**15 - 1, 4, 4)] * 2
    assert 3 < found[1][0][0] <= found[1][1][0] < 2**15 - 1
    assert found[1][0][1:] == (4, 4)
    assert found[2][0][1] < 4
    assert found[3] == [(3, 1, 1), (7, 1, 1)]


@pytest.mark.parametrize("name", KINDS)
def test_fewer_heads_are_those_heads(name: str) -> None:
    kept = page.keep(records_of(view(name))[0], heads=5)
    whole, some = kept.encode(127), kept.some(1).encode(127)
    assert set(some["heads"]) < set(whole["heads"])
    for place, head in enumerate(some["heads"]):
        before = whole["heads"].index(head)
        assert some["summary"][place] == whole["summary"][before]
        for part in [name for name, each in whole.items() if isinstance(each, dict) and name != "reconstruction"]:
            found, wanted = (number(x[part], at, len(x["heads"])) for x, at in ((some, place), (whole, before)))
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["mamba2", "qwen3-next"])
def test_the_error_that_a_page_names_is_that_of_its_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "_AIM", 0)
    good = view(name, 200)
    for record, layer in zip(records_of(good), page.pack([good])[0]["layers"], strict=True):
        heads, x, lost = len(layer["heads"]), record.recurrence.double(), []
        for place, head in enumerate(layer["heads"]):
            wanted = [tensor[0, :, head].numpy() for tensor in (x.q, x.k)]
            q, k = (number(layer[part], place, heads).reshape(wanted[0].shape) for part in ("q", "k"))
            sizes = np.linalg.norm(wanted[0], axis=1)[:, None] * np.linalg.norm(wanted[1], axis=1)
            lost.append((q @ k.T - wanted[0] @ wanted[1].T) / sizes)
            sums = number(layer["gates"], place, heads).cumsum()
            assert x.log_gates is not None
            np.testing.assert_allclose(sums, x.log_gates[0, :, head].clamp_min(SHUT).cumsum(0), rtol=0, atol=1.2e-3)
        assert layer["steps"] < 8
        assert 0.5 < np.sqrt(np.mean(np.square(lost))) / layer["off"] < 1.5


@pytest.mark.parametrize("name", ["mamba2", "gladient"])
def test_layers_may_be_kept_as_they_run(name: str) -> None:
    """The page is the same as that of records that are kept together; proofs call operators, which are not heard."""
    good, model, kept = view(name), MODELS[name].build(0), []
    ids = torch.randint(3, MODELS[name].vocabulary, (1, 24), generator=torch.Generator().manual_seed(24))
    with torch.no_grad(), lens.capture(model, on_record=lambda record: kept.append(page.keep(record))) as trace:
        model(input_ids=ids)
    assert trace.records == []
    assert page.pack([replace(good, records=kept)]) == page.pack([good])


def modern(kind: str, **options: Any) -> lens.Record:
    return lens.Record("mixer", 0, "by hand", 0, make(B=1, T=24, kind=kind, **options))


TURNING = {
    "Mamba-3": modern("own", turns="adjacent"),
    "rotating delta rule": modern("delta", turns="halves"),
    "RWKV-7": modern("erase undecayed", gates="key"),
}


@needs_browser
@pytest.mark.parametrize("name", TURNING)
def test_the_browser_turns_and_erases_as_the_record_does(name: str, tmp_path: Path) -> None:
    record, words = TURNING[name], [f"w{i}" for i in range(24)]
    page.write_page(tmp_path / "lens.html", [page.ModelView("by hand", words, [record])])
    with open_page(tmp_path / "lens.html") as opened:
        wait_for(opened, "1")
        lists = "x => Object.fromEntries(Object.entries(lens.matrix(x)).map(([n, v]) => [n, [...v]]))"
        script = f"lens.operands(lens.models[0].layers[0], 1).then({lists})"
        found = {quantity: np.reshape(values, (24, 24)) for quantity, values in opened.run(script).items()}
        heads = opened.run("document.getElementById('heads').innerText")
        note = opened.run("document.getElementById('maps-note').textContent")
        maps = opened.run("document.querySelectorAll('#maps canvas').length")
        assert opened.errors == []
    compare(record, 1, found)
    turns, separable = record.recurrence.phase is not None, record.recurrence.separable
    assert maps == 2 + turns + (1 if separable else 2)
    assert ("reversed" in heads) == ("read reversed" in note) == turns
    assert ("erased along" in heads) == (name == "RWKV-7")
    if turns:
        np.testing.assert_allclose(found["turned"], record.signed_weights(1)[0, 0], rtol=0, atol=2e-3)
        assert (found["turned"] < -0.01).any()


def test_phases_are_kept_as_exactly_as_the_layer(tmp_path: Path) -> None:
    record = TURNING["Mamba-3"]
    kept, phase = page.keep(record), record.recurrence.phase
    assert phase is not None
    for steps, off in ((2**15 - 1, np.pi / 2**15), (127, np.pi / 254), (15, np.pi / 254)):
        found = number(kept.encode(steps)["phase"], 1, 3).reshape(24, -1)
        apart = (found - phase[0, :, 1].numpy() + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(apart).max() < 1.01 * off


def test_pages_refuse_several_keys_for_each_token() -> None:
    x = replace(make(B=1, T=24, kind="own", every=2), ranks=2)
    with pytest.raises(ValueError, match="mixer writes 2 keys for each token"):
        page.keep(lens.Record("mixer", 0, "by hand", 0, x))
