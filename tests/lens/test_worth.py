"""What gates are worth, of a model whose gates are made by hand: one constant, one that the answers need."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diary import Diary, texts
from gladient import lens


def judged(**options: Any) -> lens.Worth:
    given = {"calibrate": texts(6, 1)} | options
    return lens.worth(given.pop("model", Diary()), texts(12, 0), **given)


def test_a_constant_gate_is_worth_nothing_and_a_needed_one_is_found() -> None:
    passes = []
    found = judged(steps=0, on_pass=lambda done, of: passes.append((done, of)))
    constant, needed = found.heads
    assert abs(constant.fixed.mean) < 1e-7  # its own gate: the mean of a constant
    assert needed.no_gate.mean > 5 * needed.no_gate.error > 0
    assert needed.fixed.mean > 5 * needed.fixed.error > 0
    assert needed.ablated.mean > 0.1
    assert needed.alone is not None
    assert needed.alone.mean == pytest.approx(found.together.fixed.mean - constant.fixed.mean, abs=1e-6)
    assert passes == [(place, 12) for place in range(1, 13)]
    assert (found.texts, [(row.layer, row.head) for row in found.heads]) == (12, [(0, 0), (0, 1)])


def test_a_fitted_decay_loses_less_than_the_mean_gate() -> None:
    mean, fitted = (judged(steps=steps, layers=0, heads=1) for steps in (0, 20))
    assert fitted.together.fixed.mean < 0.8 * mean.together.fixed.mean
    assert (fitted.decays[0] < 0).all()
    again = judged(steps=20, layers=0, heads=1)
    assert (again.together, again.heads) == (fitted.together, fitted.heads)


def test_rises_are_those_of_passes_by_hand() -> None:
    model, texts_ = Diary(erase=True), texts(4, 0, (24,))
    found = lens.worth(model, texts_, calibrate=texts(2, 1), steps=1)
    rows = torch.stack(texts_)

    def losses() -> Tensor:
        logits = model(rows[:, :-1])
        return -logits.log_softmax(2).gather(2, rows[:, 1:, None])[..., 0].mean(1).detach()

    base = losses()
    with lens.intervene(model, lens.scale_erase(0.0), heads=1):
        each = losses() - base
    rise = found.heads[1].no_erase
    assert rise is not None
    assert found.loss == pytest.approx(base.mean().item(), abs=1e-6)
    assert rise.mean == pytest.approx(each.mean().item(), abs=1e-6)
    assert rise.error == pytest.approx(each.std().item() / 2, abs=1e-6)
    assert model.weigh.requires_grad
    assert model.weigh.grad is None


def test_the_table_and_its_frame() -> None:
    found = judged(steps=1)
    lines = str(found).splitlines()
    assert lines[0].startswith("loss ")
    assert [line.split()[:2] for line in lines[2:]] == [["all", "heads"], ["0", "0"], ["0", "1"]]
    pandas = pytest.importorskip("pandas")
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["no_gate"].tolist()[1:] == [row.no_gate.mean for row in found.heads]
    assert frame["no_erase"].isna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": []}, "there are 12 texts to judge and 0 to calibrate"),
        ({"calibrate": texts(1, 0)}, r"texts\[0\] is calibrate\[0\]; decays are fitted on other texts"),
        ({"calibrate": [torch.tensor([1])]}, r"calibrate\[0\] has shape \[1\]; a text is its tokens"),
        ({"layers": 3}, "layer 3 is not a gated layer"),
        ({"heads": 5}, "there is no head 5"),
        ({"model": nn.Sequential(Diary(), nn.Dropout(0.5)).train()}, "in training mode and drops out at random"),
    ],
)
def test_what_cannot_be_judged_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judged(**options)
