"""How good, how faithful and how varied: PSNR, SSIM, LR-PSNR, LPIPS and two measures of diversity.

Figures of super-resolution differ by conventions more than by methods. Each function here states its own (colour,
border, rounding, units), asks for those that papers do not agree on, and returns one value per image of a batch.
"""

from flowsr.metrics.comparison import compare
from flowsr.metrics.diversity import ntire_diversity, pixel_std
from flowsr.metrics.fidelity import lr_psnr, psnr, ssim
from flowsr.metrics.lpips import PerceptualDistance, lpips_distance

__all__ = ["PerceptualDistance", "compare", "lpips_distance", "lr_psnr", "ntire_diversity", "pixel_std", "psnr", "ssim"]
