"""What keeps a step sane: gradients are clipped as published; steps that are not finite are skipped and counted."""

from collections.abc import Iterable

import torch
from torch import Tensor

from flowsr.errors import NonFiniteError


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients together; not finite if any entry is not."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def clip_gradients(parameters: Iterable[Tensor], *, value: float | None, norm: float | None) -> None:
    """Bound each gradient entry by ``value``, then the norm of all by ``norm``, as HCFlow does; None for no bound."""
    parameters = [p for p in parameters if p.grad is not None]
    if value is not None:
        torch.nn.utils.clip_grad_value_(parameters, value)
    if norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, norm)


class NonFiniteGuard:
    """Counts steps whose loss or gradient is not finite, and stops a run that does nothing else.

    Args:
        patience: how many such steps in a row to allow.

    Example:
        >>> guard = NonFiniteGuard(patience=3)
        >>> guard.accept(True), guard.accept(False), guard.total
        (True, False, 1)
    """

    def __init__(self, *, patience: int = 50) -> None:
        if patience < 1:
            raise ValueError(f"expected patience >= 1; got {patience}")
        self.patience, self.total, self.in_a_row = patience, 0, 0

    def accept(self, finite: bool) -> bool:
        """Whether to make the step; counts those refused.

        Raises:
            NonFiniteError: when ``patience`` steps in a row were not finite.
        """
        if finite:
            self.in_a_row = 0
            return True
        self.total += 1
        self.in_a_row += 1
        if self.in_a_row >= self.patience:
            raise NonFiniteError(
                f"{self.in_a_row} steps in a row had a loss or gradient that is not finite ({self.total} in this run), "
                "so it was stopped. Resume, from the last checkpoint before them, with a lower learning rate, a longer "
                'warm-up, an annealed LR width (lr_log_scale_start=-1), start="haar", or fp32 instead of bf16; and '
                "look at the training images: a constant image has unbounded likelihood without dequantization"
            )
        return False
