"""Ours and the peers' operators on this machine, same inputs, checked equal before they are timed.

`python -m benchmarks.operators --cases scalar key last`, from the repository's root; `--cases all` takes half an hour.
`pip install 'gladient[peers]'` brings the peers; without them only ours and plain chunks run.
"""

import os
import sys
from dataclasses import dataclass
from typing import Literal

import tyro

from gladient._text import json_text

__all__ = ["Bench"]

# What plain torch may use where our kernels are held to a level; MKL heeds its variable on Intel CPUs alone.
_TORCH_AT = {"v3": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time the operators here: ours beside flash-linear-attention, transformers, rwkv7-hf, ggml and compiled torch.

    Example: python -m benchmarks.operators --cases scalar key last

    Peers that are not installed are left out, and the table says what to install.
    """

    cases: tuple[str, ...] = ("scalar", "key", "last")
    """Which of scalar, key, last, rwkv6, mamba2, mamba1, step-key, step-mamba2, step-key-batch, scalar-short,
    scalar-long, key-short, key-long, context, full, delta, delta-wide, delta-short, delta-last, kda, step-delta, rwkv7,
    rwkv7-last, step-rwkv7, rotate, mamba3; or all."""
    threads: int = 2
    """CPU threads."""
    rounds: int = 5
    """Interleaved rounds; the table shows medians."""
    level: Literal["v3", "v4", "native"] | None = None
    """Instructions that the kernels may use, the best that the CPU has if not given; v3 limits torch to AVX2 too."""
    peers: tuple[Literal["installed", "compiled", "eager", "ggml"], ...] = ("installed", "compiled", "eager", "ggml")
    """Who takes part beside ours: what can be installed, compiled and plain PyTorch, and ggml. For long sequences ggml
    alone is quick enough."""
    json: bool = False
    """Print one JSON object per case instead of tables."""

    def run(self) -> None:
        """Print one table per case."""
        self._hold_to_level()
        import torch

        from benchmarks.operators.cases import CASES
        from benchmarks.operators.measuring import measure
        from benchmarks.operators.table import as_json, table

        names = tuple(CASES) if self.cases == ("all",) else self.cases
        unknown = [name for name in names if name not in CASES]
        if unknown or not names or self.rounds < 1 or self.threads < 1:
            given = f"cases {list(self.cases)}, threads {self.threads}, rounds {self.rounds}"
            raise ValueError(f"{given}; cases must be one or more of {', '.join(CASES)}, the others at least 1")
        torch.set_num_threads(self.threads)
        width = torch.backends.cpu.get_cpu_capability()
        level = f", kernels {self.level}" if self.level else ""
        if not self.json:
            print(f"torch {torch.__version__} ({width}){level}, {torch.get_num_threads()} threads, float32")
        for name in names:
            result = measure(CASES[name], self.rounds, self.threads, self.peers)
            if self.json:
                setting = {"torch": torch.__version__, "torch_level": width, "level": self.level}
                print(json_text(setting | {"threads": self.threads} | as_json(name, result)), flush=True)
            else:
                print(table(result), flush=True)

    def _hold_to_level(self) -> None:
        """Before torch is imported, which reads its own variable once."""
        if self.level is None:
            return
        if "torch" in sys.modules:
            raise ValueError(f"level is {self.level!r} and torch is imported already; use the command")
        os.environ.update({"GLADIENT_CPU_LEVEL": self.level} | _TORCH_AT.get(self.level, {}))


if __name__ == "__main__":
    try:
        tyro.cli(Bench, prog="python -m benchmarks.operators").run()
    except ValueError as error:
        print(f"benchmarks.operators: error: {error}", file=sys.stderr)
        sys.exit(2)
