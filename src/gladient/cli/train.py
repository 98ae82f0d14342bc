"""`gladient train`: one model on one setting, beside its exact risk."""

from dataclasses import dataclass
from pathlib import Path

from gladient.cli.numbers import Real, Whole
from gladient.cli.run import ModelOptions, print_made
from gladient.cli.setting import SettingOptions

__all__ = ["Train"]


@dataclass(frozen=True, kw_only=True)
class Train(ModelOptions, SettingOptions):
    """Train one model on one setting and draw its risk falling to the exact line; the weights are kept.

    Example: gladient train --model scalar_gate --n 25 25 --r 0.2 0.8 --d 10
    """

    model: str = "scalar_gate"
    """linear_attention, scalar_gate, value_gate, without_context; a preset: retnet, mamba2, gla, rwkv6, mamba, hgrn2,
    deltanet, gated_deltanet, kda, comba, rwkv7, mamba3; delta_rule, gated_delta_rule, gated_delta_rule_unit (keys of
    length 1), delta_rule_per_task, delta_rule_per_task_unit; fixed_rotation, rotating_gate, rotating_delta_rule;
    without delimiters stream_gate, stream_delta_rule, stream_gated_delta_rule; or your own, see --register."""
    seed: Whole = 0
    """Decides the initial weights and the prompts."""
    steps: Whole = 800
    """Steps of Adam."""
    batch_size: Whole = 512
    """Fresh prompts per step."""
    learning_rate: Real = 1e-2
    """Step size at its peak."""
    test_prompts: Whole = 2**17
    """Fresh prompts of the test."""
    out: Path | None = None
    """Folder to write to; left out: results/train-MODEL."""

    def run(self) -> int:
        """Train it; 1 if it does not reach its exact risk, or if too few test prompts leave that undecided."""
        from gladient.experiments import NamedSetting, Single, SingleConfig, make
        from gladient.training import TrainingConfig

        self.import_models()
        config = SingleConfig(
            model=self.model,
            panel=NamedSetting.of(self.load()),
            seed=self.seed,
            training=TrainingConfig(steps=self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate),
            test_prompts=self.test_prompts,
            device=self.device,
        )
        out, figure = self.out or Path("results") / f"train-{self.model}", Single()
        made = make(figure, config, out, command=f"gladient train --model {self.model}", **self.engine())
        return print_made(figure, made, out)
