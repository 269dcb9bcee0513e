"""From spec to numbers, what is refused, and the registry of effects."""

import math
from typing import Any

import pytest
from analog_chips import STANDARD, STANDARD_EFFECTS, effects, standard_tile, tile

from aimc_compiler.analog import EFFECT_FUNCTIONS, MvmSettings, require_built
from aimc_compiler.chip.effects import EFFECTS
from aimc_compiler.errors import NotBuiltError


def test_standard_values() -> None:
    """Rasch et al., Nat. Commun. 14, 5282 (2023), Supplementary Table 1."""
    settings = MvmSettings.of(standard_tile(), effects(STANDARD))
    assert settings.dac_step == 2 / 254
    assert settings.adc_step == 20 / 254
    assert (settings.in_bound, settings.out_bound) == (1.0, 10.0)
    assert (settings.sigma_in, settings.sigma_out, settings.sigma_w, settings.ir_drop) == (0, 0.04, 0.0175, 1.0)
    assert settings.g_ratio == pytest.approx(571_428.57)


def test_everything_off_is_the_default() -> None:
    settings = MvmSettings.of(tile(), effects())
    assert settings == MvmSettings(g_ratio=settings.g_ratio)
    assert settings.in_bound == settings.out_bound == math.inf


def test_the_standard_chip_is_built() -> None:
    require_built(standard_tile(), STANDARD_EFFECTS)


@pytest.mark.parametrize(
    ("tile_keys", "effect_keys", "message"),
    [
        ({"input_mode": "bit_serial"}, {}, "dac.input_mode bit_serial without range clipping"),
        ({"input_mode": "amplitude"}, {}, "dac.input_mode amplitude with IR drop"),
        ({"input_mode": "bit_serial"}, {"bound_management": True}, "bound management with dac.input_mode bit_serial"),
    ],
)
def test_what_is_not_modelled_is_refused(tile_keys: dict[str, Any], effect_keys: dict[str, Any], message: str) -> None:
    clipped = tile_keys["input_mode"] != "bit_serial"
    nonidealities = effects({**STANDARD, "range_clip": clipped, **effect_keys}, {"drift": 1}, "tile")
    with pytest.raises(NotBuiltError, match=message) as raised:
        require_built(standard_tile(**tile_keys), nonidealities, "left")
    assert "tile type 'left' cannot be run yet (mapping and timing of this chip work)" in str(raised.value)
    assert "--set KEY=VALUE" in str(raised.value)


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(NotBuiltError) as raised:
        require_built(standard_tile(normalisation="none", input_mode="amplitude"), STANDARD_EFFECTS)
    assert str(raised.value).count("\n  - ") == 2


def test_devices_without_statistics_run_as_ideal_ones() -> None:
    require_built(standard_tile(device={"model": "reram_wan2022"}), effects(STANDARD))


def test_a_weight_of_two_rows_has_twice_the_wire() -> None:
    one, two = (
        MvmSettings.of(standard_tile(device={"rows_per_weight": rows}), effects(STANDARD)).g_ratio for rows in (1, 2)
    )
    assert two == pytest.approx(one / 2)


def test_every_built_effect_of_the_table_has_its_function() -> None:
    built = [name for name, effect in EFFECTS.items() if effect.built]
    assert list(EFFECT_FUNCTIONS) == built
    assert all(callable(function) for function in EFFECT_FUNCTIONS.values())
