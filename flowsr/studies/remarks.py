"""What a reader of a study's tables could misread, in sentences."""

from __future__ import annotations

from flowsr.calibration import Recalibration
from flowsr.calibration.simulation_based import RankTest


def pairs_remark(pairs: int, images: int) -> str | None:
    """That crops of one image are not independent, if there are several of one.

    Example:
        >>> pairs_remark(20, 20) is None
        True
    """
    if pairs <= images:
        return None
    return (
        f"{pairs} pairs come from {images} image{'s' if images > 1 else ''}: crops of one image are alike, yet p and "
        "intervals count them as independent, so p is too small and intervals are too short: give more images"
    )


def temperature_remark(pit: RankTest, recalibrated: Recalibration) -> str | None:
    """That τ may be below 1 although norms of latents are more spread out than the model says.

    Args:
        pit: of :func:`flowsr.calibration.latent_pit`.
        recalibrated: of :func:`flowsr.calibration.recalibrate_temperature`.
    """
    levels = len(recalibrated.temperature)
    found = []
    for index, tau in enumerate(recalibrated.temperature):
        norm = f"z_{levels - index} norm"
        if tau < 1 and norm in pit.names and pit.shape(norm).startswith("too narrow"):
            found.append(f"τ = {tau:.2f} for z_{levels - index}")
    if not found:
        return None
    return (
        "norms of latents vary more between pairs than the model says: of some they are larger, of others smaller. "
        "That does not ask for a larger τ: CRPS, which rewards draws near their mean, is still least at "
        + ", ".join(found)
    )
