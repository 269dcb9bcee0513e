"""Hardware-aware training on the physics of ``aimc_compiler.analog``: the paper's method, in the user's own loop."""

from aimc_compiler.training.distillation import distillation_loss
from aimc_compiler.training.learned import Learned, LearnedMatrix
from aimc_compiler.training.prepare import HardwareAware, on_chip, prepare_hwa
from aimc_compiler.training.recipe import Recipe

__all__ = ["HardwareAware", "Learned", "LearnedMatrix", "Recipe", "distillation_loss", "on_chip", "prepare_hwa"]
