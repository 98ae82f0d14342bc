"""Two small models that learn, on this machine, to remember who has what: nothing is downloaded."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gladient import __version__
from gladient._files import user_cache
from gladient.experiments.demo.story import VOCABULARY, asked, encode, split_words, story, with_spaces
from gladient.experiments.models.words import WordModel
from gladient.lens.load import Loaded, quiet_transformers, require_transformers
from gladient.nn import presets
from gladient.training import CheckpointError, TrainingConfig, load_tensors, save_tensors, train

__all__ = ["DEMO", "DemoConfig", "DemoModel", "cache_folder", "demo_models", "load_demo"]


@dataclass(frozen=True)
class DemoConfig:
    """One model and its training.

    Args:
        kind: mamba2 or gla.
        training: steps, step size, texts per step.
        length: words per text.
        width: channels of the model.
        layers: how many the model has.
        heads: heads per layer.
        answer_weight: how many times more an answer counts in the loss than any other word, plus one.
        seed: seed of the start and of the texts.
    """

    kind: str
    training: TrainingConfig
    length: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4
    answer_weight: float = 4.0
    seed: int = 0


DEMO = tuple(
    DemoConfig(kind, TrainingConfig(steps=steps, batch_size=16, learning_rate=1e-2))
    for kind, steps in (("gla", 1000), ("mamba2", 1100))
)
"""The two models of `gladient lens demo`."""


@dataclass(frozen=True)
class DemoModel:
    """A trained model.

    Attributes:
        name: the model's name.
        module: takes `input_ids` [B, T].
        recall: share of questions about fresh texts that it answers right.
        questions: how many were asked.
    """

    name: str
    module: nn.Module
    recall: float
    questions: int


def cache_folder() -> Path:
    """Where trained demo models are kept: ~/.cache/gladient/lens-demo on Linux."""
    return user_cache() / "lens-demo"


def demo_models(
    configs: tuple[DemoConfig, ...] = DEMO,
    *,
    folder: Path | None = None,
    on_step: Callable[[str, int, int], None] = lambda name, done, steps: None,
) -> list[DemoModel]:
    """The demo's models, from the cache or trained now.

    A model is kept when it is trained; one that was interrupted starts again from the beginning. Two processes do not
    train at once: the second waits and finds the first one's models.

    Args:
        configs: the models.
        folder: the cache; `cache_folder()` if not given.
        on_step: called with a model's name, the steps done and all its steps.

    Raises:
        ImportError: if transformers is absent.
        OSError: if the folder cannot be written; said before anything is trained.
    """
    if any(config.kind == "mamba2" for config in configs):
        require_transformers()
    folder = cache_folder() if folder is None else folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire()
    except OSError as error:
        raise OSError(
            f"trained models are kept in {folder}, which cannot be written ({error.strerror}); set XDG_CACHE_HOME to a "
            "folder that can"
        ) from None
    with lock, _one_thread(), quiet_transformers():
        return [_trained(config, folder / f"{config.kind}.safetensors", on_step) for config in configs]


def _trained(config: DemoConfig, path: Path, on_step: Callable[[str, int, int], None]) -> DemoModel:
    run = asdict(config) | {"words": list(VOCABULARY), "torch": version("torch"), "gladient": __version__}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _build(config)
    try:
        tensors, state = load_tensors(path, run=run)
    except (FileNotFoundError, CheckpointError):  # absent, damaged, or of another version: made again
        _train(model, config, lambda done: on_step(config.kind, done, config.training.steps))
        recall, questions = _recall(model)
        state = {"recall": recall, "questions": questions}
        save_tensors(path, _unshared(model), run=run, **state)
    else:
        model.load_state_dict(tensors, strict=False)
    return DemoModel(config.kind, model.eval(), **state)


def _unshared(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once where two names share one."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _build(config: DemoConfig) -> nn.Module:
    if config.kind == "gla":
        return _gla(config)
    transformers = require_transformers()
    options = transformers.Mamba2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_heads=config.heads,
        head_dim=2 * config.width // config.heads,
        state_size=32,
        n_groups=1,
        chunk_size=16,
        tie_word_embeddings=True,
        use_cache=False,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    )
    model: nn.Module = transformers.Mamba2ForCausalLM(options)
    return model


def _gla(config: DemoConfig) -> WordModel:
    """Its gates start spread over the channels, from 0.22 to 0.9998, as those of Mamba-2 do."""
    layer = presets.gla(config.width, heads=config.heads)
    model = WordModel(len(VOCABULARY), config.width, [layer] * config.layers)
    with torch.no_grad():
        for parameter in model.stack.gate_parameters():
            if parameter.ndim == 2:  # biases
                parameter.copy_(torch.linspace(-24, 6, parameter.shape[1]).expand_as(parameter))
    return model


def _train(model: nn.Module, config: DemoConfig, on_step: Callable[[int], None]) -> None:
    fresh = torch.Generator().manual_seed(config.seed)

    def loss(model: nn.Module) -> Float[Tensor, " 1"]:
        tokens = _texts(config.training.batch_size, config.length, random.Random(_number(fresh)))
        words, targets = tokens[:, :-1], tokens[:, 1:]
        losses = functional.cross_entropy(_logits(model, words).mT, targets, reduction="none")
        weights = 1 + config.answer_weight * asked(words)
        return ((losses * weights).sum() / weights.sum())[None]

    train(model.train(), loss, config.training, generators=[fresh], on_step=on_step)


def _number(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))


@torch.no_grad()
def _recall(model: nn.Module, *, texts: int = 64, length: int = 96) -> tuple[float, int]:
    tokens = _texts(texts, length, random.Random(2**31))
    questions = asked(tokens[:, :-1])
    right = _logits(model.eval(), tokens[:, :-1]).argmax(2) == tokens[:, 1:]
    return right[questions].double().mean().item(), int(questions.sum())


def _texts(count: int, length: int, generator: random.Random) -> Int[Tensor, "B T"]:
    return encode([story(length, generator) for _ in range(count)])


def _logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found = model(input_ids=tokens)
    return found if isinstance(found, Tensor) else found.logits


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small matrices: threads cost more than they bring, and change sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load_demo(
    configs: tuple[DemoConfig, ...] = DEMO,
    *,
    on_step: Callable[[str, int, int], None] = lambda name, done, steps: None,
) -> list[Loaded]:
    """The demo's models with a text that they have not seen; see `demo_models`."""

    def read(text: str) -> tuple[Tensor, list[str]]:
        words = split_words(text)
        return encode([words]), with_spaces(words)

    text = "".join(with_spaces(story(160, random.Random(7))))
    return [
        Loaded(
            model.name,
            model.module,
            read,
            f"answers {model.recall:.1%} of {model.questions} questions about texts that it has not seen",
            text,
            asked,
            words=lambda tokens: [VOCABULARY[token] for token in tokens],
        )
        for model in demo_models(configs, on_step=on_step)
    ]
