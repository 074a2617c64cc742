"""The default temperature of each task, once: what a command says in its help is what its function takes.

A lower temperature gives smoother images of a higher PSNR, and a temperature of 1 is the model itself.
"""

DRAW_TEMPERATURE = 0.8
"""τ of draws to look at and to measure: super-resolution as published, between smooth and grainy."""

RESTORE_TEMPERATURE = 0.0
"""τ of the one image that restores a small one: no noise, so that nothing is invented."""

MODEL_TEMPERATURE = 1.0
"""τ of analyses of the model itself: posteriors, calibration, latents; and of a rescaling model's draws."""
