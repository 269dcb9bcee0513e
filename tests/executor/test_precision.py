"""Precisions of a whole network: `fast` is `exact` but for a few codes, whatever the chip has, and says what it is."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.analog.fast import missing_units
from aimc_compiler.chip import EFFECTS, override
from aimc_compiler.errors import DataError
from aimc_compiler.report import precision_line

HOUR_S = 3600.0
UNITS = missing_units()
with_units = pytest.mark.skipif(UNITS is not None, reason=str(UNITS))

MVM, DEVICE, DIGITAL = "nonidealities.mvm", "nonidealities.device", "nonidealities.digital"
# Something of every effect that the standard chip has not: an effect without an entry here fails the test below.
MORE: dict[str, dict[str, Any]] = {
    "input_noise": {f"{MVM}.sigma_in": 0.05},
    "input_asymmetry": {f"{MVM}.input_asymmetry": 0.1},
    "activation_precision": {f"{DIGITAL}.activation_bits": 3},
    "dac_nonlinearity": {"tile.dac.inl": 2, "tile.dac.inl_curve": [0, 0, 1]},
    "voltage_offset": {f"{MVM}.v_offset_std": 0.1},
    "series_resistance": {f"{MVM}.r_series": 0.1},
    "output_asymmetry": {f"{MVM}.output_asymmetry": 0.1},
    "s_shape": {f"{MVM}.s_shape": 0.5},
    "output_noise_spread": {f"{MVM}.sigma_out_spread": 0.5},
    "adc_gain": {"tile.adc.gain_std": 0.1},
    "adc_offset": {"tile.adc.offset_std": 0.5},
    "adc_nonlinearity": {"tile.adc.inl": 2, "tile.adc.inl_curve": [0, 0, 1]},
    "column_scale_precision": {f"{DIGITAL}.column_scale_bits": 3},
    "partial_sum_precision": {f"{DIGITAL}.partial_sums": "bf16"},
    "drift_tile_spread": {f"{DEVICE}.drift_tile_spread": 0.5},
    "stuck_at_zero": {"nonidealities.defects.stuck_at_zero": 0.1},
    "stuck_at_g_max": {"nonidealities.defects.stuck_at_g_max": 0.1},
    "stuck_random": {"nonidealities.defects.stuck_random": 0.1},
    "dead_rows": {"nonidealities.defects.dead_rows": 0.1},
    "dead_columns": {"nonidealities.defects.dead_columns": 0.1},
    "dead_tiles": {"nonidealities.defects.dead_tiles": 0.2},
    # Further ways of doing things, no effects of their own.
    "input_scaling": {f"{MVM}.input_scaling": "abs_max"},
    "passes": {f"{MVM}.passes": "digital"},
    "bound_management": {f"{MVM}.bound_management": True},
    "stochastic": {"tile.adc.rounding": "stochastic"},
    "shared_converters": {"tile.adc.columns_per_adc": 4},
    "bit_serial": {"tile.dac.input_mode": "bit_serial", f"{MVM}.ir_drop": 0},
    "pairs": {"tile.device.pairs": 2},
    "hermes": {"tile.device.model": "pcm_hermes_two", "tile.device.g_max": "20.7 uS"},
    "constant": {f"{MVM}.read_noise": "constant"},
    "compensated": {"nonidealities.drift_compensation": "column"},
}
STANDARD = {
    "range_clip", "dac_quantisation", "ir_drop", "read_noise", "output_noise", "adc_quantisation", "adc_clip",
    "programming_noise", "drift", "accumulated_read_noise",
}  # fmt: skip
MAPS = {"defect_map"}  # a file; devices it strikes are aged in exact, as those of the other defects are


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()


def inputs(count: int = 8, seed: int = 1) -> Tensor:
    return torch.rand(count, 4, 6, 6, generator=torch.Generator().manual_seed(seed)) - 0.2


def compiled(changes: dict[str, Any] | None = None) -> aimc.CompiledModel:
    chip = aimc.load_chip("analog-fabric", overrides=("tile.rows=128", "tile.columns=16"))
    changed = override(chip, changes) if changes else chip
    return aimc.compile(network(), changed, (inputs(1),), calibration=[inputs(64, seed=2)])


def test_every_effect_is_covered() -> None:
    assert set(EFFECTS) <= set(MORE) | STANDARD | MAPS


@with_units
@pytest.mark.parametrize("name", [None, *MORE])
def test_fast_is_exact_but_for_a_few_codes_or_falls_back(name: str | None) -> None:
    model = compiled(MORE[name] if name else None)
    exact, fast = model.deploy(precision="exact"), model.deploy(precision="fast")
    expected, found = exact(inputs(), time_s=HOUR_S), fast(inputs(), time_s=HOUR_S)
    if all(choice.precision == "exact" for choice in fast.precision.values()):
        assert name is not None
        assert torch.equal(found, expected)
    else:
        # A code that differs in the first layer moves the second: far less than the chip's own noise, some 10 %.
        assert float((found - expected).norm() / expected.norm()) < 0.02
    assert exact.samples == fast.samples == 8


@with_units
def test_precision_is_recorded_and_reported() -> None:
    model = compiled()
    assert {str(choice) for choice in model.deploy().precision.values()} == {"fast"}
    assert {str(choice) for choice in model.deploy(precision="exact").precision.values()} == {"exact (as asked)"}
    data = [(inputs(), torch.zeros(8, dtype=torch.long))]
    fast = aimc.evaluate(model, data, times_s=(1.0,), n_chips=1)
    assert precision_line(fast) == "fast"
    assert dict(fast.precision) == {"0": "fast", "3": "fast"}
    noisy = aimc.evaluate(compiled(MORE["input_noise"]), data, times_s=(1.0,), n_chips=1)
    assert precision_line(noisy) == "exact (input noise: not built in fast)"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(DataError, match="no precision is called 'quick'"):
        compiled().deploy(precision="quick")  # type: ignore[arg-type]
