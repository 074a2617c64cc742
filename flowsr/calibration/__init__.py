"""Calibration on held-out pairs: whether draws, intervals and latents are as probable as a model says."""

from flowsr.calibration.calibration_report import CalibrationReport, calibrate
from flowsr.calibration.component_intervals import (
    ComponentChecks,
    ComponentIntervals,
    calibrate_components,
    check_components,
)
from flowsr.calibration.confidence_masks import ConfidenceMask, MaskChecks, calibrate_mask, check_masks
from flowsr.calibration.conformal import (
    conformal_quantile,
    coverage_range,
    least_images,
    risk_p_value,
    risk_quantile,
    summarize_pairs,
)
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
from flowsr.calibration.local_c2st import LocalC2ST, local_c2st
from flowsr.calibration.local_calibration import LocalCalibration, local_calibration
from flowsr.calibration.pixel_intervals import (
    IntervalChecks,
    PixelIntervals,
    calibrate_intervals,
    check_intervals,
)
from flowsr.calibration.pixel_ranks import CONTENT, PixelRanks
from flowsr.calibration.pixel_test import PixelTest, pixel_test
from flowsr.calibration.recalibration import Recalibration, recalibrate_temperature
from flowsr.calibration.scores import Scores, crps, score_draws
from flowsr.calibration.simulation_based import RankTest, faulty_samplers, simulation_based_calibration, tarp
from flowsr.calibration.uniformity import simultaneous_band, uniformity_p_value

__all__ = [
    "CONTENT",
    "CalibrationReport",
    "ComponentChecks",
    "ComponentIntervals",
    "ConfidenceMask",
    "Coverage",
    "HeldOut",
    "IntervalChecks",
    "LocalC2ST",
    "LocalCalibration",
    "MaskChecks",
    "PixelIntervals",
    "PixelRanks",
    "PixelTest",
    "RankTest",
    "Recalibration",
    "Sampler",
    "Scores",
    "calibrate",
    "calibrate_components",
    "calibrate_intervals",
    "calibrate_mask",
    "check_components",
    "check_intervals",
    "check_masks",
    "conformal_quantile",
    "coverage_range",
    "crps",
    "default_functions",
    "faulty_samplers",
    "flow_sampler",
    "hold_out",
    "interval_coverage",
    "latent_pit",
    "least_images",
    "local_c2st",
    "local_calibration",
    "model_pairs",
    "pixel_test",
    "recalibrate_temperature",
    "reference_images",
    "risk_p_value",
    "risk_quantile",
    "score_draws",
    "simulation_based_calibration",
    "simultaneous_band",
    "summarize_pairs",
    "tarp",
    "uniformity_p_value",
]
