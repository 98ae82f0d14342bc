"""Prompts that are well formed and tell no setting: an answer of its own, unlike input that is wrong."""

__all__ = ["RefusedError"]


class RefusedError(ValueError):
    """Why no setting can be estimated from these prompts, though nothing is wrong with them.

    Args:
        reason: what the prompts do not tell, and the cure.
        variance: the estimated variance of the tasks' coefficients, as a part of the labels' mean square after the fit
            to all; None if it is not what they fail to tell.
        error: its standard error.
        plain: whether neither levels nor an outlier are a likely cause.
    """

    def __init__(self, reason: str, *, variance: float | None = None, error: float = 0.0, plain: bool = True) -> None:
        super().__init__(f"it cannot be told whether weights help: {reason}")
        self.reason, self.variance, self.error, self.plain = reason, variance, error, plain

    def within(self, where: str) -> "RefusedError":
        """The same of a part of the prompts."""
        return RefusedError(f"{where}, {self.reason}", variance=self.variance, error=self.error, plain=self.plain)
