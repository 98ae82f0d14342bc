"""A small model that is trained while one watches, with the numbers of `gladient train`."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gladient.prompts import MultitaskSetting

__all__ = ["WATCHED", "Training"]

WATCHED = ("scalar_gate", "value_gate", "linear_attention")
"""The models that a page can train, by their names in `experiments.MODELS`."""

_MOST = 4000  # examples times features: beyond that a step takes longer than one would watch
_TESTED = 2**15  # fresh prompts at the end: squared errors of normal numbers give a standard error of 0.8% of the risk


class _StoppedError(Exception):
    """Leaves the training loop."""


@dataclass(eq=False)
class Training:
    """One model on one setting, trained by `run` in whatever thread calls it.

    Args:
        setting: the data.
        model: a name in `WATCHED`.
        steps: of Adam.
        seed: decides the initial weights and the prompts.

    Attributes:
        losses: mean squared error of each batch so far; each is fresh, so it estimates the risk.
        tested: risk and standard error on fresh prompts, once all steps are done.

    Raises:
        ValueError: if the prompts are too long to watch.
    """

    setting: MultitaskSetting
    model: str = WATCHED[0]
    steps: int = 400
    seed: int = 0
    losses: list[float] = field(default_factory=list, init=False)
    tested: tuple[float, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        size = int(self.setting.n.sum()) * self.setting.d
        if size > _MOST:
            raise ValueError(
                f"a prompt holds {size:,} numbers (examples times features); the page trains on {_MOST:,} at most: "
                "make n or d smaller, or use gladient train"
            )

    def run(self, on_step: Callable[[], bool]) -> None:
        """Train until the end, or until `on_step`, which is called after each step, returns False.

        Raises:
            TrainingDivergedError: if the loss is not finite any more.
        """
        from torch import Tensor, get_num_threads, nn, set_num_threads  # when something is to be trained, not before

        from gladient.experiments import NamedSetting, TrainedStack
        from gladient.experiments.models.stack import prompt_streams
        from gladient.training import TrainingConfig, train

        panel, config = NamedSetting.of(self.setting), TrainingConfig(steps=self.steps)
        stack = TrainedStack(self.model, self.model, (panel,), (self.seed,), config, _TESTED)
        network, sampler = stack.build()
        fresh, M = prompt_streams("train", stack.seeds, sampler), self.setting.M

        def loss(network: nn.Module) -> Tensor:
            prompts = sampler.draw(config.batch_size, fresh)
            risk: Tensor = (network(prompts.tokens) - prompts.targets).square().mean(1)
            self.losses.append(risk.item())
            return risk / M

        def go_on(step: int) -> None:
            if not on_step():
                raise _StoppedError

        threads = get_num_threads()
        set_num_threads(1)  # small matrices; the other cores answer the page
        try:
            train(network, loss, config, generators=fresh, on_step=go_on)
            (found,) = stack.test(network, sampler)
            if "risk" in found:
                self.tested = found["risk"] * M, found["standard_error"] * M
        except _StoppedError:
            pass
        finally:
            set_num_threads(threads)
