"""What a changed forward pass takes beside the model's own, for models of published widths and random weights.

    OMP_NUM_THREADS=1 python -m benchmarks.interventions [--model qwen3-next]

Ratios of CPU seconds, which other programs hardly disturb, the least of some passes. `memory`: peak of the changed
pass beyond that of the model's own, in MiB.
"""

import time
from collections.abc import Callable

import torch
import tyro

from benchmarks.lens_models import build
from benchmarks.operators import clock
from gladient import lens

__all__ = ["main"]

CHANGES: dict[str, lens.Change] = {
    "scale_gates": lens.scale_gates(2.0),
    "fix_gates": lens.fix_gates(-0.1),
    "knock_out": lens.knock_out([3], [900]),
    "ablate": lens.ablate(),
}


@torch.no_grad()
def main(model: str = "", tokens: int = 1000, rounds: int = 3) -> None:
    """Prints one row for each model and change.

    Args:
        model: mamba2 (24 layers), mamba (4) or qwen3-next (3, and one of attention); the first two if not given.
        tokens: the length of the text.
        rounds: passes, of which the fastest counts.
    """
    print(f"{'model':<12}{'change':<14}{'forward s':>10}{'ratio':>8}{'memory':>8}")
    for name in [model] if model else ["mamba2", "mamba"]:
        built = build(name).eval()
        text = torch.randint(256, (1, tokens), generator=torch.Generator().manual_seed(0))

        def run(built: torch.nn.Module = built, text: torch.Tensor = text) -> None:
            built(input_ids=text, use_cache=False)

        run()
        plain, memory = _least(run, rounds), clock.peak(run)
        for change in CHANGES:
            with lens.intervene(built, CHANGES[change]):
                ratio, more = _least(run, rounds) / plain, clock.peak(run) - memory
            print(f"{name:<12}{change:<14}{plain:>10.2f}{ratio:>8.2f}{more:>8.0f}", flush=True)


def _least(run: Callable[[], None], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    tyro.cli(main)
