"""All heads at a glance, two views beside each other, phones and paper."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from on_page import CENTRES, choose_on, needs_browser, number, point, records_of, select, wait_for
from recurrences import make
from tiny import MODELS

from browser import open_page
from gladient import lens
from gladient.lens import page
from gladient.lens.pack import moved

TEXT = torch.randint(3, 32, (1, 24), generator=torch.Generator().manual_seed(1))


def views_beside() -> list[page.ModelView]:
    """A model as it is, changed, and with another text; what its gates are worth is made up."""
    model = MODELS["mamba2"].build(0)

    def see(ids: torch.Tensor, label: str, change: lens.Change) -> page.ModelView:
        with torch.no_grad(), lens.intervene(model, change), lens.capture(model) as trace:
            logits = model(input_ids=ids).logits[0]
        words = [f" w{i}" for i in ids[0].tolist()]
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none").tolist()
        predictions = [[(label, 0.5)]] * len(words)
        return page.ModelView("model", words, trace.records, predictions=predictions, label=label, losses=losses)

    plain = see(TEXT, "", lambda record: record.recurrence)
    rises = [lens.Rise(z / 10, 0.1) for z in (1.5, 2.5, -3.0, 0.0)]
    worth = [lens.HeadWorth(0, head, each, each, None, each, None) for head, each in enumerate(rises)]
    found = lens.Worth(1.0, 2, replace(worth[1], layer=None, head=None), tuple(worth), {})
    lengths = lens.memory_lengths(model, [*TEXT[0].split(12)])
    changed = see(TEXT, "scale_gates=2", lens.scale_gates(2.0))
    other = see(TEXT[:, :9], "other", lambda record: record.recurrence)
    return [replace(plain, worth=found, lengths=lengths), changed, other]


def test_how_far_outputs_move_is_said_of_every_head_and_token() -> None:
    before, changed, _ = views_beside()
    first, second, third = page.pack([before, changed, replace(before, name="another model")])
    assert [model["base"] for model in (first, second, third)] == [None, 0, None]
    assert not any("moved" in layer for model in (first, third) for layer in model["layers"])
    for layer, one, two in zip(second["layers"], records_of(before), records_of(changed), strict=True):
        for head in range(4):
            was, now = (record.output(head)[0, :, 0].double().numpy() for record in (one, two))
            wanted = np.linalg.norm(now - was, axis=1) / np.sqrt((was**2).sum(1).mean())
            found = number(layer["moved"], head, 4)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=wanted.max() / 250)
            relative = np.linalg.norm(now - was) / np.linalg.norm(was)
            assert layer["summary"][head]["moved"] == pytest.approx(relative, rel=1e-5)


def test_a_head_that_is_not_kept_of_both_is_not_compared() -> None:
    one, two = (records_of(each)[0] for each in views_beside()[:2])
    few, all_heads = page.keep(one, heads=[1, 3], outputs=True), page.keep(two, outputs=True)
    found = moved(few, all_heads)
    assert found is not None
    assert found.isnan().all(1).tolist() == [True, False, True, False]
    assert moved(page.keep(one), all_heads) is None


def test_views_of_one_model_keep_the_same_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though others of them have the longest memory, and though half of them must go."""
    one = lens.Record("mixer", 0, "by hand", 0, make(B=1, T=24, H=8, kind="plain"))
    gates = one.recurrence.log_gates
    assert gates is not None
    other = replace(one, recurrence=replace(one.recurrence, log_gates=gates.roll(3, 2)))
    alone = page.pack([page.ModelView("model", ["a"] * 24, [each]) for each in (other,)], heads=3)[0]["layers"][0]
    views = [page.ModelView("model", ["a"] * 24, [each], label=label) for label, each in (("", one), ("b", other))]
    for most, aim, kept in ((3, 2**23, 3), (8, 0, 1)):
        monkeypatch.setattr(page, "_AIM", aim)
        monkeypatch.setattr(page, "_FEWEST", 1)
        before, after = (model["layers"][0] for model in page.pack(views, heads=most))
        assert before["heads"] == after["heads"]
        assert len(before["heads"]) == kept
        assert len(after["summary"]) == kept
        assert most == 8 or before["heads"] != alone["heads"]


@needs_browser
def test_heads_at_a_glance_and_views_beside_each_other(tmp_path: Path) -> None:
    views = views_beside()
    page.write_page(tmp_path / "lens.html", views)
    with open_page(tmp_path / "lens.html") as opened:
        wait_for(opened, "1")
        cells = "[...document.querySelectorAll('#overview i')].map(c => c.textContent)"
        lengths = [record.summary(head).memory_length.item() for record in records_of(views[0]) for head in range(4)]
        assert [float(cell) for cell in opened.run(cells)] == pytest.approx(lengths, rel=0.06)
        select(opened, "measure", "fixed")
        assert opened.run(cells) == ["", "2.5", "−3", "", *[""] * 4]
        note = opened.run("document.getElementById('overview-note').textContent")
        assert "blank" in note
        assert "All heads together: 0.25 ± 0.1 nats per token" in note
        assert "over 2 texts" in opened.run("document.getElementById('heads').innerText")
        opened.run('document.querySelector(\'#overview i[data-l="0"][data-h="2"]\').click()')
        wait_for(opened, "2")
        assert opened.run("['layer', 'head'].map(n => document.getElementById(n).value)") == ["0", "2"]
        said = "document.getElementById('beside-card').innerText"
        assert "Beside it: scale_gates=2" in opened.run(said)
        relative = page.pack(views)[1]["layers"][0]["summary"][2]["moved"]
        assert f"moves this head's output by {relative:.1%}" in opened.run(said)
        means = [np.mean(each.losses or []) for each in views]
        assert f"loss {means[0]:.3g} → {means[1]:.3g} nats per token" in opened.run(said)
        assert opened.run("document.querySelectorAll('#beside-maps canvas').length") == 3
        strip = "[...document.querySelectorAll('#beside-strip span')].map(s => s.className.trim())"
        opened.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", code="ArrowLeft")  # without a click
        assert opened.run("document.getElementById('position').value") == "22"
        assert opened.run(strip)[21:] == ["", "query", "later"]
        before = int(opened.run("document.body.dataset.ready"))
        select(opened, "beside", "2")
        wait_for(opened, str(before + 1))
        assert opened.run(strip) == [*[""] * 8, "query"]
        opened.run("document.querySelector('#beside-strip span').click()")
        assert opened.run(strip) == ["query", *["later"] * 8]
        assert opened.run("document.getElementById('position').value") == "22"
        assert opened.run("document.getElementById('beside-moved').hidden")
        opened.run("lens.models[2].layers[0].heads[3] = 99")
        choose_on(opened, "head", 3)
        assert "does not keep this head" in opened.run(said)
        choose_on(opened, "head", 2)
        for place in ("#overview i", "#beside-strip span", "#beside-maps canvas"):
            (at,) = opened.run(f"{CENTRES}({json.dumps(place)})")
            point(opened, "mouseMoved", at)
            assert len(opened.run("document.getElementById('tip').textContent")) > 10
        assert opened.errors == []


CONTRASTS = """[...document.querySelectorAll(".strip span, #overview i")].map(e => {
  const linear = c => c <= 10 ? c / 3294.6 : ((c / 255 + .055) / 1.055) ** 2.4;
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(linear);
    return .2126 * r + .7152 * g + .0722 * b + .05 };
  const style = getComputedStyle(e), own = style.backgroundColor;
  const back = own === "rgba(0, 0, 0, 0)" ? getComputedStyle(e.closest(".card")).backgroundColor : own;
  const pair = [light(style.color), light(back)];
  return Math.max(...pair) / Math.min(...pair) * style.opacity })"""


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_and_paper(dark: bool, tmp_path: Path) -> None:
    """Nothing is wider than the screen but what scrolls, text has contrast, and paper is light."""
    page.write_page(tmp_path / "lens.html", views_beside())
    with open_page(tmp_path / "lens.html", width=390, dark=dark) as opened:
        wait_for(opened, "1")
        choose_on(opened, "position", 12)
        assert opened.run("document.documentElement.scrollWidth") <= 390
        wide = "e => e.getBoundingClientRect().right > innerWidth && !e.closest('.scroll, .across')"
        assert opened.run(f"[...document.querySelectorAll('body *')].filter({wide}).map(e => e.id)") == []
        assert min(opened.run(CONTRASTS)) >= 4.5
        corner = "[...document.getElementById('map-gates').getContext('2d').getImageData(0, 23, 1, 1).data]"
        painted = opened.run(corner)
        opened.call("Emulation.setEmulatedMedia", media="print")
        opened.run("new Promise(done => setTimeout(done, 50))")
        assert (opened.run(corner) != painted) == dark
        assert opened.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert opened.errors == []
