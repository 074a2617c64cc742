"""Training: the published recipes on a folder of images, in runs that survive.

:func:`train` does all of it. Lightning Fabric carries devices, precision and processes; here are the objectives, the
data, and a loop that can be read. Nothing heavy is imported before a run starts.
"""

from flowsr.training.adversarial import Discriminator, critic_loss, generator_loss
from flowsr.training.averaging import WeightAverage
from flowsr.training.checkpoint import CheckpointFolder, read_checkpoint
from flowsr.training.crops import Batch, CropBatches
from flowsr.training.data import BlurNoiseJPEG, Degradation, ImageFolder
from flowsr.training.fit import Trained, train
from flowsr.training.objectives import l1_loss, likelihood_loss, likelihood_svi, rescaling_loss
from flowsr.training.perceptual import VGGFeatures
from flowsr.training.pictures import run_curves
from flowsr.training.planning import Plan, plan
from flowsr.training.recipes import RECIPES, Recipe, learning_rate, lr_log_scale, recipe
from flowsr.training.settings import Data, Run
from flowsr.training.validation import ImageScores, score_images, summarize
from flowsr.training.wrapper import Objective, set_memory

__all__ = [
    "RECIPES",
    "Batch",
    "BlurNoiseJPEG",
    "CheckpointFolder",
    "CropBatches",
    "Data",
    "Degradation",
    "Discriminator",
    "ImageFolder",
    "ImageScores",
    "Objective",
    "Plan",
    "Recipe",
    "Run",
    "Trained",
    "VGGFeatures",
    "WeightAverage",
    "critic_loss",
    "generator_loss",
    "l1_loss",
    "learning_rate",
    "likelihood_loss",
    "likelihood_svi",
    "lr_log_scale",
    "plan",
    "read_checkpoint",
    "recipe",
    "rescaling_loss",
    "run_curves",
    "score_images",
    "set_memory",
    "summarize",
    "train",
]
