"""Delta rule → network → delta rule: equal outputs at every token, the rules found again, the best risk untrained."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from gladient import landscape
from gladient.equivalence import construct_delta, extract_delta
from gladient.nn import ResidualModel
from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler
from gladient.training import evaluate
from gladient.wpgd import DeltaRule

SETTING = MultitaskSetting.isotropic([3, 1, 4], [0.3, 0.5, 0.4], d=4, sigma2=0.1)
LAYOUT = PromptLayout.of(SETTING)
TOKENS = PromptSampler([SETTING], dtype=torch.float64).draw(50, [torch.Generator().manual_seed(0)]).tokens[0]


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def own_features() -> torch.Tensor:
    """Every example has its task's feature, every delimiter its own, and so has the query."""
    K, T = len(LAYOUT.n), LAYOUT.length
    kinds = [kind for k, count in enumerate(LAYOUT.n) for kind in (*[k] * count, K + k)] + [2 * K]
    return torch.cat([torch.zeros(T, LAYOUT.d + 1), torch.eye(2 * K + 1)[kinds]], 1).double()


SHARED, OWN = torch.as_tensor(LAYOUT.template), own_features()
RULES = {
    "fixed step": (SHARED, {"steps": 0.2, "query": 0.2}),
    "gates": (SHARED, {"steps": 0.2, "decays": [0.0, 0.7, 1.0], "query": 0.2}),
    "masked query": (OWN, {"steps": 0.2, "decays": [0.4, 0.7, 1.0]}),
    "step per task": (OWN, {"steps": [0.1, 1.5, 0.3], "decays": [0.9, 0.2, 1.0], "query": 0.05}),
    "steps 0, 1 and 2": (OWN, {"steps": [0.0, 2.0, 1.0]}),
}


def made(kind: str, keys: str, seed: int) -> tuple[DeltaRule, torch.Tensor]:
    template, numbers = RULES[kind]
    rule = DeltaRule.by_task(LAYOUT, keys=keys, **numbers)  # type: ignore[arg-type]
    return replace(rule, P_k=normal(4, 3, seed=seed) / 2, P_q=normal(4, 3, seed=seed + 1)), template


def prompts(template: torch.Tensor) -> torch.Tensor:
    return torch.cat([TOKENS[..., :5], template[:, 5:].expand(len(TOKENS), -1, -1)], 2)


def assert_runs(model: ResidualModel, rules: list[DeltaRule], tokens: torch.Tensor) -> None:
    """Every token's label is y - Σ xᵀb, to 1e-10 of the largest."""
    x, y = tokens[..., :4], tokens[..., 4]
    expected = y - torch.stack([rule(x, y).predictions[0] for rule in rules]).sum(0)
    error = (model.hidden(tokens)[1][0, ..., 4] - expected).abs().max()
    assert error <= 1e-10 * expected.abs().max()
    torch.testing.assert_close(model(tokens)[0], -expected[:, -1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("keys", ["gaussian", "unit"])
@pytest.mark.parametrize("kind", RULES)
def test_network_is_the_rule(kind: str, keys: str) -> None:
    rule, template = made(kind, keys, seed=1)
    model = construct_delta([rule], template)
    assert_runs(model, [rule], prompts(template))
    config = model.layers[0].config
    assert (config.gate == "none") == bool((rule.keep == 1).all())
    assert config.step_bound == (2 if rule.write.max() > 1 else 1)


@pytest.mark.parametrize("keys", ["gaussian", "unit"])
def test_one_head_per_rule(keys: str) -> None:
    rules = [made(kind, keys, seed=3 * i)[0] for i, kind in enumerate(("step per task", "fixed step", "masked query"))]
    rules[1] = replace(rules[1], keep=torch.full_like(rules[1].keep, 0.9), erase=0.9 * rules[1].erase)
    assert_runs(construct_delta(rules, OWN), rules, prompts(OWN))


def test_without_contextual_features_a_step_may_be_the_same_everywhere() -> None:
    layout = PromptLayout(n=(5,), d=4, contextual=False)
    ones = torch.ones(layout.length).double()
    rule = DeltaRule(normal(4, 2, seed=1), normal(4, 2, seed=2), 0.9 * ones, 0.9 * 0.3 * ones, 0.3 * ones)
    assert_runs(construct_delta([rule], layout.template), [rule], normal(6, layout.length, 5, seed=3))


@pytest.mark.parametrize("keys", ["gaussian", "unit"])
def test_the_rules_are_found_again(keys: str) -> None:
    rules = [made(kind, keys, seed=i)[0] for i, kind in enumerate(("step per task", "masked query"))]
    model, tokens = construct_delta(rules, OWN), prompts(OWN)
    layer: Any = model.layers[0]
    attention, (W_o,) = layer.attention, layer.W_o
    with torch.no_grad():
        q, k, v = ((tokens @ W[0]).unflatten(2, (2, -1)) for W in (attention.W_q, attention.W_k, attention.W_v))
        found = extract_delta(
            *(q, k, v, 2 * attention.step(tokens[None])[0, :, :, 0]),
            g=attention.gates(tokens).g,
            readout=-W_o[:, 4, None],
            prediction=model(tokens)[0],
            tokens=tokens,
            layout=LAYOUT,
            keys=keys,
        )
    assert found.explained > 1 - 1e-12
    for rule, back in zip(rules, found.rules, strict=True):
        scale = 2.0**20 if keys == "unit" else 1.0  # which a key of length 1 does not have
        torch.testing.assert_close(back.P_k / scale, rule.P_k, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(back.P_q, rule.P_q, rtol=1e-10, atol=1e-12)
        for name in ("keep", "erase", "write"):
            torch.testing.assert_close(getattr(back, name), getattr(rule, name), rtol=1e-10, atol=1e-15)


def test_the_critical_step_reaches_its_risk_without_training() -> None:
    """One task without noise: the step 1/(d + 2) leaves d ((d + 1)/(d + 2))ⁿ; the query has a feature of its own."""
    setting = MultitaskSetting.isotropic([8], [1.0], d=4)
    sampler = PromptSampler([setting], dtype=torch.float64)
    template = torch.as_tensor(sampler.layout.template)
    template = torch.cat([template, torch.zeros(10, 1)], 1)
    template[-1, 5:] = torch.tensor([0.0, 0.0, 1.0])
    rule = DeltaRule.by_task(sampler.layout, landscape.delta.delta_schedule(setting).steps)
    model, generator = construct_delta([rule], template), torch.Generator().manual_seed(1)

    def errors(batch: int) -> torch.Tensor:
        drawn = sampler.draw(batch, [generator])
        tokens = torch.cat([drawn.tokens[..., :5], template[:, 5:].expand(1, batch, -1, -1)], 3)
        return (model(tokens) - drawn.targets).square()

    test = evaluate(errors, prompts=20_000)
    assert abs(test.risk - 4 * (5 / 6) ** 8) < 4 * test.standard_error


def bad(**changed: torch.Tensor | str) -> list[DeltaRule]:
    return [replace(made("gates", "gaussian", seed=0)[0], **changed)]  # type: ignore[arg-type]


T = LAYOUT.length
ERRORS = {
    "rules is empty": lambda: construct_delta([], SHARED),
    "the rules differ in shape": lambda: construct_delta([*bad(), *bad(keys="unit")], SHARED),
    "keys is 'nlms', which divides": lambda: construct_delta(bad(keys="nlms"), SHARED),
    r"keep has shape \[50, 12\]": lambda: construct_delta(bad(keep=torch.ones(50, T)), SHARED),
    "keep goes from 1.5 to 1.5; layers make 0 to 1": lambda: construct_delta(bad(keep=torch.full((T,), 1.5)), SHARED),
    "write goes from 3 to 3; .* multiply P_k": lambda: construct_delta(bad(write=torch.full((T,), 3.0)), SHARED),
    "write goes from -1 to -1": lambda: construct_delta(bad(write=torch.full((T,), -1.0)), SHARED),
    r"erase of token 0 is 0 and keep · write is 1 · 0\.2": lambda: construct_delta(bad(erase=torch.zeros(T)), SHARED),
    "cannot make write: token": lambda: construct_delta([made("masked query", "unit", seed=0)[0]], SHARED),
    r"template has shape \[11, 9\]; the rules are made for \[12, D\]": lambda: construct_delta(bad(), SHARED[1:]),
}


@pytest.mark.parametrize("message", ERRORS)
def test_bad_rules_name_the_rule(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()
