"""What studies can be told."""

from __future__ import annotations

from dataclasses import dataclass

from flowsr.posterior.solve import Method


@dataclass(frozen=True)
class StudySettings:
    """What a study can be told.

    Args:
        crop: side of the HR crops in pixels, a multiple of 8 and at least 16; None for the study's own. Inpainting and
            deblurring take the square of the first image that varies most, uncertainty the middle of each.
        num_draws: draws per image (uncertainty), per pair (calibration) or per chain; None for the study's own.
        pairs: crops for calibration, at least 20.
        temperature: τ of the draws; 1 is the model.
        lr_std: σ of the flow's LR image in units of [0, 1]; 0 is the Dirac limit.
        noise: standard deviation of the observation's noise, for inpainting and deblurring.
        method: solver, for inpainting and deblurring.
        seed: of all randomness.

    Raises:
        ValueError: for numbers out of range.
    """

    crop: int | None = None
    num_draws: int | None = None
    pairs: int = 60
    temperature: float = 1.0
    lr_std: float = 0.0
    noise: float = 0.02
    method: Method = "svi"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop is not None and (self.crop < 16 or self.crop % 8):
            raise ValueError(f"expected a crop of at least 16 pixels, a multiple of 8; got {self.crop}")
        if self.pairs < 20 or (self.num_draws is not None and self.num_draws < 4):
            raise ValueError(f"expected pairs >= 20 and num_draws >= 4; got {self.pairs} and {self.num_draws}")
        if not self.temperature > 0 or not 0 <= self.lr_std <= 1 or not self.noise > 0:
            raise ValueError(
                "expected temperature and noise > 0 and lr_std from 0 to 1; got "
                f"{self.temperature}, {self.noise} and {self.lr_std}"
            )
