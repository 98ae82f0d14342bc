"""What a training step of the multitask figure costs, and where its time goes.

    python -m benchmarks.training [--n 50] [--batch 512] [--threads 1] [--json]

For each kind of model: prompts trained per second (a prompt read by the stack's four panels counts once), the share of
the step spent on sampling, forward, backward and optimiser, and how many times longer forward and backward take when
every token's output is formed and the last is read (the plain layer) instead of the last alone. Medians over
interleaved rounds.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
import tyro

from benchmarks.operators import clock
from gladient.experiments.figures.multitask import Multitask, MultitaskConfig

PHASES = ("sampling", "forward", "backward", "optimiser")


@dataclass(frozen=True)
class Options:
    """Prompts trained per second, and the share of each phase of a step."""

    n: int = 50
    """Examples in a prompt."""
    batch: int = 512
    """Prompts per step."""
    threads: int = 1
    """Threads; `gladient reproduce` trains with one per process."""
    rounds: int = 60
    """Steps timed of each kind of model."""
    json: bool = False
    """Print JSON."""


def timed(seconds: dict[str, list[float]], phase: str, action: Callable[[], Any]) -> Any:
    results: list[Any] = []
    seconds[phase].append(clock.seconds(lambda: results.append(action())))
    return results[0]


class Bench:
    """One stack and the time of each phase of its steps."""

    def __init__(self, stack: Any, batch: int) -> None:
        self.model, self.sampler = stack.build()
        self.batch = batch
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(0)
        self.seconds: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "plain")}

    def step(self) -> None:
        """One step of each way, timed."""
        prompts = timed(self.seconds, "sampling", lambda: self.sampler.draw(self.batch, [self.generator]))
        loss = timed(
            self.seconds, "forward", lambda: (self.model(prompts.tokens) - prompts.targets).square().mean(1).sum()
        )
        self.optimizer.zero_grad()
        timed(self.seconds, "backward", loss.backward)
        timed(self.seconds, "optimiser", self.optimizer.step)
        timed(self.seconds, "plain", lambda: self.plain_loss(prompts).backward())

    def plain_loss(self, prompts: Any) -> torch.Tensor:
        """The same loss through the outputs of all tokens."""
        outputs = self.model.layer(prompts.tokens)[:, :, -1]
        predictions = torch.einsum("ebv,ev->eb", outputs, self.model.readout)
        return (predictions - prompts.targets).square().mean(1).sum()

    def row(self) -> dict[str, float]:
        """Prompts per second, shares, and the plain layer's ratio."""
        medians = {phase: median(values[len(values) // 6 :]) for phase, values in self.seconds.items()}
        step = sum(medians[phase] for phase in PHASES)
        shares = {phase: medians[phase] / step for phase in PHASES}
        ratio = medians["plain"] / (medians["forward"] + medians["backward"])
        return {"prompts_per_second": self.batch / step, **shares, "plain_ratio": ratio}


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    stacks = Multitask().work(MultitaskConfig(n=(options.n,)))
    benches = {stack.model: Bench(stack, options.batch) for stack in stacks}
    for _ in range(options.rounds):
        for bench in benches.values():
            bench.step()
    rows = {name: bench.row() for name, bench in benches.items()}
    if options.json:
        print(json.dumps({"options": asdict(options), "rows": rows}))
        return
    print(f"{'model':18}{'prompts/s':>11}" + "".join(f"{phase:>11}" for phase in PHASES) + f"{'plain layer':>13}")
    for name, row in rows.items():
        shares = "".join(f"{row[phase]:11.0%}" for phase in PHASES)
        print(f"{name:18}{row['prompts_per_second']:11,.0f}{shares}{row['plain_ratio']:12.1f}×")


if __name__ == "__main__":
    main(tyro.cli(Options))
