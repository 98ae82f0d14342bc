"""Algorithms, networks made from them and prompts are the same inside a user's autocast region."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gladient.equivalence import construct, construct_delta, extract, solve_gates
from gladient.prompts import MultitaskSetting, PromptSampler
from gladient.wpgd import WPGD, DeltaRule, Step, conditional_risk, label_weights


def computed() -> Iterator[Tensor]:
    spread = torch.eye(3) + 0.3
    setting = MultitaskSetting(n=[3, 4], R=[[1, 0.3], [0.3, 1]], r=[0.2, 0.8], Sigma=spread.double().numpy())
    sampler = PromptSampler([setting])
    prompts = sampler.draw(20, [torch.Generator().manual_seed(0)])
    tokens = prompts.tokens
    yield from (tokens, prompts.targets)
    x, y = tokens[0, ..., :3], tokens[0, ..., 3]
    for gate, omega in (("scalar", [0.3, 0.9]), ("value", [0.7, 0.2])):
        step = Step.scaled(spread, spread / 7, torch.tensor(omega), sampler.layout, gate=gate)
        algorithm = WPGD((step, step))
        yield from (algorithm(x, y).b, label_weights(algorithm, x), conditional_risk(algorithm, x, setting))
        model = construct(algorithm)
        yield from model.state_dict().values()
        found = extract(model, tokens, sampler.layout)
        yield from (
            found.algorithm.steps[0].matrix,
            found.factors[0].P,
            found.prediction,
            torch.tensor(found.explained),
        )
    yield solve_gates(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)), torch.tensor([[0.3], [0.9]]))
    rule = DeltaRule(spread, spread / 7, *torch.full((3, len(y[0])), 0.3))
    yield from (rule(x, y).b, rule.label_weights(x))
    yield from construct_delta(
        [DeltaRule.by_task(sampler.layout, 0.2, query=0.2)], sampler.layout.template
    ).parameters()


def test_autocast_changes_no_bit() -> None:
    outside = [*computed()]
    with torch.autocast("cpu", torch.bfloat16):
        inside = [*computed()]
    for one, other in zip(inside, outside, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
