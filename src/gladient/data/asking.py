"""Would gating help on these prompts? An answer whatever they are: where there is no prediction, a verdict says why."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from gladient.data.crossfitting import CrossFit, estimates
from gladient.data.folds import Split, split
from gladient.data.prompt import Prompt
from gladient.data.refusal import RefusedError
from gladient.data.verdict import Verdicts, judge, judge_refusal

__all__ = ["Answer", "ask"]


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to "would gating help on these data?".

    Attributes:
        verdicts: in words.
        found: what was predicted and measured; None if the prompts tell no setting.
        split: the prompts in folds, for `baselines`; None if they are too few for folds.
    """

    verdicts: Verdicts
    found: CrossFit | None
    split: Split | None


def ask(
    prompts: Sequence[Prompt],
    *,
    clusters: Sequence[Hashable] | None = None,
    n: Sequence[int] | None = None,
    folds: int | None = None,
    gap: int = 0,
    intercept: bool = False,
    names: Sequence[str] = (),
    done: Callable[[], None] = lambda: None,
) -> Answer:
    """Predict, measure and judge; where the prompts tell no setting, say what that means.

    Args:
        prompts: as for `cross_fit`, like the next six.
        clusters: the cluster of each prompt.
        n: examples of each source in a prompt.
        folds: blocks of clusters, each held out once.
        gap: clusters beside a held-out block that are left out too.
        intercept: whether each task has a level of its own.
        names: what each prompt is called.
        done: called after each estimate, of all prompts and for each fold.

    Raises:
        ValueError: if the input is wrong: prompts of different roles or features, a constant feature, one prompt.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> noise = lambda: (rng.normal(size=(4, 2)), rng.normal(size=4))
    >>> answer = ask([Prompt([noise()], noise()) for _ in range(30)])
    >>> answer.found, answer.verdicts.kind
    (None, 'cannot be told')
    """
    of = None
    try:
        of = split(prompts, clusters=clusters, n=n, folds=folds, gap=gap, intercept=intercept, names=names)
        found = estimates(of, done).compare()
    except RefusedError as refused:
        return Answer(judge_refusal(refused, len(prompts)), None, of)
    return Answer(judge(found), found, of)
