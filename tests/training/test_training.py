"""Training reaches what it should, stops and resumes to the same bits, and refuses what is not its own."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gladient.training import (
    CheckpointError,
    TrainingConfig,
    TrainingDivergedError,
    evaluate,
    load_tensors,
    save_tensors,
    train,
)

CONFIG = TrainingConfig(steps=60, batch_size=16, checkpoint_every=20)


class Line(nn.Module):
    """Two members y = a x with a slow and a fast parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.5, 0.8]))
        self.offset = nn.Parameter(torch.zeros(2))

    def gate_parameters(self) -> list[nn.Parameter]:
        return [self.offset]


def make(seed: int = 0) -> tuple[Line, torch.Generator, Callable[[nn.Module], Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def loss(model: Any) -> Tensor:
        x = torch.randn(CONFIG.batch_size, generator=generator)
        return (model.slope[:, None] * x + model.offset[:, None] - (0.6 * x - 0.1)).square().mean(1)

    return Line(), generator, loss


def run(checkpoint: Path | None = None, stop_at: int | None = None, name: str = "line") -> tuple[Line, Tensor]:
    model, generator, loss = make()

    def on_step(done: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    history = train(
        model, loss, CONFIG, generators=[generator], checkpoint=checkpoint, run={"name": name}, on_step=on_step
    )
    return model, history.losses


def test_training_lowers_every_members_loss() -> None:
    _, losses = run()
    assert losses.shape == (60, 2)
    assert (losses[-5:].mean(0) < 0.2 * losses[:5].mean(0)).all()


@pytest.mark.parametrize("stop_at", [1, 20, 33, 41, 59])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path: Path, stop_at: int) -> None:
    whole, losses = run()
    checkpoint = tmp_path / "line.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, stop_at)
    assert checkpoint.exists() == (stop_at > 20)
    resumed, resumed_losses = run(checkpoint)
    assert torch.equal(losses, resumed_losses)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gates_rest_first() -> None:
    model, generator, loss = make()
    seen = []
    config = TrainingConfig(steps=40, gate_rest=0.5)
    train(model, loss, config, generators=[generator], on_step=lambda done: seen.append(model.offset.tolist()))
    assert all(value == [0.0, 0.0] for value in seen[:19])
    assert seen[-1] != [0.0, 0.0]


def test_truncated_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "line.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, stop_at=41)
    whole = checkpoint.read_bytes()
    for keep in (0, 5, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:keep])
        with pytest.raises(CheckpointError, match="not a whole gladient checkpoint"):
            run(checkpoint)
        assert checkpoint.read_bytes() == whole[:keep]


def test_foreign_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="not a whole gladient checkpoint"):
        run(path)


def test_checkpoint_of_another_run(tmp_path: Path) -> None:
    checkpoint = tmp_path / "line.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, stop_at=41)
    before = checkpoint.read_bytes()
    with pytest.raises(CheckpointError, match=r"another run \(it differs in name"):
        run(checkpoint, name="circle")
    assert checkpoint.read_bytes() == before


def test_tensors_and_state_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.arange(3).t()}, run={"n": (1, 2)}, step=7)
    tensors, state = load_tensors(path, run={"n": [1, 2]})
    assert tensors["x"].tolist() == [0, 1, 2]
    assert state == {"step": 7}
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_divergence_of_all_members_is_said() -> None:
    model, generator, loss = make()
    with pytest.raises(TrainingDivergedError, match="no member's loss is finite at step 1; lower learning_rate"):
        train(model, lambda m: loss(m) * float("inf"), CONFIG, generators=[generator])


def test_a_member_that_diverges_leaves_the_others_as_they_are() -> None:
    model, generator, loss = make()
    alone = train(model, loss, CONFIG, generators=[generator]).losses
    model, generator, loss = make()
    factors = torch.ones(alone.shape[1])
    factors[0] = float("nan")
    beside = train(model, lambda m: loss(m) * factors, CONFIG, generators=[generator]).losses
    assert beside[:, 0].isnan().all()
    assert torch.equal(beside[:, 1:], alone[:, 1:])


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.arange(3.0), "y": torch.ones(2, 2)}, run={"n": 1}, step=7)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError):
            load_tensors(path, run={"n": 1})


@pytest.mark.parametrize("lost", ["losses", "generator.0", "exp_avg."])
def test_a_checkpoint_that_lacks_a_tensor_is_named(tmp_path: Path, lost: str) -> None:
    path, run = tmp_path / "c.safetensors", dict[str, Any]()
    model, generator, loss = make()
    with pytest.raises(KeyboardInterrupt):
        train(
            model, loss, CONFIG, generators=[generator], checkpoint=path, run=run, on_step=_stop_after_the_first(path)
        )
    tensors, state = load_tensors(path, run={**run, "training": asdict(CONFIG)})
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(lost)}
    save_tensors(path, kept, run={**run, "training": asdict(CONFIG)}, **state)
    model, generator, loss = make()
    with pytest.raises(CheckpointError, match=f"lacks '{lost}"):
        train(model, loss, CONFIG, generators=[generator], checkpoint=path, run=run)


def _stop_after_the_first(checkpoint: Path) -> Callable[[int], None]:
    def on_step(done: int) -> None:
        if checkpoint.exists():
            raise KeyboardInterrupt

    return on_step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"gate_learning_rate": 0.0}, "gate_learning_rate is 0.0"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"gate_rest": -0.1}, "gate_rest is -0.1"),
    ],
)
def test_bad_config(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**change)


def test_evaluate_estimates_mean_and_standard_error_over_uneven_batches() -> None:
    values = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)) + torch.tensor([[1.0], [5.0]])
    drawn = iter(values.split(300, 1))
    result = evaluate(lambda count: next(drawn)[:, :count], 1000, batch=300)
    torch.testing.assert_close(result.risk, values.double().mean(1))
    torch.testing.assert_close(result.standard_error, values.double().std(1) / 1000**0.5)


def test_evaluate_needs_two_prompts() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(lambda count: torch.zeros(1, count), 1)
