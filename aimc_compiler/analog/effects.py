"""The function of every effect that ``aimc_compiler.chip.effects`` lists as built: names there are the keys here."""

from collections.abc import Callable
from typing import Any

from aimc_compiler.analog.column_effects import bias_column, s_shape
from aimc_compiler.analog.converter import asymmetric, bow, clip, mismatched, quantise
from aimc_compiler.analog.defects import PieceDefects, kill, stick
from aimc_compiler.analog.digital import in_format, integer_scales, send
from aimc_compiler.analog.ir_drop import drop
from aimc_compiler.analog.noise import add_input_noise, add_output_noise, output_variance, read_variance
from aimc_compiler.analog.pcm import accumulate_read_noise, drift, program
from aimc_compiler.analog.state import tile_drift_factor

EFFECT_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "range_clip": clip,
    "dac_quantisation": quantise,
    "input_noise": add_input_noise,
    "input_asymmetry": asymmetric,
    "activation_precision": send,
    "dac_nonlinearity": bow,
    "ir_drop": drop,
    "read_noise": read_variance,
    "voltage_offset": bias_column,
    "series_resistance": bias_column,
    "output_asymmetry": asymmetric,
    "output_noise": output_variance,
    "adc_quantisation": quantise,
    "adc_clip": clip,
    "s_shape": s_shape,
    "output_noise_spread": add_output_noise,
    "adc_gain": mismatched,
    "adc_offset": mismatched,
    "adc_nonlinearity": bow,
    "column_scale_precision": integer_scales,
    "partial_sum_precision": in_format,
    "programming_noise": program,
    "drift": drift,
    "drift_tile_spread": tile_drift_factor,
    "accumulated_read_noise": accumulate_read_noise,
    "stuck_at_zero": stick,
    "stuck_at_g_max": stick,
    "stuck_random": stick,
    "defect_map": PieceDefects.apply,
    "dead_rows": kill,
    "dead_columns": kill,
    "dead_tiles": kill,
}
