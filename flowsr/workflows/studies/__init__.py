"""Named studies: a question about a model and a folder of images, answered with figures, tables and numbers.

To add one, write a function in a module here that takes what ``Work`` says, and put :func:`register` on it; import it
below. The command ``flowsr study`` then knows it by the function's name.
"""

from flowsr.workflows.studies.guarantees import conformal
from flowsr.workflows.studies.known import (
    STUDIES,
    Findings,
    Study,
    StudySettings,
    register,
    study_named,
)
from flowsr.workflows.studies.known_truth import samplers
from flowsr.workflows.studies.pairs_of_images import (
    calibration,
    local_calibration,
    pairs_remark,
    temperature_remark,
    uncertainty,
)
from flowsr.workflows.studies.restoration import deblurring, inpainting

__all__ = [
    "STUDIES",
    "Findings",
    "Study",
    "StudySettings",
    "calibration",
    "conformal",
    "deblurring",
    "inpainting",
    "local_calibration",
    "pairs_remark",
    "register",
    "samplers",
    "study_named",
    "temperature_remark",
    "uncertainty",
]
