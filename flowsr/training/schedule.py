"""Learning rate and LR width as functions of the step alone, so that a resumed run needs no scheduler state."""

import math

from flowsr.training.recipes import Recipe


def learning_rate(recipe: Recipe, step: int, *, base: float | None = None) -> float:
    """The learning rate of a step: linear warm-up, then halvings or half a cosine.

    Args:
        recipe: the schedule.
        step: from 0.
        base: the rate to start from; the recipe's own by default.

    Example:
        >>> from flowsr.training.recipes import recipe
        >>> nll = recipe("nll", steps=100)
        >>> learning_rate(nll, 49), learning_rate(nll, 50)
        (0.00025, 0.000125)
    """
    rate = recipe.learning_rate if base is None else base
    if recipe.cosine_to is not None:
        lowest = recipe.cosine_to * rate / recipe.learning_rate
        progress = min(step / recipe.steps, 1.0)
        rate = lowest + 0.5 * (rate - lowest) * (1.0 + math.cos(math.pi * progress))
    rate *= 0.5 ** sum(step >= round(fraction * recipe.steps) for fraction in recipe.halve_at)
    if step < recipe.warmup:
        rate *= (step + 1) / recipe.warmup
    return rate


def lr_log_scale(recipe: Recipe, step: int) -> float:
    """log σ of the LR image at a step: the recipe's, or falling linearly to it over the first half of the steps.

    Example:
        >>> from flowsr.training.recipes import recipe
        >>> lr_log_scale(recipe("nll", steps=100, lr_log_scale_start=-1.0), 25)
        -3.5
    """
    if recipe.lr_log_scale_start is None:
        return recipe.lr_log_scale
    progress = min(step / (0.5 * recipe.steps), 1.0)
    return recipe.lr_log_scale_start + progress * (recipe.lr_log_scale - recipe.lr_log_scale_start)
