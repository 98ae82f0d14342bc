"""The controls of the page: a field and a slider for each number, which show the same setting."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any

import marimo as mo

from gladient.answers import parts
from gladient.explore import pictures
from gladient.explore.fields import MOST_TASKS, Fields
from gladient.explore.training import Training
from gladient.prompts import MultitaskSetting

__all__ = ["Desk", "begin", "error", "fields", "read", "sliders", "trained"]

_PAUSE = 0.3  # seconds between two pictures of a training, which waits while one is drawn

_LABELS = {
    "n": "n, examples of each task",
    "r": "r, correlation of each task with the query's",
    "rho": "ρ, correlation between tasks",
    "d": "d, number of features",
    "decay": "α, feature j has variance j^(-α)",
    "spectrum": "spectrum of Σ, in place of d and α",
    "sigma2": "σ², variance of the label noise",
}
# Sliders take round numbers, the same distance apart on a logarithmic scale where a range spans orders of magnitude.
_COUNTS = [count * 10**power for power in range(4) for count in (1, 1.5, 2, 2.5, 3, 4, 5, 7)]
_STEPS: dict[str, list[float]] = {
    "n": [count for count in _COUNTS if count == int(count)] + [10_000],
    "r": [step / 50 for step in range(-50, 51)],
    "rho": [step / 50 for step in range(-50, 51)],
    "d": [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100],
    "decay": [step / 10 for step in range(31)],
    "sigma2": [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10],
}


@dataclass
class Desk:
    """What the controls show at the moment, and who is told when it changes.

    Args:
        shown: the fields.
        on_change: told of every change.
        on_type: told of changes in a field, which the sliders follow.
        on_move: told of changes of a slider, which the fields follow.
    """

    shown: Fields
    on_change: Callable[[Fields], Any]
    on_type: Callable[[Fields], Any]
    on_move: Callable[[Fields], Any]

    def type(self, name: str, text: str) -> None:
        """A field was changed."""
        self._change(self.on_type, **{name: text})

    def move(self, name: str, place: int, value: float) -> None:
        """A slider was moved: the number at that place of its field."""
        texts = parts(getattr(self.shown, name)) or ["0"]
        texts[place] = f"{value:g}"
        self._change(self.on_move, **{name: " ".join(texts)})

    def resize(self, count: int | float | None) -> None:
        """Another number of tasks: the last ones go, or new ones come that are as long and unlike the query's."""
        tasks = int(count or 1)
        n, r = (parts(getattr(self.shown, name)) for name in ("n", "r"))
        self._change(
            self.on_type,
            self.on_move,
            n=" ".join((n + n[-1:] * tasks)[:tasks] or ["25"] * tasks),
            r=" ".join((r + ["0"] * tasks)[:tasks]),
            rho=self.shown.rho if len(parts(self.shown.rho)) < 2 else "0",
        )

    def _change(self, *told: Callable[[Fields], Any], **texts: str) -> None:
        self.shown = replace(self.shown, **texts)
        for tell in (self.on_change, *told):
            tell(self.shown)


def fields(shown: Fields, desk: Desk) -> list[mo.Html]:
    """A field for each number; marimo listens to them for as long as somebody holds them."""
    texts = [
        mo.ui.text(getattr(shown, name), label=label, on_change=partial(desk.type, name), full_width=True)
        for name, label in _LABELS.items()
    ]
    tasks = len(parts(shown.n))
    count = mo.ui.number(1, MOST_TASKS, value=min(max(tasks, 1), MOST_TASKS), label="tasks", on_change=desk.resize)
    return [count, *texts]


def sliders(shown: Fields, desk: Desk) -> list[mo.Html]:
    """A slider for each number, to be held as the fields; none while the fields are no setting."""
    setting, _ = read(shown)
    if setting is None:
        return []
    found = [_slider(shown, desk, name, k, f"{name}{k + 1}") for name in ("n", "r") for k in range(setting.K)]
    if len(parts(shown.rho)) < 2 and setting.K > 1:
        found.append(_slider(shown, desk, "rho", 0, "ρ"))
    if not shown.spectrum.strip():
        found += [_slider(shown, desk, "d", 0, "d"), _slider(shown, desk, "decay", 0, "α")]
    return [*found, _slider(shown, desk, "sigma2", 0, "σ²")]


def read(shown: Fields) -> tuple[MultitaskSetting | None, str]:
    """The setting, or None and one sentence about what is wrong."""
    try:
        return shown.setting(), ""
    except ValueError as problem:
        return None, str(problem)


def error(problem: str) -> mo.Html:
    """The sentence, where the numbers would be."""
    return mo.callout(mo.md(problem), kind="danger")


def _slider(shown: Fields, desk: Desk, name: str, place: int, label: str) -> mo.Html:
    texts, steps = parts(getattr(shown, name)) or ["0"], _STEPS[name]
    nearest = min(steps, key=lambda step: abs(step - float(texts[place])))
    return mo.ui.slider(
        steps=steps,
        value=nearest,
        label=label,
        show_value=True,
        full_width=True,
        on_change=partial(desk.move, name, place),
    )


def begin(
    setting: MultitaskSetting, model: str, steps: int, exact: Mapping[str, float]
) -> tuple[list[Training], mo.Html]:
    """Starts a training that draws into the output of the cell which called this, until that cell runs again."""
    try:
        training = Training(setting, model, steps)
    except ValueError as problem:
        return [], error(str(problem))
    mo.Thread(target=_train, args=(training, exact), daemon=True).start()
    return [training], mo.md("PyTorch is being loaded …")


def _train(training: Training, exact: Mapping[str, float]) -> None:
    thread, drawn = mo.current_thread(), 0.0

    def on_step() -> bool:
        nonlocal drawn
        if monotonic() - drawn > _PAUSE and not thread.should_exit:
            mo.output.replace(trained(training, exact))
            drawn = monotonic()
        return not thread.should_exit

    try:
        training.run(on_step)
        shown = trained(training, exact)
    except ValueError as problem:  # it diverged
        shown = error(str(problem))
    if not thread.should_exit:
        mo.output.replace(shown)


def trained(training: Training, exact: Mapping[str, float]) -> mo.Html:
    """The picture of a training and where it stands, in a sentence."""
    done, risk = len(training.losses), exact[training.model]
    if training.tested:
        found, deviation = training.tested
        said = f"On fresh prompts the trained model has risk {found:.4f} ± {deviation:.4f}; exact: {risk:.4f}."
    else:
        said = f"Step {done} of {training.steps}; exact risk of this gate family: {risk:.4f}."
    picture = pictures.svg(pictures.draw_training(training.losses, training.steps, exact), "Risk at each step")
    return mo.vstack([mo.md(said), mo.Html(picture)])
