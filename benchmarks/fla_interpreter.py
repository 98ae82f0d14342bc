"""flash-linear-attention's Triton kernels, run by Triton's interpreter on the CPU, beside the native backend.

`pip install triton`, then `python -m benchmarks.fla_interpreter` (about five minutes). Every function of the adapter's
table is given what the adapter would give it on a GPU; the largest differences of outputs, of final states and, for
chunks, of gradients, relative to their largest entries, must stay below 5e-6, or the exit code is 1.
"""

import builtins
import os
import sys
from collections.abc import Iterator
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported

import torch

from gladient import _optional
from gladient.ops import fla, gated_delta_rule, gated_linear_attention
from gladient.ops.call import prepare

__all__: list[str] = []

B, T, H, K, V = 1, 40, 2, 16, 32
LARGEST = 5e-6
GATES = {"scalar": ("g", ()), "key": ("gk", (K,)), "value": ("gv", (V,))}


class Interpreter:
    """A driver for Triton's autotuner where there is no device: every configuration runs once and takes no time."""

    def get_benchmarker(self) -> Any:
        return lambda kernel, quantiles=None, **_: [kernel(), 0.0, 0.0, 0.0][1:]

    def get_current_device(self) -> int:
        return 0


def scalars(*bounds: Any) -> Iterator[Any]:
    """`range` inside interpreted kernels, which cast its numbers like tensors."""
    whole = (int(x.handle.data.item()) if hasattr(x, "handle") else int(getattr(x, "value", x)) for x in bounds)
    tl = sys.modules["triton.language"]
    return (tl.full((), i, tl.int32) for i in builtins.range(*whole))


def inputs(write: str, family: str, read: str) -> dict[str, Any]:
    """Arguments of our operator."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    given: dict[str, Any] = {"q": normal(B, T, H, K), "k": normal(B, T, H, K), "v": normal(B, T, H, V)}
    for part in family.split("×") if family != "none" else []:
        name, rest = GATES[part]
        given[name] = -torch.rand(B, T, H, *rest, generator=generator)
    given |= {"initial_state": normal(B, H, K, V), "output_final_state": True, "read": read}
    given |= {"bonus": normal(H, K)} if read == "before" else {}
    if write == "plain":
        return given
    given["k"] = torch.nn.functional.normalize(given["k"], dim=-1)
    if write == "delta":
        return given | {"beta": normal(B, T, H).sigmoid()}
    return given | {"beta": normal(B, T, H, V).sigmoid(), "erase": normal(B, T, H, K).sigmoid()}


def results(given: dict[str, Any], operator: Any, gradients: bool) -> list[torch.Tensor]:
    """Outputs, final states and, of chunks, the gradients of all inputs."""
    given = {name: x.clone().requires_grad_(gradients) if torch.is_tensor(x) else x for name, x in given.items()}
    o, state = operator(**given)
    if not gradients:
        return [o, state]
    generator = torch.Generator().manual_seed(1)
    (o * torch.randn(o.shape, generator=generator)).sum().backward()
    return [o.detach(), state.detach(), *(x.grad for x in given.values() if torch.is_tensor(x))]


def differences(write: str, family: str, read: str, form: str) -> list[float]:
    """Relative differences of outputs and final states, and the largest one of the gradients if there are any."""
    given = inputs(write, family, read)
    ours = gated_linear_attention if write == "plain" else gated_delta_rule
    found = results(given, lambda **x: fla.run(prepare(**x, form=form)), form == "chunked")
    expected = results(given, ours, form == "chunked")
    o, state, *rest = (float((x - y).abs().max() / y.abs().max()) for x, y in zip(found, expected, strict=True))
    return [o, state, max(rest)] if rest else [o, state]


def main() -> None:
    try:
        driver = _optional.require("triton.runtime.driver", needed_for="this comparison", install="pip install triton")
        _optional.require("fla.ops", needed_for="this comparison", install="pip install fla-core==0.6.0")
    except ImportError as error:
        sys.exit(str(error))
    driver.driver.set_active(Interpreter())  # after the import of fla, which would ask it for a GPU's name
    for module in ("fla.ops.common.chunk_h", "fla.ops.common.chunk_delta_h", "fla.ops.rwkv6.chunk"):
        sys.modules[module].range = scalars  # type: ignore[attr-defined]
    worst = 0.0
    print(f"{'function':34}{'gates':18}{'read':8}{'outputs':>10}{'states':>10}{'gradients':>10}")
    for (write, family, read), kernels in fla.TABLE.items():
        for form, name in (("chunked", kernels.chunked), ("recurrent", kernels.recurrent)):
            if name is None:
                continue
            found = differences(write, family, read, form)
            worst = max(worst, *found)
            print(f"{name:34}{family:18}{read:8}" + "".join(f"{x:10.1e}" for x in found), flush=True)
    print(f"largest difference {worst:.1e}, at most {LARGEST:.0e} allowed")
    sys.exit(int(not worst <= LARGEST))


if __name__ == "__main__":
    main()
