"""What holds for each accelerated architecture: python tests/integrations/what_holds.py [architecture or column …].

It prints the table of docs/transformers.md, which `test_what_holds.py` compares with what it finds.
"""

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1] / "lens"))
from tiny import MODELS, Tiny

from gladient.integrations.transformers import SUPPORTED, accelerated

__all__ = ["CHECKS", "MODEL", "main"]

ROUNDING = 2e-5  # of the largest output


def _architecture(tiny: Tiny) -> Any:
    """The name of its folder in transformers, if the model is accelerated."""
    known = {name for names in SUPPORTED.values() for name in names}
    found = known & {type(part).__module__.rpartition("modeling_")[2] for part in tiny.build(0).modules()}
    return next(iter(found), None)


MODEL: dict[str, Tiny] = {name: tiny for tiny in MODELS.values() if (name := _architecture(tiny))}


def tokens(length: int, batch: int = 1) -> Tensor:
    return torch.randint(3, 60, (batch, length), generator=torch.Generator().manual_seed(length))


def build(tiny: Tiny) -> nn.Module:
    """With steps of any length: those of one token ignore the config's limits in transformers."""
    model = tiny.build(0)
    for part in model.modules():
        if hasattr(part, "time_step_limit"):
            part.time_step_limit = (0.0, float("inf"))  # type: ignore[assignment]
    return model


def off(x: Tensor, y: Tensor) -> float:
    """The largest difference, of the largest number."""
    return ((x - y).abs().max() / y.abs().max()).item()


def in_pieces(model: nn.Module, tiny: Tiny, x: Tensor, *lengths: int) -> Tensor:
    """What a model says of a row that it is given in pieces, with the cache of the pieces before."""
    found, cache = [], dict[str, Any]()
    for part in x.split(lengths, 1):
        output = model(part, use_cache=True, **cache)
        found.append(output[0])
        cache = {str(tiny.cache): getattr(output, str(tiny.cache))}
    return torch.cat(found, 1)


def trained(model: nn.Module, call: Callable[..., Any], x: Tensor) -> list[Tensor]:
    """Output and gradients."""
    model.zero_grad()
    torch.manual_seed(0)  # noise of routers
    y = call(x, use_cache=False)[0]
    y.square().mean().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def same(results: list[Tensor], others: list[Tensor]) -> bool:
    return all((x - y).norm() <= 1e-4 * y.norm() + 1e-7 for x, y in zip(results, others, strict=True))


@torch.no_grad()
def autocast(tiny: Tiny) -> str:
    """Under bfloat16 autocast, prompts and tokens err no more than the library's do there."""
    model, x, lengths = build(tiny), tokens(24, 2), (20, 1, 1, 1, 1)
    exact = in_pieces(model, tiny, x, *lengths)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = in_pieces(model, tiny, x, *lengths)
        with accelerated(model):
            ours = in_pieces(model, tiny, x, *lengths)
    few = 1.25  # of a thousand numbers with one rounding each
    return "yes" if ours.dtype == theirs.dtype and (ours - exact).norm() <= few * (theirs - exact).norm() else "no"


_PACKED = {
    frozenset({"yes", "by backbone"}): "yes",
    frozenset({"refused", "by backbone"}): "by backbone",
    frozenset({"refused"}): "refused",
}


@torch.no_grad()
def packed_rows(tiny: Tiny) -> str:
    """However it is told of packing, the second sequence knows nothing of the first and is as alone; or it refuses."""
    whole: Any = tiny.build(0)
    x, places = tokens(30), torch.arange(30)
    other = torch.where(places < 12, 7, x)
    numbers, borders = (places >= 12).int()[None], torch.tensor([0, 12, 30])
    restart = {"position_ids": torch.cat([places[:12], places[:18]])[None]}
    ways: list[dict[str, Any]] = [{"seq_idx": numbers}, {"cu_seq_lens_q": borders}, restart]
    ways.append({"seq_idx": numbers, "cu_seq_lens_q": borders, "cu_seq_lens_k": borders, **restart})
    found = set[str]()
    for model, kept in ((whole, "yes"), (getattr(whole, whole.base_model_prefix, whole), "by backbone")):
        with accelerated(model):
            alone = model(x[:, 12:])[0]
            for way, train in product(ways, (False, True)):
                model.train(train)  # which may take another path
                try:
                    first, second = (model(row, **way)[0][:, 12:] for row in (x, other))
                except ValueError as error:
                    found.add("refused" if "cannot keep their sequences apart" in str(error) else "no")
                else:
                    found.add(kept if torch.equal(first, second) and off(first, alone) < ROUNDING else "no")
    return _PACKED.get(frozenset(found), "no")


@torch.no_grad()
def padding(tiny: Tiny) -> str:
    """Padding on either side is nothing to the tokens: they are as alone, whatever stands there."""
    model, x = tiny.build(0), tokens(20)
    with accelerated(model):
        alone = model(x, use_cache=False)[0]
        for start, filler in product((0, 6), (0, 9)):
            real = slice(start, start + 20)
            row, mask = torch.full((1, 26), filler), torch.zeros(1, 26, dtype=torch.long)
            row[:, real], mask[:, real] = x, 1
            options = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
            if "position_ids" not in inspect.signature(model.forward).parameters:
                del options["position_ids"]
            if off(model(row, use_cache=False, **options)[0][:, real], alone) > ROUNDING:
                return "no"
    return "yes"


@torch.no_grad()
def cache_pieces(tiny: Tiny) -> str:
    """A row in pieces, some shorter than the convolution, then in tokens, is as the library has it, and as at once."""
    model, x, lengths = build(tiny), tokens(30, 2), (13, 8, 2, 3, 1, 1, 1, 1)
    theirs = in_pieces(model, tiny, x, *lengths)
    with accelerated(model):
        ours, at_once = in_pieces(model, tiny, x, *lengths), model(x, use_cache=False)[0]
    if off(ours, theirs) > ROUNDING:
        return "no"
    return "yes" if off(ours, at_once) < ROUNDING else "as there"


def compiled(tiny: Tiny) -> str:
    """Its layers compiled, each as one graph, outputs and gradients are the same."""
    model = tiny.build(0)
    torch.compiler.reset()
    with accelerated(model):
        plain = trained(model, model, tokens(20))
        for part in model.modules():
            if hasattr(part, "conv1d"):
                part.compile(backend="eager", fullgraph=True)
        return "yes" if same(trained(model, model, tokens(20)), plain) else "no"


def checkpointing(tiny: Tiny) -> str:
    """With either kind of checkpoints, gradients are the same."""
    model: Any = tiny.build(0).train()
    with accelerated(model):
        plain = trained(model, model, tokens(20, 2))
        for reentrant in (False, True):
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
            if not same(trained(model, model, tokens(20, 2)), plain):
                return "no"
    return "yes"


CHECKS: dict[str, Callable[[Tiny], str]] = {
    "autocast": autocast,
    "packed rows": packed_rows,
    "padding": padding,
    "cache pieces": cache_pieces,
    "compile": compiled,
    "checkpointing": checkpointing,
}


def table(names: list[str], columns: list[str]) -> Iterator[str]:
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "---|" * len(columns)
    for name in names:
        yield f"| `{name}` | {' | '.join(CHECKS[column](MODEL[name]) for column in columns)} |"


def main(wanted: list[str]) -> None:
    """Prints the table, or the rows and columns of it that are named."""
    warnings.simplefilter("ignore")
    names = [name for kind in SUPPORTED.values() for name in kind]
    kept = ([each for each in group if each in wanted] or list(group) for group in (names, CHECKS))
    for line in table(*kept):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
