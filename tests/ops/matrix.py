"""What holds of the operators and presets under PyTorch's transforms: python tests/ops/matrix.py [--write] [row …].

It tries each cell, with numbers, and prints the table of docs/operators.md; --write puts it there.
"""

import copy
import re
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gladient.nn import ResidualModel, presets
from gladient.ops import gated_delta_rule, gated_linear_attention, generalized_delta_rule

__all__ = ["PAGE", "ROWS", "SUBJECTS", "cell", "table"]

Given = dict[str, Tensor]
Axes = dict[str, tuple[int | None, int | None]]

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-9}
WIDTH = 8


@dataclass(frozen=True)
class Case:
    """A function of tensors, and those that it takes."""

    run: Callable[[Given], tuple[Tensor, ...]]
    make: Callable[[int, int], Given]
    axes: Axes  # where batch and tokens are
    model: Any = None

    def at(self, to: Any) -> "Case":
        """The same on another device, or in another dtype."""
        return self if self.model is None else _of_model(copy.deepcopy(self.model).to(to), self.make)

    def loss(self, given: Given) -> Tensor:
        return torch.stack([x.sin().sum() for x in self.run(given)]).sum()

    def gradients(self, given: Given, run: Any = None) -> list[Tensor]:
        """Outputs and gradients."""
        leaves = {name: x.detach().clone().requires_grad_() for name, x in given.items()}
        outputs = (run or self.run)(leaves)
        return [
            *outputs,
            *torch.autograd.grad(torch.stack([x.sin().sum() for x in outputs]).sum(), list(leaves.values())),
        ]


def _operator(family: str, **options: Any) -> Case:
    def make(B: int, T: int) -> Given:
        rng = torch.Generator().manual_seed(B + 100 * T)
        normal = partial(torch.randn, generator=rng, dtype=torch.float64)
        uniform = partial(torch.rand, generator=rng, dtype=torch.float64)
        given = {"q": normal(B, T, 2, 3), "k": normal(B, T, 2, 3), "v": normal(B, T, 2, 2)}
        given["k"] = torch.nn.functional.normalize(given["k"], dim=3)
        given |= {"g": -uniform(B, T, 2)} if "g" in family else {"gk": -uniform(B, T, 2, 3)}
        given |= {"gv": -uniform(B, T, 2, 2)} if "v" in family else {}
        given |= {"beta": uniform(B, T, 2)} if "delta" in family else {}
        given |= {"a": -given["k"], "b": given["k"] * uniform(B, T, 2, 3)} if "dplr" in family else {}
        return given | {"initial_state": normal(B, 2, 3, 2)}

    function: Any = _function(make(1, 1))
    axes: Axes = {name: (0, None if name == "initial_state" else 1) for name in make(1, 1)}
    return Case(lambda given: function(**given, **options, output_final_state=True), make, axes)


def _function(given: Given) -> Callable[..., Any]:
    if "a" in given:
        return generalized_delta_rule
    return gated_delta_rule if "beta" in given else gated_linear_attention


def _preset(name: str) -> Case:
    torch.manual_seed(0)
    model = ResidualModel(WIDTH, [presets.PRESETS[name](WIDTH, heads=2)]).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    def make(B: int, T: int) -> Given:
        generator = torch.Generator().manual_seed(B + 100 * T)
        return {"tokens": 0.5 * torch.randn(1, B, T, WIDTH, generator=generator, dtype=torch.float64)}

    return _of_model(model, make)


def _of_model(model: Any, make: Callable[[int, int], Given]) -> Case:
    return Case(lambda given: (model(given["tokens"]),), make, {"tokens": (1, 2)}, model)


_FORMS: list[dict[str, Any]] = [{}, *({"form": form, "backend": "eager"} for form in ("recurrent", "chunked"))]
_FORMS += [{"form": "last_query", "backend": backend} for backend in ("eager", "auto")]
SUBJECTS: dict[str, list[Case]] = {
    "`gated_linear_attention`": [
        *(_operator("g", **form) for form in (*_FORMS, {"form": "parallel"})),
        *(_operator("k v", **form) for form in _FORMS),
    ],
    "`gated_delta_rule`": [_operator("delta g", **form) for form in _FORMS],
    "`generalized_delta_rule`": [_operator("dplr k", **form) for form in (_FORMS[0], _FORMS[2], _FORMS[4])],
    "presets of `nn`": [_preset(name) for name in presets.PRESETS],
}


def compiled(case: Case, fullgraph: bool) -> None:
    """Outputs and gradients of torch.compile are those without."""
    torch.compiler.reset()
    function: Any = torch.compile(case.run, backend="aot_eager", fullgraph=fullgraph)
    given = case.make(2, 9)
    torch.testing.assert_close(case.gradients(given, function), case.gradients(given), **CLOSE)


def exported(case: Case) -> None:
    """One program for other batches and lengths than it was made with."""

    class Module(torch.nn.Module):
        def forward(self, given: Given) -> Any:
            return case.run(given)

    batch, tokens = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("tokens", min=2, max=4096)
    dims = {
        name: {axis: dim for axis, dim in zip(axes, (batch, tokens), strict=True) if axis is not None}
        for name, axes in case.axes.items()
    }
    program = torch.export.export(Module(), (case.make(3, 20),), dynamic_shapes=(dims,)).module()
    for sizes in ((2, 7), (5, 33)):
        given = case.make(*sizes)
        torch.testing.assert_close(tuple(program(given)), tuple(case.run(given)), **CLOSE)


def autocast(case: Case) -> None:
    """float32 stays float32: of operators in both passes, of models in the forward pass, behind which a region ends."""
    given, case = {name: x.float() for name, x in case.make(2, 9).items()}, case.at(torch.float32)
    region = partial(torch.autocast, "cpu", torch.bfloat16)  # one that is entered twice would never be left
    with region() if case.model is None else nullcontext():
        inside = case.gradients(given, region()(case.run))
    assert not torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(inside, case.gradients(given), rtol=1e-4, atol=1e-5)


def mapped(case: Case) -> None:
    """Gradients of each of three, at once."""
    parts = [case.make(2, T) for T in (9, 9, 9)]
    parts = [{name: x * (1 - 0.1 * i) for name, x in part.items()} for i, part in enumerate(parts)]
    stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    found = torch.func.vmap(torch.func.grad(case.loss))(stacked)
    for i, part in enumerate(parts):
        wanted = case.gradients(part)[-len(part) :]
        torch.testing.assert_close([x[i] for x in found.values()], wanted, **CLOSE)


def forward_mode(case: Case) -> None:
    """A tangent is the gradient times its direction."""
    given = case.make(2, 5)
    along = {name: x.cos() for name, x in given.items()}
    tangent = torch.func.jvp(case.loss, (given,), (along,))[1]
    gradients = case.gradients(given)[-len(given) :]
    wanted = sum((x * t).sum() for x, t in zip(gradients, along.values(), strict=True))
    torch.testing.assert_close(tangent, wanted, **CLOSE)


def hessian(case: Case) -> None:
    """A Hessian times a direction is a difference of gradients."""
    given, h = case.make(1, 3), 1e-5
    name = "v" if "v" in given else "tokens"
    x, along = given[name], given[name].cos()
    found = torch.func.hessian(lambda x: case.loss(given | {name: x}))(x).reshape(x.numel(), -1) @ along.flatten()
    ends = [torch.func.grad(lambda x: case.loss(given | {name: x}))(x + step * along) for step in (h, -h)]
    torch.testing.assert_close(found, (ends[0] - ends[1]).flatten() / (2 * h), rtol=1e-6, atol=1e-7)


def checkpointed(case: Case) -> None:
    """Recomputed in the backward pass."""
    given = case.make(2, 9)
    again = case.gradients(given, lambda leaves: checkpoint(case.run, leaves, use_reentrant=False))
    torch.testing.assert_close(again, case.gradients(given), **CLOSE)


def threads(case: Case, n: int = 4) -> None:
    """Outputs and gradients of many threads at once."""
    given = [case.make(2, 5 + i) for i in range(n)]
    wanted, found = [case.gradients(x) for x in given], list[Any]([None] * n)

    def work(i: int) -> None:
        found[i] = case.gradients(given[i])

    started = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)  # sums of PyTorch differ with alignment


def meta(case: Case) -> None:
    """Shapes and dtypes, without numbers."""
    given = case.make(2, 9)
    wanted = [(x.shape, x.dtype) for x in case.run(given)]
    found = case.at("meta").run({name: x.to("meta") for name, x in given.items()})
    assert [(x.shape, x.dtype) for x in found] == wanted
    assert all(x.is_meta for x in found)


def with_option(case: Case, **option: Any) -> None:
    """One graph of one row, with an option that looks at values."""
    if "tokens" in case.axes:
        raise NotImplementedError
    given = case.make(1, 9)
    del given["initial_state"]
    torch.compiler.reset()
    torch.compile(partial(_function(given), **option), backend="eager", fullgraph=True)(**given)


ROWS: dict[str, Callable[[Case], None]] = {
    "compile": partial(compiled, fullgraph=False),
    "fullgraph": partial(compiled, fullgraph=True),
    "fullgraph, `cu_seqlens` a tensor": partial(with_option, cu_seqlens=torch.tensor([0, 4, 9])),
    "fullgraph, `check_values=True`": partial(with_option, check_values=True),
    "export with dynamic sizes": exported,
    "autocast": autocast,
    "vmap": mapped,
    "jvp": forward_mode,
    "hessian": hessian,
    "checkpoint": checkpointed,
    "threads": threads,
    "meta": meta,
}
_SENTENCES = re.compile(r"(cu_seqlens came as a tensor|check_values=True came) .*?(?=\)? ?(Hint|$)|\) Hint)")


@cache
def cell(row: str, subject: str) -> str:
    """ "right" if the numbers are, what an error says, or "not applicable"."""
    if row == "compile" and cell("fullgraph", subject) == "right":  # what makes one graph needs no break
        return "right"
    for case in SUBJECTS[subject]:
        try:
            ROWS[row](case)
        except NotImplementedError:
            return "not applicable"
        except AssertionError as error:
            return f"wrong: {' '.join(str(error).split())}"
        except Exception as error:
            said = _SENTENCES.search(" ".join(str(error).split()))
            return f"refused: {said[0]}" if said else f"fails: {type(error).__name__} {' '.join(str(error).split())}"
    return "right"


def table(rows: list[str]) -> list[str]:
    """Lines of Markdown."""
    lines = ["| inside | " + " | ".join(SUBJECTS) + " |", "|---|" + "---|" * len(SUBJECTS)]
    return lines + [f"| {row} | " + " | ".join(cell(row, subject) for subject in SUBJECTS) + " |" for row in rows]


def main(wanted: list[str]) -> None:
    """Prints the table, or puts it into the page."""
    warnings.simplefilter("ignore")
    rows = [row for row in ROWS if row in wanted] or list(ROWS)
    lines = table(rows)
    print("\n".join(lines))
    if "--write" in wanted:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(r"\| inside \|(.*\n\|)*.*\|", lambda _: "\n".join(lines), page), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
