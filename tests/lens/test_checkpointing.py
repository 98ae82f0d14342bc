"""Models that are trained inside a capture: the lens leaves nothing on the graph, and records each layer once."""

from collections.abc import Callable, Iterator

import pytest
import torch
from tiny import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gladient import lens
from gladient.nn import ResidualModel, presets

THEIRS = [name for name, tiny in MODELS.items() if hasattr(tiny.build(0), "gradient_checkpointing_enable")]
TOKENS = torch.randint(3, 60, (2, 20), generator=torch.Generator().manual_seed(0))


def gradients(model: nn.Module, loss: Callable[[], Tensor], *, inside: bool | None) -> Iterator[Tensor]:
    """Gradients of all parameters; `inside`: whether the backward pass runs inside the capture, None for no capture."""
    model.zero_grad()
    if inside is None:
        loss().backward()
    else:
        with lens.capture(model) as trace:
            found = loss()
            if inside:
                found.backward()
        if not inside:
            found.backward()
        assert len(trace.records) == len(lens.gated_layers(model))
        assert trace.passed
        assert not any(record.output().requires_grad for record in trace.records)
    return (parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")  # 5.15 has no other
@pytest.mark.parametrize(("reentrant", "inside"), [(False, False), (True, True)])  # each once broke another thing
@pytest.mark.parametrize("name", THEIRS)
def test_their_models_train_through_checkpoints(name: str, reentrant: bool, inside: bool) -> None:
    model = MODELS[name].build(0).train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})  # type: ignore[operator]

    def loss() -> Tensor:
        torch.manual_seed(0)  # noise of routers
        return model(input_ids=TOKENS, use_cache=False)[0].square().sum()

    plain, seen = (list(gradients(model, loss, inside=how)) for how in (None, inside))
    assert all(map(torch.equal, plain, seen))
    assert any(gradient.any() for gradient in seen)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_our_layers_train_through_checkpoints(preset: str, reentrant: bool) -> None:
    model = ResidualModel(8, [presets.PRESETS[preset](8, heads=2)] * 2)
    tokens = torch.randn(1, 2, 12, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def loss(checkpointed: bool) -> Tensor:
        z = checkpoint(model, tokens, use_reentrant=reentrant) if checkpointed else model(tokens)
        return z.square().sum()

    plain = list(gradients(model, lambda: loss(False), inside=None))
    for inside in (False, True):
        for found, wanted in zip(gradients(model, lambda: loss(True), inside=inside), plain, strict=True):
            torch.testing.assert_close(found, wanted)
