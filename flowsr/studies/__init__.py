"""Named studies: a question about a model and a folder of images, answered with figures, tables and numbers."""

from flowsr.studies.run import STUDIES, StudyReport, run_study
from flowsr.studies.settings import StudySettings

__all__ = ["STUDIES", "StudyReport", "StudySettings", "run_study"]
