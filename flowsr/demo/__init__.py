"""The demonstration behind ``flowsr demo``: fit a small model to photographs, and look at one it has not seen."""

from flowsr.demo.fit import DemoSettings, train_demo_model
from flowsr.demo.photographs import training_photographs, unseen_photograph
from flowsr.demo.study import DemoStudy, study_photograph

__all__ = [
    "DemoSettings",
    "DemoStudy",
    "study_photograph",
    "train_demo_model",
    "training_photographs",
    "unseen_photograph",
]
