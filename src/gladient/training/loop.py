"""The training loop: a loss, Adam, a schedule, and checkpoints that resume to the same bits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gladient._tensors import CheckpointError, load_tensors, save_tensors
from gladient.training.config import TrainingConfig

__all__ = ["History", "TrainingDivergedError", "train"]


class TrainingDivergedError(ValueError):
    """The loss of every member became infinite or NaN."""


@dataclass(frozen=True)
class History:
    """What training went through.

    Attributes:
        losses: loss of each member at each step, [steps, E].
    """

    losses: Float[Tensor, "steps E"]


def train(
    model: nn.Module,
    loss: Callable[[nn.Module], Float[Tensor, " E"]],
    config: TrainingConfig,
    *,
    generators: Sequence[torch.Generator] = (),
    checkpoint: Path | None = None,
    run: Mapping[str, Any] | None = None,
    on_step: Callable[[int], None] = lambda step: None,
) -> History:
    """Train a stack of models in place; its members do not influence one another.

    Args:
        model: the stack; `model.gate_parameters()`, where it has any, take the gates' step size.
        loss: draws a fresh batch and returns the loss of each member.
        config: steps, step sizes, schedule.
        generators: what `loss` draws from; their states are kept in checkpoints.
        checkpoint: where to keep checkpoints; a file that is already there is resumed from.
        run: a description of everything else that decides the result, as JSON values; a checkpoint of another
            description is refused.
        on_step: called with the number of steps done after each.

    Returns:
        The losses of all steps, those before a resumption included.

    Raises:
        CheckpointError: if `checkpoint` is damaged or belongs to another run.
        TrainingDivergedError: if no member's loss is finite any more; one member alone does not stop the others.

    Resuming gives bit-identical results on the same machine, versions and thread count.
    """
    described = {**(run or {}), "training": asdict(config)}
    optimizer = _adam(model, config)
    start, losses = _resume(checkpoint, described, model, optimizer, generators)
    for step in range(start, config.steps):
        losses.append(_step(model, loss, optimizer, config, step))
        done = step + 1
        on_step(done)
        if done % config.checkpoint_every == 0 or done == config.steps:
            losses = [torch.cat(losses)]
            _check_finite(losses[0], config)
            if checkpoint is not None and done < config.steps:
                tensors = {"losses": losses[0], **_state(model, optimizer, generators)}
                save_tensors(checkpoint, tensors, run=described, step=done)
    return History(losses=torch.cat(losses))


def _step(
    model: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    optimizer: torch.optim.Adam,
    config: TrainingConfig,
    step: int,
) -> Float[Tensor, "1 E"]:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * config.schedule(step, group["rest"])
    member_losses = loss(model)
    optimizer.zero_grad()
    member_losses.sum().backward()  # a sum, not a mean: a member's gradient does not depend on how many there are
    optimizer.step()
    return member_losses.detach().cpu()[None]


def _resume(
    checkpoint: Path | None,
    described: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Adam,
    generators: Sequence[torch.Generator],
) -> tuple[int, list[Tensor]]:
    """Steps done and their losses, after restoring the state they led to; nothing without a checkpoint."""
    if checkpoint is None or not checkpoint.exists():
        return 0, []
    tensors, state = load_tensors(checkpoint, run=described)
    try:
        _restore(model, optimizer, generators, tensors, step=state["step"])
        return state["step"], [tensors["losses"]]
    except KeyError as error:
        raise CheckpointError(f"{checkpoint} lacks {error}; delete it: the training starts again") from None
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} does not fit ({error}); delete it: the training starts again") from None


def _adam(model: nn.Module, config: TrainingConfig) -> torch.optim.Adam:
    gates: list[nn.Parameter] = getattr(model, "gate_parameters", list)()
    chosen = {id(parameter) for parameter in gates}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    groups = [
        {"params": rest, "peak": config.learning_rate, "rest": 0.0},
        {"params": gates, "peak": config.gate_learning_rate, "rest": config.gate_rest},
    ]
    # Squares are averaged over 100 steps, of which a run has hundreds. Adam's own 0.999, over 1000 steps, ends within
    # 0.1% of the same risk, scalar and value gates alike (n = 25 + 25, d = 10, 400 steps).
    return torch.optim.Adam([group for group in groups if group["params"]], betas=(0.9, 0.99), fused=True)


def _check_finite(losses: Tensor, config: TrainingConfig) -> None:
    bad = ~losses.isfinite()
    if bad.any(0).all():  # once a loss is not finite the parameters are not either, and no later one is
        step = int(bad.int().argmax(0).max())
        raise TrainingDivergedError(
            f"no member's loss is finite at step {step + 1}; "
            f"lower learning_rate ({config.learning_rate}) or gate_learning_rate ({config.gate_learning_rate})"
        )


def _state(model: nn.Module, optimizer: torch.optim.Adam, generators: Sequence[torch.Generator]) -> dict[str, Tensor]:
    tensors = {f"generator.{i}": generator.get_state() for i, generator in enumerate(generators)}
    for name, parameter in model.named_parameters():
        moments = optimizer.state.get(parameter, {})  # none of a parameter that the loss does not depend on
        tensors[f"model.{name}"] = parameter
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}.{name}"] = moments.get(moment, torch.zeros_like(parameter))
    return tensors


def _restore(
    model: nn.Module,
    optimizer: torch.optim.Adam,
    generators: Sequence[torch.Generator],
    tensors: Mapping[str, Tensor],
    *,
    step: int,
) -> None:
    for i, generator in enumerate(generators):
        generator.set_state(tensors[f"generator.{i}"])
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(tensors[f"model.{name}"])
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step), device=parameter.device),
            "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
            "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
        }
