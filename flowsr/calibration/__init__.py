"""Calibration on held-out pairs: whether draws, intervals and latents are as probable as a model says."""

from flowsr.calibration.calibration_report import CalibrationReport, calibrate
from flowsr.calibration.coverage import Coverage, interval_coverage
from flowsr.calibration.held_out import (
    HeldOut,
    Sampler,
    default_functions,
    flow_sampler,
    hold_out,
    model_pairs,
    reference_images,
)
from flowsr.calibration.latent_pit import latent_pit
from flowsr.calibration.recalibration import Recalibration, recalibrate_temperature
from flowsr.calibration.scores import Scores, crps, score_draws
from flowsr.calibration.simulation_based import RankTest, faulty_samplers, simulation_based_calibration, tarp
from flowsr.calibration.uniformity import simultaneous_band, uniformity_p_value

__all__ = [
    "CalibrationReport",
    "Coverage",
    "HeldOut",
    "RankTest",
    "Recalibration",
    "Sampler",
    "Scores",
    "calibrate",
    "crps",
    "default_functions",
    "faulty_samplers",
    "flow_sampler",
    "hold_out",
    "interval_coverage",
    "latent_pit",
    "model_pairs",
    "recalibrate_temperature",
    "reference_images",
    "score_draws",
    "simulation_based_calibration",
    "simultaneous_band",
    "tarp",
    "uniformity_p_value",
]
