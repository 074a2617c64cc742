"""Named studies: a question about a model and a folder of images, answered with figures, tables and numbers."""

from flowsr.studies.run import STUDIES, StudyReport, StudySettings, run_study

__all__ = ["STUDIES", "StudyReport", "StudySettings", "run_study"]
