"""Stack of layers → network → stack: predictions of a plain loop, exact risks, families, marks, what cannot be."""

import dataclasses

import numpy as np
import pytest
import torch

from depth_oracles import label_weights, random_setting, random_stack
from gladient.equivalence import construct, construct_stack, extract_stack
from gladient.landscape import scalar_gate
from gladient.landscape.depth import Stack, best_stack, depth_bound, marked_layers, stack_risk
from gladient.nn import ResidualModel, presets
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.wpgd import WPGD, Step

FALLING = MultitaskSetting.isotropic(n=[6, 4], r=[0.8, 0.2], d=4, sigma2=0.3)
LAYOUT = PromptLayout.of(FALLING)


def without_erasing(rng, heads, tasks, case):
    """Skips, writes, gates of any size, with a decay or a bonus: layers have one of the two."""
    stack = random_stack(rng, heads, tasks, 0.2)
    one = {"own": 1.0} if case % 2 else {"decay": 1.0}
    return Stack(**{**stack.to_dict(), "erase": 0.0, **one})


def data(setting):
    """Tokens of a few prompts, and their features and labels without delimiters."""
    layout = PromptLayout.of(setting)
    tokens = PromptSampler([setting], dtype=torch.float64).draw(4, [torch.Generator().manual_seed(0)]).tokens
    places = [t for block in layout.blocks for t in range(block.start, block.stop)] + [layout.length - 1]
    kept = tokens[0][:, places].numpy()
    return tokens, kept[..., : setting.d], kept[..., setting.d]


def assert_both_ways(setting, stack, *, marks=False, within=1e-12):
    """The network predicts what a loop over tokens does; the stack that comes back has its risk, and so on."""
    layout = PromptLayout.of(setting)
    tokens, x, y = data(setting)
    expected = (label_weights(x, setting.n, stack) * y).sum(1)
    model = construct_stack(stack, layout, marks=marks)
    back = extract_stack(model, layout)
    assert back.depth == stack.depth == len(model.layers)
    for one in (model, construct_stack(back, layout, marks=marks)):
        error = np.abs(one(tokens)[0].detach().numpy() - expected).max()
        assert error <= within * np.abs(expected).max()
    assert stack_risk(setting, back).risk == pytest.approx(stack_risk(setting, stack).risk, rel=1e-11)
    return model, back


def test_any_stack():
    rng = np.random.default_rng(0)
    for case in range(12):
        tasks = 1 + case % 3
        setting = random_setting(rng, rng.integers(1, 5, tasks), 3, 2.0)
        assert_both_ways(setting, without_erasing(rng, 1 + case % 4, tasks, case))


CASES = [(layers, gates) for gates in ("none", "scalar", "value", "free") for layers in (1, 2, 3)]


@pytest.mark.parametrize(("layers", "gates"), [case for case in CASES if case not in ((3, "scalar"), (3, "value"))])
def test_best_stacks(layers, gates):
    """The predictions' mean square of the error is the exact risk, too; limits are met from above."""
    found = best_stack(FALLING, layers, gates)
    stack = found.finite(1e4)
    distance = stack_risk(FALLING, stack).risk - found.risk
    assert abs(distance) < 1e-10 if found.certificate.attained else 0.0 < distance < 1e-4
    model, back = assert_both_ways(FALLING, stack, within=1e-11)
    kinds = {config.gate for config in model.configs}
    assert kinds <= {"none": {"none"}, "scalar": {"none", "scalar"}}.get(gates, {"none", "scalar", "value"})
    if gates in ("none", "scalar"):  # the paper's network: the label's channel alone
        assert model.spare == 0
        np.testing.assert_allclose(back.readout, stack.readout, rtol=1e-12)
        np.testing.assert_allclose(back.gates, stack.gates, rtol=1e-12, atol=1e-15)


def test_value_gates_reach_the_bound_at_any_depth():
    """L layers with rows of value gates and skips run the best of all stacks."""
    for layers in (2, 3, 4):
        model = construct_stack(depth_bound(FALLING, layers).stack, LAYOUT)
        assert len(model.layers) == layers
        found = stack_risk(FALLING, extract_stack(model, LAYOUT)).risk
        assert found == pytest.approx(depth_bound(FALLING, layers).risk, rel=1e-10)


def test_marks_need_no_gates():
    for setting in (FALLING, MultitaskSetting.isotropic(n=[2, 3, 4], r=[0.7, -0.4, 0.2], d=3)):
        best = marked_layers(setting)
        model, back = assert_both_ways(setting, best.stack, marks=True)
        assert [config.gate for config in model.configs] == ["none", "none"]
        np.testing.assert_allclose(np.sort(back.readout), np.sort(best.stack.readout), rtol=1e-12)
        assert best.risk < scalar_gate(setting).risk
        model.layers[0].attention.W_k.data[0, setting.d + 2] = 0.0  # the first delimiter's feature
        assert stack_risk(setting, extract_stack(model, PromptLayout.of(setting))).risk > best.risk * 1.01


def test_the_networks_risk_is_the_stacks():
    """On drawn prompts, |z| < 4."""
    sampler = PromptSampler([FALLING], dtype=torch.float64)
    prompts = sampler.draw(5_000, [torch.Generator().manual_seed(1)])
    for best, marks in ((depth_bound(FALLING, 3), False), (marked_layers(FALLING), True)):
        errors = (construct_stack(best.stack, LAYOUT, marks=marks)(prompts.tokens) - prompts.targets).square()[0]
        assert abs(errors.mean() - best.risk) < 4 * errors.std() / len(errors) ** 0.5


def test_a_constructed_algorithm_is_a_stack():
    eye, omega = torch.eye(4).double(), torch.tensor([0.25, 1.0]).double()
    algorithm = WPGD((Step.scaled(eye, 0.1 * eye, omega, LAYOUT), Step.scaled(eye, 0.2 * eye, omega, LAYOUT)))
    back = extract_stack(construct(algorithm), LAYOUT)
    same = Stack.steps([0.1, 0.2], [[0.25, 1.0], [0.25, 1.0]])
    assert stack_risk(FALLING, back).risk == pytest.approx(stack_risk(FALLING, same).risk, rel=1e-12)


def test_spare_channels():
    """Room that nothing uses changes nothing, and files and members keep it."""
    configs = [presets.gla(5, heads=1)] * 2
    model = ResidualModel(5, configs, spare=3, seeds=[0, 1]).double()
    tokens = torch.randn(1, 4, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.nn.init.normal_(model.readout)
    torch.testing.assert_close(model.member(1)(tokens)[0], model(tokens)[1])
    assert model.hidden(tokens)[1].shape == (2, 4, 7, 8)
    torch.testing.assert_close(model.decode(tokens)[0], model.hidden(tokens)[-1])
    with pytest.raises(ValueError, match="spare is -1"):
        ResidualModel(5, configs, spare=-1)


TWO = Stack.steps([0.1, 0.2], [[0.5, 1.0], [0.5, 1.0]])


def changed(**fields):
    return Stack(**{**TWO.to_dict(), **fields})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: construct_stack(Stack.steps([0.1]), LAYOUT), "for 1 tasks and the layout 2"),
        (lambda: construct_stack(changed(gates=[[1.5, 1], [1, 1]]), LAYOUT), r"head 0 after task 0 is 1.5.*finite"),
        (lambda: construct_stack(changed(decay=[1, -0.5]), LAYOUT), "decay of head 1 is -0.5"),
        (lambda: construct_stack(changed(erase=[0, 1]), LAYOUT), "head 1 erases 1; layers of the delta rule"),
        (lambda: construct_stack(changed(own=0.5, decay=0.9), LAYOUT), "take own 1 or decay 1"),
        (lambda: construct_stack(changed(write=[[1, 1, 1], [1, 0, 1]]), LAYOUT, marks=True), "use marks=False"),
        (lambda: construct_stack(TWO, dataclasses.replace(LAYOUT, delimiters=False)), "use delimiters=True"),
        (lambda: construct_stack(TWO, dataclasses.replace(LAYOUT, marks="task")), "use 'shared'"),
        (lambda: construct_stack(TWO, dataclasses.replace(LAYOUT, contextual=False)), "contextual=True"),
        (lambda: extract_stack(construct_stack(TWO, LAYOUT), PromptLayout(n=(6, 4), d=3)), "tokens of width 8"),
        (lambda: extract_stack(ResidualModel(8, [presets.gla(8, heads=1)]), LAYOUT), "layer 0 has"),
        (lambda: extract_stack(ResidualModel(8, [presets.retnet(8, heads=1)], seeds=[0, 1]), LAYOUT), "2 members"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("W_q", 5, "layer 0, head 0: W_q reads or writes more than x"),
        ("W_k", 4, "W_k reads or writes more than x"),
        ("W_v", 0, "W_v reads or writes features"),
        ("W_q", 0, "no multiple of I"),
    ],
)
def test_what_no_stack_does(name, row, message):
    model = construct_stack(TWO, LAYOUT)
    getattr(model.layers[0].attention, name).data[0, row] += 0.1
    with pytest.raises(ValueError, match=message):
        extract_stack(model, LAYOUT)
    model = construct_stack(TWO, LAYOUT)
    model.layers[1].W_o.data[0, 0, 1] = 0.1
    with pytest.raises(ValueError, match="layer 1, head 0: W_o reads or writes features"):
        extract_stack(model, LAYOUT)
    model = construct_stack(TWO, LAYOUT)
    dict(model.named_parameters())["layers.0.attention.gate.weight"].data[0, 4] = 0.1
    with pytest.raises(ValueError, match="a gate reads or writes labels or x"):
        extract_stack(model, LAYOUT)
