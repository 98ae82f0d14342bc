"""Whole models of transformers with and without this package's kernels: the table of docs/speed.md.

    python -m benchmarks.whole_models [--threads 2] [--tokens 1024] [--rounds 3] [--processor-time]

Models have their published widths, a few of their layers, random weights and no head over a vocabulary. Ways alternate
in every round: milliseconds of a forward, of a forward and backward, and of a token of generation; medians. "products"
is the share of our forward that is spent in matrix products, which both ways have; all else is faster by "rest".
Where others use the machine too, a wall clock tells little: `--processor-time --threads 1` counts processor time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import transformers as library
import tyro
from torch import nn
from torch.profiler import profile
from transformers.utils import logging

from gladient.integrations.transformers import accelerated

__all__: list[str] = []

VOCABULARY = 512
Options = dict[str, Any]
PREFIX, STEPS = 16, 16
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}


@dataclass(frozen=True)
class Case:
    """One model: how it is made, the keyword of its cache, and tokens of its training where all would take too long."""

    name: str
    model: Callable[[], nn.Module]
    cache: str = "past_key_values"
    training_tokens: int | None = None


def _mamba2() -> nn.Module:
    sizes: Options = {"hidden_size": 768, "num_heads": 24, "head_dim": 64, "state_size": 128, "n_groups": 1}
    return library.Mamba2Model(library.Mamba2Config(vocab_size=VOCABULARY, num_hidden_layers=2, **sizes))


def _falcon_h1() -> nn.Module:
    sizes: Options = {"hidden_size": 1024, "intermediate_size": 2048, "head_dim": 64, "mamba_d_ssm": 1536}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 2}
    sizes |= {"mamba_n_heads": 24, "mamba_d_head": 64, "mamba_d_state": 128}
    return library.FalconH1Model(library.FalconH1Config(vocab_size=VOCABULARY, num_hidden_layers=2, **sizes))


def _mamba() -> nn.Module:
    sizes: Options = {"hidden_size": 768, "state_size": 16, "num_hidden_layers": 2}
    return library.MambaModel(library.MambaConfig(vocab_size=VOCABULARY, **sizes))


def _qwen3_5() -> nn.Module:
    layers = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    sizes: Options = {"hidden_size": 1024, "intermediate_size": 3584, "num_attention_heads": 8, "num_hidden_layers": 4}
    sizes |= {"num_key_value_heads": 2, "linear_num_key_heads": 16, "linear_num_value_heads": 16}
    config = library.Qwen3_5TextConfig(vocab_size=VOCABULARY, layer_types=layers, **sizes)
    return library.Qwen3_5TextModel(config)


def _kimi_linear() -> nn.Module:
    layers: Options = {"layer_types": ["linear_attention", "full_attention"], "mlp_layer_types": ["dense", "dense"]}
    sizes: Options = {"hidden_size": 2304, "intermediate_size": 9216}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": 32}
    config = library.KimiLinearConfig(vocab_size=VOCABULARY, num_hidden_layers=2, pad_token_id=0, **layers, **sizes)
    return library.KimiLinearModel(config)


CASES = (
    Case("Mamba-2 130M", _mamba2, cache="cache_params"),
    Case("Falcon-H1 0.5B", _falcon_h1),
    Case("Mamba 130M", _mamba, cache="cache_params", training_tokens=128),
    Case("Qwen3.5 0.8B", _qwen3_5),
    Case("Kimi Linear 48B", _kimi_linear, training_tokens=128),
)


def _jobs(case: Case, model: nn.Module, tokens: int) -> dict[str, Callable[[], Any]]:
    prompt = torch.randint(VOCABULARY, (1, tokens), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def forward() -> None:
        model.eval()(prompt, use_cache=False)

    def training() -> None:
        model.zero_grad()
        model.train()(prompt[:, : case.training_tokens], use_cache=False)[0].square().mean().backward()

    @torch.no_grad()
    def decoding() -> None:
        output = model.eval()(prompt[:, :PREFIX], use_cache=True)
        for t in range(PREFIX, PREFIX + STEPS):
            cache = {case.cache: getattr(output, case.cache)}
            output = model(prompt[:, t : t + 1], use_cache=True, **cache)

    return {"forward": forward, "forward and backward": training, "decoding": decoding}


def _both(job: Callable[[], Any], model: nn.Module, rounds: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Median seconds with transformers' functions and with ours, after a call of each that is not timed."""
    plain, ours = [], []
    for _ in range(rounds + 1):
        plain.append(_seconds(job, clock))
        with accelerated(model):
            ours.append(_seconds(job, clock))
    return median(plain[1:]), median(ours[1:])


def _seconds(job: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    job()
    return clock() - start


def _products(job: Callable[[], Any], model: nn.Module) -> float:
    with accelerated(model), profile() as seen:
        job()
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return sum(time for name, time in times.items() if name in PRODUCTS) / sum(times.values())


def main(threads: int = 2, tokens: int = 1024, rounds: int = 3, processor_time: bool = False) -> None:
    torch.set_num_threads(threads)
    logging.set_verbosity_error()
    clock, unit = (time.process_time, "of processor time") if processor_time else (time.perf_counter, "")
    versions = f"torch {torch.__version__}, transformers {library.__version__}"
    print(f"{versions}, {threads} thread{'s' * (threads > 1)}, {tokens} tokens, milliseconds {unit}")
    heads = "".join(f"{head:^27}" for head in ("forward", "forward + backward", "a token of decoding"))
    print(f"{'':16}{heads}\n{'':16}" + f"{'plain':>9}{'ours':>9}{'':9}" * 3 + "products    rest")
    for case in CASES:
        torch.manual_seed(0)
        model, row = case.model(), ""
        jobs, rest = _jobs(case, model, tokens), ""
        for name, job in jobs.items():
            calls = STEPS if name == "decoding" else 1
            plain, ours = (1e3 * seconds / calls for seconds in _both(job, model, rounds, clock))
            row += f"{plain:9.1f}{ours:9.1f}{plain / ours:8.2f}×"
            if name == "forward":
                share = _products(job, model)
                rest = f"{share:9.0%}{(plain - share * ours) / (ours - share * ours):7.1f}×"
        note = f"  ({case.training_tokens} tokens of training)" if case.training_tokens else ""
        print(f"{case.name:16}{row}{rest}{note}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
