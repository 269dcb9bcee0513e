"""What of a chip's MVM a recipe trains with."""

from dataclasses import replace
from math import inf

from aimc_compiler.analog import MvmSettings
from aimc_compiler.training.recipe import Recipe


def training_settings(settings: MvmSettings, recipe: Recipe) -> MvmSettings:
    """The chip's, scaled as the recipe says. What differs from chip to chip, and bounds that are calibrated on
    the trained network, are left to the evaluation."""
    rounds = recipe.converters
    return replace(
        settings,
        sigma_w=settings.sigma_w * recipe.read_noise,
        sigma_out=settings.sigma_out * recipe.output_noise,
        ir_drop=settings.ir_drop if recipe.ir_drop else 0.0,
        dac_step=settings.dac_step if rounds else 0.0,
        adc_step=settings.adc_step if rounds and not settings.own_bounds else 0.0,
        out_bound=settings.out_bound if rounds and not settings.own_bounds else inf,
        own_bounds=False,
        v_offset_std=0.0,
        s_shape_std=0.0,
        sigma_out_spread=0.0,
        gain_std=0.0,
        offset_std=0.0,
        mismatch_calibrated=False,
    )
