"""Options that describe a multitask setting, shared by the commands of the theory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gladient._types import Array
    from gladient.prompts import MultitaskSetting

__all__ = ["SettingOptions"]


@dataclass(frozen=True, kw_only=True)
class SettingOptions:
    """A multitask setting, typed on the command line."""

    n: tuple[int, ...]
    """Examples of each task, in prompt order."""
    r: tuple[float, ...]
    """Correlation of each task with the query's task."""
    d: int | None = None
    """Number of features; left out when --spectrum is given."""
    rho: tuple[float, ...] = ()
    """Correlations between tasks: one number for every pair, or ρ12 ρ13 … ρ23 … (upper triangle, row by row);
    left out: uncorrelated."""
    spectrum: tuple[float, ...] = ()
    """Eigenvalues of the features' covariance Σ; left out: all 1."""
    sigma2: float = 0.0
    """Variance of the label noise."""

    def setting(self) -> "MultitaskSetting":
        """The setting, checked."""
        import numpy as np

        from gladient.prompts import MultitaskSetting

        K = len(self.n)
        return MultitaskSetting(
            n=self.n, R=_correlations(self.rho, K), r=self.r, Sigma=np.diag(self._eigenvalues()), sigma2=self.sigma2
        )

    def _eigenvalues(self) -> tuple[float, ...]:
        if self.d is None and not self.spectrum:
            raise ValueError(
                "neither --d nor --spectrum is given; one of them must say how many features there are: --d 10"
            )
        if self.d is not None and self.d < 1:
            raise ValueError(f"--d is {self.d}; it must be a whole number ≥ 1")
        if self.d is not None and self.spectrum and len(self.spectrum) != self.d:
            raise ValueError(
                f"--d is {self.d} but --spectrum lists {len(self.spectrum)} eigenvalues; they must agree: leave --d out"
            )
        return self.spectrum or (1.0,) * (self.d or 0)


def _correlations(rho: tuple[float, ...], K: int) -> "Array":
    import numpy as np

    pairs = K * (K - 1) // 2
    if len(rho) not in (0, 1, pairs):
        raise ValueError(
            f"--rho lists {len(rho)} numbers; {K} tasks need none, one for every pair, or "
            f"the {pairs} of the upper triangle"
        )
    R = np.eye(K)
    upper = np.triu_indices(K, 1)
    R[upper] = rho if len(rho) == pairs else (rho[0] if rho else 0.0)
    return np.triu(R) + np.triu(R, 1).T
