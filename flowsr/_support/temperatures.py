"""The default temperature of each task, once: what a command says in its help is what its function takes.

A lower temperature gives smoother images of a higher PSNR, and a temperature of 1 is the model itself.
"""

import math
from collections.abc import Sequence

DRAW_TEMPERATURE = 0.8
"""τ of draws to look at and to measure: super-resolution as published, between smooth and grainy."""

RESTORE_TEMPERATURE = 0.0
"""τ of the one image that restores a small one: no noise, so that nothing is invented."""

MODEL_TEMPERATURE = 1.0
"""τ of analyses of the model itself: posteriors, calibration, latents; and of a rescaling model's draws."""


def check_temperatures(temperatures: Sequence[float]) -> None:
    """Raise ValueError unless there are temperatures, finite, not negative, and different as they are written.

    Example:
        >>> check_temperatures((0.0, 0.8))
    """
    if not temperatures or any(not math.isfinite(tau) or tau < 0 for tau in temperatures):
        raise ValueError(f"expected finite temperatures >= 0; got {', '.join(map(str, temperatures)) or 'none'}")
    written = [f"{tau:g}" for tau in temperatures]
    if len(set(written)) < len(written):
        raise ValueError(f"expected different temperatures; got {', '.join(written)}")
