"""Pictures: drawn from the record's own numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny import MODELS

from gladient import lens
from gladient.lens import pictures


def records(name: str, **options: Any) -> list[lens.Record]:
    model = MODELS[name].build(0)
    with torch.no_grad(), lens.capture(model, **options) as trace:
        model(input_ids=torch.arange(3, 23)[None])
    return trace.records


@pytest.mark.parametrize(("name", "options"), [("mamba2", {}), ("mamba2", {"positions": [4, 19]}), ("mamba", {})])
def test_heat_maps_show_the_records_weights(name: str, options: dict[str, object]) -> None:
    record = records(name, **options)[0]
    figure = pictures.heat_maps(record, 1)
    figure.canvas.draw()
    shown: list[Any] = [axes.images[0].get_array() for axes in figure.axes if axes.images and axes.get_title()]
    wanted = [record.gate_weights(1), record.similarity(1), record.implicit_attention(1)]
    for image, weights in zip(shown, wanted, strict=True):
        later = np.arange(20) > record.recurrence.positions.numpy()[:, None]
        np.testing.assert_array_equal(np.ma.getmaskarray(image), later)
        np.testing.assert_allclose(image.filled(0), weights[0, 0])


def test_the_delta_rule_has_one_map() -> None:
    figure = pictures.heat_maps(records("qwen3-next")[0], 0)
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["implicit attention"]


def test_the_profile_is_the_summaries() -> None:
    found = records("mamba2")
    axes = pictures.memory_profile(found).axes[0]
    for record, line in zip(found, axes.lines, strict=False):
        np.testing.assert_allclose(np.asarray(line.get_ydata()), record.summary().memory_length, rtol=1e-6)
    with pytest.raises(ValueError, match="no records"):
        pictures.memory_profile([])


def test_a_strip_colours_every_token() -> None:
    record, tokens = records("mamba2")[0], [f" $w{i}\n" for i in range(20)]
    figure = pictures.token_strip(record, 0, 12, tokens, weights="gate_weights")
    figure.canvas.draw()
    boxes: list[Any] = [text.get_bbox_patch() for text in figure.axes[0].texts]
    darkness = [-sum(box.get_facecolor()[:3]) for box in boxes[:13]]
    assert np.argsort(darkness).tolist() == record.gate_weights(0, 12)[0, 0, 0][:13].argsort().tolist()
    assert [box.get_edgecolor()[3] > 0 for box in boxes].index(True) == 12
    with pytest.raises(ValueError, match="one string for each of 20"):
        pictures.token_strip(record, 0, 12, tokens[1:])
    with pytest.raises(ValueError, match="gate_weights, signed_weights, similarity"):
        pictures.token_strip(record, 0, 12, tokens, weights="gates")


def test_turns_have_a_map_whose_colours_have_signs() -> None:
    found = records("gladient, modern")
    figure = pictures.heat_maps(found[0], 1)
    figure.canvas.draw()
    images = {axes.get_title(): axes.images[0] for axes in figure.axes if axes.images and axes.get_title()}
    assert list(images) == ["Γ, the gates' weight", "Γ cos φ, decay and turn", "qᵀk, similarity", "implicit attention"]
    signed, wanted = images["Γ cos φ, decay and turn"], found[0].signed_weights(1)[0, 0]
    shown: Any = signed.get_array()
    np.testing.assert_allclose(shown.filled(0), wanted)
    norm: Any = signed.norm
    assert norm(0.0) == 0.5
    assert (wanted < 0).any()
    titles = [axes.get_title() for axes in pictures.heat_maps(found[1], 0).axes if axes.get_title()]
    assert titles == ["Γ cos φ, decay and turn", "implicit attention"]
    pictures.token_strip(found[0], 1, 12, ["a"] * 20, weights="signed_weights").canvas.draw()
