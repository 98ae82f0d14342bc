"""Exact risk of the delta rule in context: any steps, delimiter decays and kinds of keys."""

import numpy as np

from gladient._types import Array, ArrayLike
from gladient.landscape.delta.model import Model, model_of
from gladient.landscape.gates.reduced import reduce
from gladient.prompts import MultitaskSetting

__all__ = ["delta_risk"]


def delta_risk(
    setting: MultitaskSetting, steps: ArrayLike, *, decays: ArrayLike | None = None, keys: str = "gaussian"
) -> float:
    r"""Risk of the delta rule after one pass over the prompt, with the best read-out.

    $$b \leftarrow b - \beta_k\, k\, (k^\top b) + \beta_k\, v\, k \quad \text{(token of task k)}, \qquad
      b \leftarrow \delta_k\, b \quad \text{(delimiter after task k)},$$

    the query is masked (it reads b and does not write), and the prediction is $g\, x^\top b$ with the best g for Σ ∝ I,
    else $x^\top P b$ with the best P. The cost does not depend on the number of examples.

    Convention: decay first, then the error against the decayed state, as in Gated DeltaNet. Steps of 0 for all tasks
    stand for the limit of one small step: gated linear attention with the weights that the decays give. A step of 0 for
    some tasks skips them.

    Args:
        setting: the data.
        steps: β, one number or one per task [K], from 0 to the bound of mean-square stability: 2/(d+2) for gaussian
            keys and Σ = I, in general $\sum_j \beta s_j / (1 - \beta s_j) = 2$ over the eigenvalues of Σ; 2 for unit
            and nlms keys.
        decays: δ, what each task's delimiter leaves of the state, [K], from 0 to 1; 1 if not given. The last one does
            not matter.
        keys: "gaussian": k = x, v = y; "unit": k = x/|x|, v = y; "nlms": k = x/|x|, v = y/|x|. The last two need Σ ∝ I.

    Raises:
        ValueError: if steps or decays have a wrong shape or are out of their range, or the keys do not go with Σ, or
            "nlms" with d ≤ 2, where the risk has no bound.

    Source: derived, for the rule of Yang, Kautz and Hatamizadeh (arXiv 2412.06464).

    >>> setting = MultitaskSetting.isotropic(n=[50, 50], r=[0.2, 0.8], d=10)
    >>> print(f"{delta_risk(setting, 0.05):.10f} {delta_risk(setting, 0.0):.10f}")
    3.6765366702 5.9016393443
    >>> print(f"{delta_risk(setting, 0.05, decays=[0.7, 1.0]):.10f}")
    3.6643557514
    """
    model, _ = model_of(reduce(setting), keys)
    beta, delta = _steps(steps, model, setting.K), _decays(decays, setting.K)
    return float(model.risks(beta[None] / model.step_unit, delta[None])[0])


def _steps(steps: ArrayLike, model: Model, K: int) -> Array:
    beta = np.asarray(steps, dtype=np.float64)
    if beta.shape not in ((), (K,)):
        raise ValueError(f"steps has shape {beta.shape}; give one number, or one per task, [{K}]")
    bound = model.bound * model.step_unit
    # written so that NaN fails; the bound itself, multiplied by its unit and divided again, may be above it by rounding
    if not (beta >= 0.0).all() or not (beta <= bound * (1.0 + 1e-12)).all():
        raise ValueError(
            f"steps is {beta.tolist()}; a step lies between 0 and {bound:.6g}, the bound of mean-square stability for "
            "these features and keys: beyond it the risk grows without end as examples are added"
        )
    return np.minimum(np.broadcast_to(beta, (K,)), bound)


def _decays(decays: ArrayLike | None, K: int) -> Array:
    delta = np.ones(K) if decays is None else np.asarray(decays, dtype=np.float64)
    if delta.shape != (K,):
        raise ValueError(f"decays has shape {delta.shape}; give one per task, [{K}]")
    if not ((delta >= 0.0) & (delta <= 1.0)).all():
        raise ValueError(f"decays is {delta.tolist()}; a decay lies between 0 (forget all) and 1 (keep all)")
    return delta
