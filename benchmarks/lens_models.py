"""Models of published widths and random weights under the lens: proved, packed and written, beyond the forward pass.

    python -m benchmarks.lens_models [--only mamba2] [--json]

Every row runs in a process of its own, on one core. `proved`: layers whose proof holds. `lens`: the largest distance of
a rebuilt output from the exact recurrence; `own`: that of a layer's own output, in the head nearest to its bound, which
is `explained`. CPU seconds, which other programs hardly disturb, of the forward pass and of what the lens adds to it:
capture, proof of every head, summaries, page. Each layer is proved, and made small for the page, as soon as it has run.
Peak memory of the forward pass, and of all from capture to page.
"""

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import nn

from benchmarks.operators import clock

__all__ = ["main"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
CASES = [
    *(("mamba2", tokens, dtype) for tokens in (1000, 2040) for dtype in DTYPES),
    *(("mamba", tokens, "float32") for tokens in (1000, 2040)),
    *(("qwen3-next", tokens, "float32") for tokens in (1000, 2040)),
]
COLUMNS = ["model", "tokens", "dtype", "proved", "lens", "own", "explained", "forward s", "lens s"]
COLUMNS += ["forward MiB", "lens MiB", "page MiB"]


@dataclass(frozen=True)
class Options:
    """Time, memory and page of models of published widths."""

    only: str = ""
    """mamba2 (24 layers), mamba (4) or qwen3-next (3, and one of attention); all if not given."""
    case: str = ""
    """model,tokens,dtype: one row, in this process, as JSON."""
    json: bool = False
    """Print JSON."""


def build(name: str) -> nn.Module:
    from transformers import (
        Mamba2Config,
        Mamba2ForCausalLM,
        MambaConfig,
        MambaForCausalLM,
        Qwen3NextConfig,
        Qwen3NextForCausalLM,
    )

    torch.manual_seed(0)
    common: dict[str, Any] = {"vocab_size": 256, "pad_token_id": 0}
    if name == "mamba2":
        sizes: dict[str, Any] = {"num_heads": 24, "head_dim": 64, "hidden_size": 768, "state_size": 128, "n_groups": 1}
        return Mamba2ForCausalLM(Mamba2Config(num_hidden_layers=24, **sizes, **common))
    if name == "mamba":
        return MambaForCausalLM(MambaConfig(hidden_size=768, num_hidden_layers=4, **common))
    experts: dict[str, Any] = {"num_experts": 2, "num_experts_per_tok": 1}
    return Qwen3NextForCausalLM(Qwen3NextConfig(num_hidden_layers=4, **experts, **common))


def run_case(name: str, tokens: int, dtype: str) -> dict[str, Any]:
    from gladient import lens
    from gladient.lens.page import ModelView, PageLayer, keep, write_page

    model, ids = build(name).to(DTYPES[dtype]).eval(), torch.randint(1, 256, (1, tokens))
    kept: list[PageLayer] = []

    def forward() -> None:
        model(input_ids=ids, use_cache=False)

    def capture() -> None:
        with lens.capture(model, on_record=lambda record: kept.append(keep(record))):
            forward()

    def write() -> None:
        words = [f" {token}" for token in ids[0].tolist()]
        write_page(path, [ModelView(name, words, kept, ungated=lens.ungated_layers(model))])

    seconds = []

    def timed(job: Callable[[], None]) -> None:
        before = time.process_time()
        job()
        seconds.append(time.process_time() - before)

    def everything() -> None:
        timed(capture)
        timed(write)

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lens.html"
        forward()
        plain, memory = clock.peak(lambda: timed(forward)), clock.peak(everything)
        page = path.stat().st_size / 2**20
    found = [layer.reconstruction_error for layer in kept]
    worst = max(found, key=lambda each: each.error / each.tolerance)
    proved = f"{sum(each.passed for each in found)}/{len(found)}"
    proof = [proved, max(each.lens for each in found), worst.error, worst.tolerance]
    alone, hooked, written = seconds
    costs = [alone, hooked - alone + written, plain, memory, page]
    return dict(zip(COLUMNS, [name, tokens, dtype, *proof, *costs], strict=True))


def main(options: Options) -> None:
    if options.case:
        torch.set_num_threads(1)
        name, tokens, dtype = options.case.split(",")
        print(json.dumps(run_case(name, int(tokens), dtype)))
        return
    rows = []
    for case in CASES:
        if case[0].startswith(options.only):
            command = [sys.executable, "-m", "benchmarks.lens_models", "--case", ",".join(map(str, case))]
            done = subprocess.run(command, capture_output=True, encoding="utf-8")
            if done.returncode:
                raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(json.dumps(rows[-1]) if options.json else line(rows[-1], header=len(rows) == 1), flush=True)


def line(row: dict[str, Any], *, header: bool) -> str:
    cells = [shown(value) for value in row.values()]
    widths = [max(len(name), 10) for name in row]
    lines = [" ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))]
    if header:
        lines.insert(0, " ".join(f"{name:>{width}}" for name, width in zip(row, widths, strict=True)))
    return "\n".join(lines)


def shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if value < 1e-3 else f"{value:.1f}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(tyro.cli(Options))
