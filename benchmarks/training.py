"""What a training step of the multitask figure costs, and where its time goes.

    python -m benchmarks.training [--n 50] [--batch 512] [--threads 1] [--json]

For each kind of model: prompts trained per second (a prompt read by the stack's four panels counts once), the share of
the step spent on sampling, forward, backward and optimiser, and how many times longer forward and backward take when
every token's output is formed and the last is read (the plain layer) instead of the last alone; and how many times
longer a whole step takes that forms the last output by einsum, as the best script in plain PyTorch would, with our
sampler and optimiser, as it stands and compiled. Medians over interleaved rounds.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
import tyro
from torch import Tensor
from torch.nn import functional

from benchmarks.operators import clock
from gladient.experiments.figures.multitask import Multitask, MultitaskConfig

IN_A_ROW = 6  # as in a training loop; the first waits for memory that the way before gave back, and does not count
PHASES = ("sampling", "forward", "backward", "optimiser")
SCRIPTS = ("script", "compiled")


@dataclass(frozen=True)
class Options:
    """Prompts trained per second, and the share of each phase of a step."""

    n: int = 50
    """Examples in a prompt."""
    batch: int = 512
    """Prompts per step."""
    threads: int = 1
    """Threads; `gladient reproduce` trains with one per process."""
    rounds: int = 20
    """Turns of each kind of model and each way, of five steps."""
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
        self.seconds: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "plain", *SCRIPTS)}
        self.compiled = torch.compile(self.script_loss)

    def turn(self) -> None:
        """Some steps in a row of each way, timed."""
        for _ in range(IN_A_ROW):
            prompts = self.step()
        given = prompts.tokens[0], prompts.targets
        for _ in range(IN_A_ROW):
            timed(self.seconds, "plain", lambda: self.plain_loss(prompts).backward())
        for _ in range(IN_A_ROW):
            timed(self.seconds, "script", lambda: self.script_loss(*given).backward())
        for _ in range(IN_A_ROW):
            timed(self.seconds, "compiled", lambda: self.compiled(*given).backward())

    def step(self) -> Any:
        """One of ours, whose prompts it returns."""
        prompts = timed(self.seconds, "sampling", lambda: self.sampler.draw(self.batch, [self.generator]))
        loss = timed(self.seconds, "forward", lambda: self.loss(prompts))
        self.optimizer.zero_grad()
        timed(self.seconds, "backward", loss.backward)
        timed(self.seconds, "optimiser", self.optimizer.step)
        return prompts

    def check(self) -> None:
        """Raises AssertionError unless all ways give one loss and its gradients."""
        with torch.no_grad():
            self.model.readout += 1.0  # at its start of 0 nothing but itself has a gradient
        prompts = self.sampler.draw(self.batch, [self.generator])
        ways = (lambda: self.loss(prompts), lambda: self.script_loss(prompts.tokens[0], prompts.targets))
        found = []
        for way in ways:
            loss = way()
            found.append((loss, *torch.autograd.grad(loss, list(self.model.parameters()))))
        torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)

    def loss(self, prompts: Any) -> Tensor:
        """Ours."""
        return (self.model(prompts.tokens) - prompts.targets).square().mean(1).sum()

    def script_loss(self, z: Tensor, targets: Tensor) -> Tensor:
        """The same loss of tokens z [B, T, D] in plain PyTorch: all models at once, and of their outputs the last."""
        layer = self.model.layer
        q = layer.config.scale * torch.einsum("bd,edk->ebk", z[:, -1], layer.W_q)
        k, v = (torch.einsum("btd,edk->ebtk", z, weight) for weight in (layer.W_k, layer.W_v))
        if layer.gate is not None:
            log_gates = functional.logsigmoid(torch.einsum("btd,edc->ebtc", z, layer.gate.weight))
            v = v * (log_gates.flip(2).cumsum(2).flip(2) - log_gates).exp()
        outputs = torch.einsum("ebt,ebtv->ebv", torch.einsum("ebtk,ebk->ebt", k, q), v)
        return (torch.einsum("ebv,ev->eb", outputs, self.model.readout) - targets).square().mean(1).sum()

    def plain_loss(self, prompts: Any) -> Tensor:
        """The same loss through the outputs of all tokens."""
        outputs = self.model.layer(prompts.tokens)[:, :, -1]
        predictions = torch.einsum("ebv,ev->eb", outputs, self.model.readout)
        return (predictions - prompts.targets).square().mean(1).sum()

    def row(self) -> dict[str, float]:
        """Prompts per second, shares, and the other ways' ratios."""
        medians = {
            phase: median(x for i, x in enumerate(values) if i % IN_A_ROW) for phase, values in self.seconds.items()
        }
        step = sum(medians[phase] for phase in PHASES)
        shares = {phase: medians[phase] / step for phase in PHASES}
        ratio = medians["plain"] / (medians["forward"] + medians["backward"])
        around = medians["sampling"] + medians["optimiser"]
        scripts = {f"{name}_ratio": (around + medians[name]) / step for name in SCRIPTS}
        return {"prompts_per_second": self.batch / step, **shares, "plain_ratio": ratio, **scripts}


def main(options: Options) -> None:
    if min(options.batch, options.threads, options.rounds) < 1:
        found = f"batch {options.batch}, threads {options.threads}, rounds {options.rounds}"
        print(f"benchmarks.training: error: {found}; each must be at least 1", file=sys.stderr)
        sys.exit(2)
    torch.set_num_threads(options.threads)
    stacks = Multitask().work(MultitaskConfig(n=(options.n,)))
    benches = {stack.model: Bench(stack, options.batch) for stack in stacks}
    for bench in benches.values():
        bench.check()
    for _ in range(options.rounds):
        for bench in benches.values():
            bench.turn()
    rows = {name: bench.row() for name, bench in benches.items()}
    if options.json:
        print(json.dumps({"options": asdict(options), "rows": rows}))
        return
    ratios = {"plain layer": "plain_ratio", **{name: f"{name}_ratio" for name in SCRIPTS}}
    print(f"{'model':18}{'prompts/s':>11}" + "".join(f"{x:>11}" for x in PHASES) + "".join(f"{x:>13}" for x in ratios))
    for name, row in rows.items():
        shares = "".join(f"{row[phase]:11.0%}" for phase in PHASES)
        print(
            f"{name:18}{row['prompts_per_second']:11,.0f}{shares}"
            + "".join(f"{row[x]:12.1f}×" for x in ratios.values())
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
