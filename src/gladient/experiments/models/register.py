"""Models of the user's own: registered once by name, they stand where the built-in ones do."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gladient._files import sha256
from gladient.experiments.models.kinds import MODELS, TOKENS, ModelKind
from gladient.experiments.models.presets import build_layer
from gladient.experiments.models.rungs import RUNGS
from gladient.nn import LayerConfig
from gladient.pictures import add_family
from gladient.prompts import MultitaskSetting, PromptLayout

__all__ = ["Members", "describe", "learn", "lend", "register", "registered_in"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")  # it becomes part of files' names
_BEST = "value_gate"  # the rung of any weights at all: what nothing that takes one step can beat


class Members(nn.Module):
    """Modules of one kind side by side, one for each seed and panel; none influences another.

    Args:
        name: the model's, for errors.
        members: modules from tokens [B, T, D] to predictions [B].

    Raises:
        ValueError: from the call, if predictions have another shape.

    >>> class Last(nn.Module):
    ...     def forward(self, tokens):
    ...         return tokens[:, -1, 0]
    >>> tuple(Members("last", [Last(), Last()])(torch.zeros(1, 3, 6, 8)).shape)
    (2, 3)
    """

    def __init__(self, name: str, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.name, self.members = name, nn.ModuleList(members)

    def forward(self, tokens: Float[Tensor, "G B T D"]) -> Float[Tensor, "E B"]:
        """Predictions of every member for the prompts of its group."""
        each = len(self.members) // len(tokens)
        return torch.stack([self._predict(one, tokens[i // each]) for i, one in enumerate(self.members)])

    def gate_parameters(self) -> list[nn.Parameter]:
        """What members that have `gate_parameters()` say; they take the gates' step size."""
        return [weight for one in self.members for weight in getattr(one, "gate_parameters", list)()]

    def _predict(self, member: nn.Module, tokens: Tensor) -> Tensor:
        found = member(tokens)
        if not isinstance(found, Tensor) or found.shape != tokens.shape[:1]:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"the model {self.name!r} turned tokens {list(tokens.shape)} into {shape}; it must predict one number "
                f"for each prompt, [{len(tokens)}]: read the last token and drop the last axis"
            )
        return found


def register(
    name: str,
    build: LayerConfig | Callable[[PromptLayout], LayerConfig | nn.Module],
    *,
    rung: str | Callable[[MultitaskSetting], float] | None = None,
    tokens: str = "paper",
    gate_rate: float | None = None,
    cost: float = 1.0,
    replace: bool = False,
) -> None:
    """Add a model to `MODELS`: `train`, `sweep` and figures that name models take it from then on.

    Workers get it with their work: what a module defines they import by its name, so they need that module too; what
    `__main__` or a notebook defines is sent to them whole. `config.json` keeps where `build` stands and a checksum of
    its file: `--resume` refuses a folder whose model was another.

    Args:
        name: letters, digits, _ and -, a letter first.
        build: a `LayerConfig`, or a function of the prompts' layout (a class will do) that returns one, or a torch
            module from tokens [B, T, D] to predictions [B]. It is called once for each seed, with torch's generator at
            that seed. A config's layer gets the prompts' sizes and starts as the presets do: with a read-out, without
            norm and output gate. What training changes in a module must be parameters: checkpoints hold no buffers.
        rung: what it should reach: a name in `RUNGS`, or a function that gives the risk of a setting, in the units of
            `gladient risk`. None: the best risk of any weights stands beside it, and it is not judged.
        tokens: what tokens tell it: paper, without_context, task (a feature for each task's examples) or stream (no
            delimiters).
        gate_rate: step size of the gates; that of the training if not given. A module's gates are what its method
            `gate_parameters()` returns.
        cost: time per token, beside that of linear attention; longest work is begun first.
        replace: whether it takes the place of a model that was registered by this name before.

    Raises:
        ValueError: if the name is malformed or taken, the rung or the tokens are unknown, a number is not positive, or
            `build` cannot be sent to a worker.
        TypeError: if `build` or `rung` is of another kind.

    >>> register("wide_keys", LayerConfig(gate="key", link="exp"), rung="value_gate")
    >>> "wide_keys" in MODELS
    True
    >>> register("scalar_gate", LayerConfig())
    Traceback (most recent call last):
    ValueError: name is 'scalar_gate', which gladient has already; choose another
    """
    _check_name(name)
    _check_build(name, build)
    _check_rung(name, rung)
    _check_options(tokens, gate_rate, cost)
    kind = ModelKind(
        rung=name if callable(rung) else rung or _BEST,
        build=partial(_build, name, build),
        tokens=tokens,
        gate_rate=gate_rate,
        cost=cost,
        known=rung is not None,
        origin=_origin(build),
    )
    _check_taken(name, kind, replace=replace)
    lend({name: kind})  # what cannot be sent to a worker is told now
    MODELS[name] = kind
    add_family(name)
    if callable(rung):
        RUNGS[name] = rung


def registered_in(content: Iterable[Any]) -> dict[str, ModelKind]:
    """The registered models that dataclasses of JSON values name, anywhere among their values."""
    own = {name: kind for name, kind in MODELS.items() if kind.origin is not None}
    named = {text for one in content for text in _texts(asdict(one))} if own else set()
    return {name: kind for name, kind in own.items() if name in named}


def describe(kinds: Mapping[str, ModelKind]) -> dict[str, Any]:
    """What decides the results of registered models, as JSON values."""
    return {
        name: {**(kind.origin or {}), "tokens": kind.tokens, "gate_rate": kind.gate_rate}
        for name, kind in kinds.items()
    }


def lend(kinds: Mapping[str, ModelKind]) -> bytes:
    """Models as they travel to workers, which alone read them: a scheduler need not have the modules.

    Raises:
        ValueError: if one cannot be sent.
    """
    try:
        return bytes(cloudpickle.dumps(dict(kinds)))
    except Exception as error:  # whatever the user's object raises when it is pickled
        raise ValueError(
            f"build of {', '.join(kinds)} cannot be sent to a worker ({error}); give a function or class of a module"
        ) from None


def learn(lent: bytes) -> None:
    """Make a client's models known to this worker.

    Raises:
        ValueError: if a module that defines one is absent here, or another.
    """
    try:
        kinds: dict[str, ModelKind] = cloudpickle.loads(lent)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"a worker cannot import a registered model ({error}); install its module there") from None
    for name, kind in kinds.items():
        build = kind.build.args[1]  # type: ignore[attr-defined]
        if _module(build) != "__main__" and _origin(build) != kind.origin:
            raise ValueError(
                f"a worker has another {_module(build)}, where the model {name!r} is built, than the client; "
                "install the same version there and restart the workers"
            )
    MODELS.update(kinds)


def _build(name: str, build: Any, layout: PromptLayout, seeds: Sequence[int], key_channels: int) -> nn.Module:
    first = _seeded(name, build, layout, seeds[0])
    if isinstance(first, LayerConfig):
        return build_layer(first, layout, seeds, key_channels=key_channels)
    return Members(name, [first, *(_seeded(name, build, layout, seed) for seed in seeds[1:])])


def _seeded(name: str, build: Any, layout: PromptLayout, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = build if isinstance(build, LayerConfig) else build(layout)
    if not isinstance(made, LayerConfig | nn.Module):
        raise ValueError(
            f"build of {name!r} returned a {type(made).__name__}; it must return a torch module or a LayerConfig"
        )
    return made


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}; it must be a letter, then letters, digits, _ or -, at most 64 in all")


def _check_build(name: str, build: Any) -> None:
    if isinstance(build, nn.Module) or not (isinstance(build, LayerConfig) or callable(build)):
        raise TypeError(
            f"build of {name!r} is a {type(build).__name__}; it must be a LayerConfig, or a function or class that "
            "makes a module from a layout: every seed gets its own"
        )


def _check_rung(name: str, rung: Any) -> None:
    if rung is not None and not isinstance(rung, str) and not callable(rung):
        raise TypeError(f"rung of {name!r} is {rung!r}; it must be a name, or a function that gives a setting's risk")
    if isinstance(rung, str) and rung not in RUNGS:
        raise ValueError(f"rung of {name!r} is {rung!r}; choose among {', '.join(RUNGS)}, or give a function")


def _check_options(tokens: str, gate_rate: float | None, cost: float) -> None:
    if tokens not in TOKENS:
        raise ValueError(f"tokens is {tokens!r}; choose among {', '.join(TOKENS)}")
    for name, value in (("gate_rate", 1.0 if gate_rate is None else gate_rate), ("cost", cost)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value!r}; it must be a positive number")


def _check_taken(name: str, kind: ModelKind, *, replace: bool) -> None:
    """A module that is imported again, or a worker that was lent the model before, registers the same once more."""
    there = MODELS.get(name)
    if there is None and name not in RUNGS:
        return
    if there is None or there.origin is None:
        raise ValueError(f"name is {name!r}, which gladient has already; choose another")
    if not replace and describe({name: there}) != describe({name: kind}):
        raise ValueError(f"name is {name!r}, which another model has; choose another name, or say replace=True")


def _origin(build: Any) -> dict[str, Any]:
    """Where a model comes from, as JSON values; two that differ are not the same model."""
    if isinstance(build, LayerConfig):
        return {"config": asdict(build)}
    inner = _inner(build)
    held = re.sub(r" at 0x[0-9a-f]+", "", repr(_held(build)))  # addresses differ from process to process
    return {"build": f"{_module(build)}:{inner.__qualname__}", "source": _digest(inner), "holds": held}


def _inner(build: Any) -> Any:
    """The function or class that a callable comes down to."""
    while isinstance(build, partial):
        build = build.func
    return build if inspect.isroutine(build) or inspect.isclass(build) else type(build)


def _held(build: Any) -> list[Any]:
    """The values that a callable carries along: arguments, defaults, a closure."""
    if isinstance(build, partial):
        return [build.args, build.keywords, *_held(build.func)]
    if inspect.isfunction(build):
        closure = [cell.cell_contents for cell in build.__closure__ or ()]
        return [one for one in (build.__defaults__, build.__kwdefaults__, *closure) if one is not None]
    return [] if inspect.isroutine(build) or inspect.isclass(build) else [build]


def _module(build: Any) -> str:
    return "__main__" if isinstance(build, LayerConfig) else str(_inner(build).__module__)


def _digest(inner: Any) -> str | None:
    """Of the whole file of a module, for what is built there stands there; of a script or notebook, its own lines."""
    file = getattr(sys.modules.get(inner.__module__), "__file__", None)
    if inner.__module__ != "__main__" and file is not None:
        return sha256(Path(file).read_bytes())
    try:
        return sha256(inspect.getsource(inner).encode())
    except (OSError, TypeError, IndexError):  # typed at a prompt
        return None


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
