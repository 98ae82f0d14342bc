"""The delta rule whose query takes the step of the examples, as in the paper's tokens: it writes before it reads."""

import numpy as np

from gladient._types import Array, ArrayLike, Float
from gladient.landscape.delta.decays import best_decays
from gladient.landscape.delta.isotropic import Isotropic
from gladient.landscape.delta.risk import delta_risk
from gladient.landscape.delta.rungs import DeltaRung, scanned
from gladient.landscape.gates.reduced import reduce
from gladient.prompts import MultitaskSetting

__all__ = ["query_share", "shared_step", "shared_step_risk"]

_RULE = "the query's own write has an exact risk for Σ ∝ I alone: whiten x, or mask the query and use delta_rule"


def query_share(step: ArrayLike, d: int) -> Float[Array, "..."]:
    r"""What the query's own write leaves of the risk that is gained, for keys k = x ~ N(0, I).

    The query has the value 0, so it changes the state to $b - \beta x\,(x^\top b)$ and then reads
    $g\,(1 - \beta |x|^2)\, x^\top b$. With the best g the gain M - L shrinks by

    $$\kappa = \frac{(E[(1 - \beta|x|^2)|x|^2])^2}{d\,E[(1 - \beta|x|^2)^2 |x|^2]}
      = \frac{(1 - \beta(d+2))^2}{1 - 2\beta(d+2) + \beta^2 (d+2)(d+4)}.$$

    At $\beta = 1/(d+2)$, the best step for one task without noise, κ = 0: the query erases its own answer.

    Args:
        step: β of the query, of any shape.
        d: number of features.

    Source: derived.

    >>> query_share([0.0, 0.05, 1 / 12], d=10).round(4)
    array([1.    , 0.7273, 0.    ])
    """
    x = np.asarray(step, dtype=np.float64) * (d + 2.0)
    # κ over (1 - x)²: 1 - 2x + x²(d+4)/(d+2) = (1 - x)² + 2x²/(d+2), a sum of squares
    return np.asarray((1.0 - x) ** 2 / ((1.0 - x) ** 2 + 2.0 * x**2 / (d + 2.0)))


def shared_step_risk(setting: MultitaskSetting, step: float, *, decays: ArrayLike | None = None) -> float:
    r"""Risk of the delta rule with one step for every token, the query's too: $M - \kappa\,(M - L)$.

    L is `delta_risk`, where the query is masked, and κ is `query_share`. The query's own decay scales the state and is
    absorbed by the read-out. Keys of length 1 need no such formula: the query's write then scales the prediction by
    1 - β, and `delta_risk` holds as it is.

    Args:
        setting: the data, Σ ∝ I; keys are k = x.
        step: β.
        decays: δ, what each task's delimiter leaves of the state, [K]; 1 if not given.

    Raises:
        ValueError: if Σ is not a multiple of I, or `delta_risk` refuses the step or the decays.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10)
    >>> print(f"{shared_step_risk(setting, 0.05):.6f}")
    5.401118
    """
    model = Isotropic.of(reduce(setting), "gaussian", _RULE)
    masked = delta_risk(setting, step, decays=decays)
    share = query_share(step / model.step_unit, setting.d)
    return float(setting.M - share * (setting.M - masked))


def shared_step(setting: MultitaskSetting, *, gated: bool = False) -> DeltaRung:
    """Best constant step where the query takes it too; with the best delimiter decays if `gated`.

    The tokens of arXiv 2504.04308 give the query the examples' feature and so their step. The step is scanned as in
    `delta_rule`, and the decays are exact for each step: the query's share does not depend on them.
    `shared_step_risk(setting, steps[0], decays=decays)` gives the risk back.

    Args:
        setting: the data, Σ ∝ I; keys are k = x.
        gated: whether delimiters decay the state.

    Raises:
        ValueError: if Σ is not a multiple of I.

    Source: derived.

    >>> setting = MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10)
    >>> best = shared_step(setting, gated=True)
    >>> print(f"{best.risk:.6f} {best.steps[0]:.5f} {best.decays[0]:.4f}")
    3.903959 0.02089 0.5597
    """
    model = Isotropic.of(reduce(setting), "gaussian", _RULE)

    def score(steps: Array) -> tuple[Array, Array]:
        ones = np.ones_like(steps)
        masked, decays = best_decays(model, steps) if gated else (model.risks(steps, ones), ones)
        return setting.M - query_share(steps[:, 0], setting.d) * (setting.M - masked), decays

    return scanned(model, score)
