"""Hardware-aware training on the physics of ``aimc_compiler.analog``: the paper's method, in the user's own loop."""

from aimc_compiler.training.aware import HardwareAware, hold_weights, mini_batch
from aimc_compiler.training.distillation import distillation_loss
from aimc_compiler.training.groups import parameter_groups
from aimc_compiler.training.learned import Learned, LearnedMatrix
from aimc_compiler.training.loop import EpochResult, Trained, train
from aimc_compiler.training.norms import freeze_norms, restate_norms
from aimc_compiler.training.prepare import prepare_hwa
from aimc_compiler.training.programmed import on_chip
from aimc_compiler.training.recipe import RASCH_2023, Recipe
from aimc_compiler.training.rescale import Rescaled, rescale_channels
from aimc_compiler.training.task import Task

__all__ = [
    "RASCH_2023",
    "EpochResult",
    "HardwareAware",
    "Learned",
    "LearnedMatrix",
    "Recipe",
    "Rescaled",
    "Task",
    "Trained",
    "distillation_loss",
    "freeze_norms",
    "hold_weights",
    "mini_batch",
    "on_chip",
    "parameter_groups",
    "prepare_hwa",
    "rescale_channels",
    "restate_norms",
    "train",
]
