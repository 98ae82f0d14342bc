"""The work of `gladient worth`: decays fitted to a model, and readings of texts, each a unit of its own."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from rich.console import Console
from torch import Tensor, nn

from gladient import __version__
from gladient._files import sha256, write_atomically
from gladient._tensors import load_tensors, pack_tensors, read_run
from gladient.experiments.demo.models import load_demo
from gladient.experiments.demo.story import encode, story
from gladient.experiments.engine.make import check_device
from gladient.experiments.engine.output import OutputFolder, open_output
from gladient.experiments.engine.runner import run_work
from gladient.experiments.figures.worth.text import corpus, split_words
from gladient.experiments.figures.worth.trained import Variant, WordSizes
from gladient.experiments.work import OnStep, Outcome
from gladient.lens.gate_passes import Kind, Pass, check_texts, fit_decays, kinds_of, passes_of, read_losses
from gladient.lens.gate_worth import Worth, worth_of
from gladient.lens.load import Loaded, load_pretrained, quiet_transformers

__all__ = ["FittedDecays", "Judged", "Source", "TextPass", "demo_texts", "judge", "load_models", "split_texts"]

_BATCH = 16  # texts that are read together


def load_models(
    name: str, *, on_step: Callable[[str, int, int], None] = lambda name, done, steps: None
) -> list[Loaded]:
    """A model of transformers, of the study (a .safetensors file of its weights), or both of the demo.

    Raises:
        ImportError: if a package that they need is absent.
        ValueError: if there is no such model, it cannot be read, or it was trained without its gates.
    """
    if name == "demo":
        return load_demo(on_step=on_step)
    return [_load_study(Path(name)) if name.endswith(".safetensors") else load_pretrained(name)]


def _load_study(path: Path) -> Loaded:
    if not path.is_file():
        raise ValueError(f"{path} is not a file; name one of the weights of `gladient reproduce --figure worth`")
    run = read_run(path)
    if not {"kind", "variant", "sizes", "seed"} <= run.keys():
        raise ValueError(f"{path} holds no model of words; name one of `gladient reproduce --figure worth`")
    if run["variant"] != "gates":
        raise ValueError(f"{path} was trained with its gates taken away ({run['variant']}); name one with gates")
    sizes = WordSizes(**run["sizes"])
    model = Variant(run["kind"], run["variant"], sizes, seed=run["seed"])
    model.load_state_dict(load_tensors(path, run=run)[0])

    def read(text: str) -> tuple[Tensor, list[str]]:
        words = split_words(text)
        return corpus(sizes.words).encode(words)[None], words

    return Loaded(path.stem, model.model.eval(), read)


def split_texts(tokens: Int[Tensor, "1 N"], length: int, count: int, name: str) -> list[Tensor]:
    """Texts of a length, one after another; at most `count`, evenly spread.

    Args:
        tokens: of a whole file.
        length: tokens in a text, at least 2.
        count: the largest number of texts.
        name: the file's name.

    Raises:
        ValueError: if not two texts come out of it.

    >>> [text.tolist() for text in split_texts(torch.arange(9)[None], 3, 2, "a file")]
    [[0, 1, 2], [6, 7, 8]]
    """
    texts = tokens[0, : tokens.shape[1] // length * length].view(-1, length)
    if len(texts) < 2:
        raise ValueError(
            f"{name} has {tokens.shape[1]:,} tokens, which make {len(texts)} texts of {length}; give a longer file, or "
            "a smaller --length: two are the least"
        )
    return list(texts[torch.linspace(0, len(texts) - 1, min(count, len(texts))).long()])


def demo_texts(length: int, count: int, seed: int) -> list[Tensor]:
    """Stories of the demo, of a length.

    >>> demo_texts(4, 2, 0)[0].tolist() == encode([story(4, random.Random("0 0"))])[0].tolist()
    True
    """
    return list(encode([story(length, random.Random(f"{seed} {place}")) for place in range(count)]))


_TEXTS, _DECAYS = {"what": "texts"}, {"what": "decays"}  # what the files say that they hold


@dataclass(frozen=True)
class Source:
    """A model and its texts, as a worker finds them.

    Args:
        model: its name, as `load_models` takes it.
        part: which of its models.
        inputs: the file of texts.
        texts: SHA-256 of that file.
        device: where the model runs.
    """

    model: str
    part: str
    inputs: str
    texts: str
    device: str

    def load(self, name: str) -> tuple[nn.Module, list[Tensor]]:
        """The model, and its texts of a name."""
        path = _seen(self.inputs)
        if sha256(path.read_bytes()) != self.texts:
            raise ValueError(f"{path} was changed since the work began; delete its folder, and begin again")
        tensors, _ = load_tensors(path, run=_TEXTS)
        return _module(self.model, self.part, self.device), list(tensors[name].to(self.device))


@dataclass(frozen=True)
class FittedDecays:
    """The fit of fixed decays to a model.

    Args:
        source: the model and its texts.
        fit_steps: steps of the fit.
        seed: the random seed that picks its texts.
    """

    source: Source
    fit_steps: int
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.source.part}-decays"

    @property
    def steps(self) -> int:
        """Those of the fit."""
        return max(1, self.fit_steps)

    @property
    def cost(self) -> float:
        """Texts that are read, backward passes counting twice."""
        return 3.0 * self.steps * _BATCH

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The decays, as tensors named by their layers."""
        model, texts = self.source.load("calibrate")
        with quiet_transformers():
            decays = fit_decays(model, texts, steps=self.fit_steps, seed=self.seed, batch=_BATCH, on_step=on_step)
        named = {str(layer): each for layer, each in decays.items()}
        return Outcome([{"layers": sorted(decays)}], {self.name: pack_tensors(named, run=_DECAYS)})


@dataclass(frozen=True)
class TextPass:
    """One reading of all texts.

    Args:
        source: the model and its texts.
        decays: the file of fitted decays.
        one: what is changed.
        kinds: number of heads, and whether it erases, of each layer.
        count: texts.
    """

    source: Source
    decays: str
    one: Pass
    kinds: tuple[tuple[int, Kind], ...]
    count: int

    @property
    def name(self) -> str:
        """What its files are called."""
        where = "" if self.one.layer is None else f"-layer{self.one.layer}-head{self.one.head}"
        return f"{self.source.part}{where}-{self.one.change}"

    @property
    def steps(self) -> int:
        """One."""
        return 1

    @property
    def cost(self) -> float:
        """Texts that are read."""
        return float(self.count)

    def run(self, scratch: Path, on_step: OnStep = lambda step: None) -> Outcome:
        """The loss of each text."""
        model, texts = self.source.load("texts")
        decays = {layer: each.to(self.source.device) for layer, each in _decays(_seen(self.decays)).items()}
        with quiet_transformers():
            losses = read_losses(model, texts, self.one, dict(self.kinds), decays, _BATCH)
        on_step(1)
        return Outcome([{"losses": losses.tolist()}])


@cache
def _module(name: str, part: str, device: str) -> nn.Module:
    """The model on this worker, loaded once."""
    found = next(loaded for loaded in load_models(name) if loaded.name == part)
    return _plain(found).to(device)


class _WithOptions(nn.Module):
    """A model that is given the same options at every call."""

    def __init__(self, model: nn.Module, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, input_ids: Tensor) -> Any:
        return self.model(input_ids=input_ids, **self.options)


def _plain(loaded: Loaded) -> nn.Module:
    return _WithOptions(loaded.module, loaded.options).eval() if loaded.options else loaded.module


def _decays(path: Path) -> dict[int, Tensor]:
    return {int(layer): each for layer, each in load_tensors(path, run=_DECAYS)[0].items()}


def _seen(path: str) -> Path:
    if not Path(path).is_file():
        raise ValueError(
            f"{path} is not there; the output folder must be one that all workers see, as on a shared disk"
        )
    return Path(path)


@dataclass(frozen=True)
class Judged:
    """What is asked of a model.

    Args:
        model: its name, as `load_models` takes it.
        texts, calibrate: tokens of the texts that are judged, and of those that decays are fitted on, alike in length.
        layers, heads: which to judge; None for all.
        fit_steps: steps of the fit.
        seed: the random seed that picks its texts.
        device: where.
    """

    model: str
    texts: Sequence[Tensor]
    calibrate: Sequence[Tensor]
    layers: Sequence[int] | None = None
    heads: Sequence[int] | None = None
    fit_steps: int = 60
    seed: int = 0
    device: str = "cpu"


def judge(
    asked: Judged,
    loaded: Loaded,
    folder: Path,
    *,
    resume: bool,
    workers: int,
    scheduler: str | None,
    console: Console,
) -> Worth:
    """What the gates of a model are worth, as `lens.worth` tells it; every pass is kept in a folder as it is done.

    Args:
        asked: the texts, and what is asked.
        loaded: the model, as `load_models` has it.
        folder: where passes are kept.
        resume: go on with what it holds.
        workers: processes of this machine.
        scheduler: the address of a Dask scheduler, whose workers do the work instead.
        console: where progress is shown.

    Raises:
        ValueError: as `lens.worth`; or if the folder holds passes of another model or of other texts.
        OSError: if the folder cannot be written, or the scheduler cannot be reached.
    """
    check_device(asked.device)
    model, named = _plain(loaded), {"texts": asked.texts, "calibrate": asked.calibrate}
    with quiet_transformers():
        check_texts(model, asked.texts, asked.calibrate)
        kinds = kinds_of(model, asked.calibrate[0])
        every = passes_of(model, kinds, asked.layers, asked.heads)
    inputs = pack_tensors({name: torch.stack(list(each)) for name, each in named.items()}, run=_TEXTS)
    config = {
        "what": "worth",
        "model": loaded.name,
        "weights": _fingerprint(model),
        "texts": sha256(inputs),
        "fit_steps": asked.fit_steps,
        "seed": asked.seed,
        "gladient": __version__,
        "torch": torch.__version__,
    }
    run = partial(run_work, workers=workers, scheduler=scheduler, console=console, doing="reading", each=False)
    with open_output(folder, config=config, resume=resume) as output:
        path = output.path / "weights" / "texts.safetensors"
        write_atomically(path, inputs)
        common = Source(asked.model, loaded.name, str(path), sha256(inputs), asked.device)
        fit = FittedDecays(common, asked.fit_steps, asked.seed)
        run([fit], output)
        output.load(fit)  # checks its file
        decays = path.with_name(f"{fit.name}.safetensors")
        layers = tuple(kinds.items())
        works = {one: TextPass(common, str(decays), one, layers, len(asked.texts)) for one in every}
        run(list(works.values()), output)
        found = {one: _losses(output, work) for one, work in works.items()}
        return worth_of(found, _decays(decays))


def _losses(output: OutputFolder, work: TextPass) -> Tensor:
    return torch.tensor(output.load(work).measurements[0]["losses"], dtype=torch.float64)


def _fingerprint(model: nn.Module) -> str:
    """Of all parameters: a folder is not gone on with when they have changed."""
    each = {
        name: sha256(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in model.named_parameters()
    }
    return sha256(json.dumps(each, sort_keys=True).encode())
