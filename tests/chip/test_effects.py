"""The table of effects: off is off, only is only, scaling scales, on every built-in chip."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.chip import (
    EFFECTS,
    ChipSpec,
    active,
    all_off,
    builtin_names,
    load_chip,
    only,
    override,
    scale,
    switch_off,
)
from aimc_compiler.chip.column_effects import COLUMN_EFFECTS
from aimc_compiler.chip.figures import figures, section_paths
from aimc_compiler.errors import SpecError

CHIPS = {name: load_chip(name) for name in builtin_names()}
#: Every effect on, on two tile types.
SOME_OF_ALL = override(
    load_chip("analog-fabric"),
    {
        "nonidealities.mvm.sigma_in": 0.01,
        "nonidealities.mvm.input_asymmetry": 0.01,
        "nonidealities.mvm.output_asymmetry": 0.01,
        "nonidealities.mvm.v_offset_std": 0.01,
        "nonidealities.mvm.r_series": 0.01,
        "nonidealities.mvm.s_shape": 0.01,
        "nonidealities.mvm.sigma_out_spread": 0.01,
        "nonidealities.digital": {"activation_bits": 8, "partial_sums": "fp16", "column_scale_bits": 4},
        "tile.dac.inl": 0.5,
        "tile.adc.inl": 0.5,
        "tile.adc.gain_std": 0.004,
        "tile.adc.offset_std": 0.1,
        "nonidealities.device.drift_tile_spread": 0.1,
        "nonidealities.defects": {
            "stuck_at_zero": 0.01,
            "stuck_at_g_max": 0.02,
            "stuck_random": 0.03,
            "dead_rows": 0.01,
            "dead_columns": 0.02,
            "dead_tiles": 0.03,
            "map": [{"tile": 0, "row": 1, "column": 2, "polarity": "plus", "value": 0.5}],
        },
    },
)
TWO_TYPES = ChipSpec.model_validate(
    load_chip("analog-fabric").model_dump(by_alias=True, exclude={"tile", "provenance"}, exclude_none=True)
    | {
        "tiles": {
            "fine": load_chip("analog-fabric").model_dump(by_alias=True, exclude_none=True)["tile"],
            "coarse": override(load_chip("analog-fabric"), {"tile.adc.bits": 6, "tile.dac.bits": "off"}).model_dump(
                by_alias=True, exclude_none=True
            )["tile"],
        }
    }
)
ALL_CHIPS = [*CHIPS.values(), SOME_OF_ALL, TWO_TYPES]
NAMES = tuple(EFFECTS)
OFF_IN_STANDARD = {"drift_tile_spread", "input_noise", "input_asymmetry", "output_asymmetry", *COLUMN_EFFECTS}
some_chip = st.sampled_from(ALL_CHIPS)
some_names = st.lists(st.sampled_from(NAMES), unique=True)


def values(spec: ChipSpec) -> dict[str, object]:
    return {figure.path: figure.value for figure in figures(spec)}


def test_names_in_the_order_of_the_signal_path() -> None:
    assert NAMES == (
        "range_clip",
        "dac_quantisation",
        "input_noise",
        "input_asymmetry",
        "activation_precision",
        "dac_nonlinearity",
        "ir_drop",
        "read_noise",
        "voltage_offset",
        "series_resistance",
        "output_asymmetry",
        "output_noise",
        "adc_quantisation",
        "adc_clip",
        "s_shape",
        "output_noise_spread",
        "adc_gain",
        "adc_offset",
        "adc_nonlinearity",
        "column_scale_precision",
        "partial_sum_precision",
        "programming_noise",
        "drift",
        "drift_tile_spread",
        "accumulated_read_noise",
        "stuck_at_zero",
        "stuck_at_g_max",
        "stuck_random",
        "defect_map",
        "dead_rows",
        "dead_columns",
        "dead_tiles",
    )
    stages = [effect.stage for effect in EFFECTS.values()]
    assert stages == sorted(stages, key=["input", "mac", "output", "device"].index)
    assert all(effect.built for effect in EFFECTS.values())


def test_every_effect_is_a_figure_of_the_spec() -> None:
    known = section_paths(load_chip("analog-fabric"))
    for effect in EFFECTS.values():
        assert (f"tile.{effect.path}" if effect.per_tile else effect.path) in known
        assert effect.does
        assert effect.equation
        assert effect.source


def test_what_is_on() -> None:
    assert active(CHIPS["ideal"]) == ()
    assert active(CHIPS["isaac"]) == ("range_clip", "dac_quantisation", "adc_quantisation", "adc_clip")
    standard = tuple(
        name for name in NAMES if not name.startswith(("stuck", "dead", "defect")) and name not in OFF_IN_STANDARD
    )
    assert active(CHIPS["analog-fabric"]) == standard
    assert active(SOME_OF_ALL) == NAMES


@settings(max_examples=60, deadline=None)
@given(some_chip, some_names)
def test_off_is_off_and_nothing_else(spec: ChipSpec, names: list[str]) -> None:
    off = switch_off(spec, names)
    assert active(off) == tuple(name for name in active(spec) if name not in names)
    changed = {path for path, value in values(off).items() if value != values(spec)[path]}
    allowed = tuple(EFFECTS[name].path for name in names)
    assert all(path.endswith(allowed) for path in changed)
    assert switch_off(off, names) == off


@settings(max_examples=60, deadline=None)
@given(some_chip, some_names)
def test_only_is_only(spec: ChipSpec, names: list[str]) -> None:
    kept = only(spec, names)
    assert active(kept) == tuple(name for name in active(spec) if name in names)
    for name in names:
        for path, value in values(kept).items():
            if path.endswith(EFFECTS[name].path):
                assert value == values(spec)[path]
    compensation = spec.nonidealities.drift_compensation if "drift" in names else "off"
    assert kept.nonidealities.drift_compensation == compensation


@pytest.mark.parametrize("spec", ALL_CHIPS, ids=lambda spec: spec.name)
def test_all_off(spec: ChipSpec) -> None:
    off = all_off(spec)
    assert active(off) == ()
    assert all_off(off) == off
    assert only(off, NAMES) == off
    for tile in off.tile_types.values():
        assert (tile.dac.bits, tile.adc.bits, tile.adc.out_bound) == ("off", "off", "off")
    assert off.nonidealities.drift_compensation == "off"
    assert not off.nonidealities.mvm.range_clip
    assert only(spec, NAMES) == spec


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spec", ALL_CHIPS, ids=lambda spec: spec.name)
def test_scaling_by_one_and_by_zero(spec: ChipSpec, name: str) -> None:
    assert scale(spec, name, 1) == spec
    assert active(scale(spec, name, 0)) == tuple(other for other in active(spec) if other != name)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([name for name in NAMES if EFFECTS[name].scaling == "factor"]), st.floats(0.01, 30))
def test_numbers_are_multiplied(name: str, factor: float) -> None:
    path = ("tile." if EFFECTS[name].per_tile else "") + EFFECTS[name].path
    scaled = scale(SOME_OF_ALL, name, factor)
    assert values(scaled)[path] == pytest.approx(values(SOME_OF_ALL)[path] * factor)  # type: ignore[operator]
    assert {other: value for other, value in values(scaled).items() if other != path} == {
        other: value for other, value in values(SOME_OF_ALL).items() if other != path
    }


def test_converters_lose_bits() -> None:
    assert [tile.adc.bits for tile in scale(TWO_TYPES, "adc_quantisation", 4).tile_types.values()] == [6, 4]
    assert [tile.dac.bits for tile in scale(TWO_TYPES, "dac_quantisation", 0.5).tile_types.values()] == [9, "off"]
    with pytest.raises(
        SpecError, match=r"effect adc_quantisation goes by whole bits: a factor of 3 is no power of two"
    ):
        scale(TWO_TYPES, "adc_quantisation", 3)
    with pytest.raises(SpecError, match=re.escape("tiles.coarse.adc.bits: is 1; must be at least 2, or 'off'")):
        scale(TWO_TYPES, "adc_quantisation", 32)


def test_factors_without_a_meaning() -> None:
    with pytest.raises(SpecError, match="effect adc_clip is on or off: a factor of 2 has no meaning; give 0 or 1"):
        scale(SOME_OF_ALL, "adc_clip", 2)
    for factor in (-1.0, float("inf"), float("nan")):
        with pytest.raises(SpecError, match=r"has no meaning; give 0 .off. or a positive number"):
            scale(SOME_OF_ALL, "drift", factor)
    with pytest.raises(SpecError, match=r"stuck_random: is 3\.0; must be at most 1"):
        scale(SOME_OF_ALL, "stuck_random", 100)


def test_unknown_names() -> None:
    for change in (switch_off, only):
        with pytest.raises(SpecError, match="no effect is called 'drif'; did you mean 'drift'"):
            change(SOME_OF_ALL, ["drif"])
    with pytest.raises(SpecError, match="no effect is called 'zzz'; effects: range_clip, dac_quantisation"):
        scale(SOME_OF_ALL, "zzz", 1)


def test_changed_figures_say_so() -> None:
    off = switch_off(CHIPS["hermes"], ["drift"])
    assert off.provenance["nonidealities.device.drift"].note == "an effect switched off"
    assert (
        scale(CHIPS["hermes"], "drift", 2).provenance["nonidealities.device.drift"].note == "effect drift scaled by 2"
    )


def test_a_calibrated_bound_is_a_bound() -> None:
    """It switches off with the rest, stays where other effects are chosen, and lets S-shapes go by it."""
    spec = load_chip("analog-fabric", overrides=("tile.adc.out_bound=calibrated", "nonidealities.mvm.s_shape=0.1"))
    assert {"adc_clip", "adc_quantisation", "s_shape"} < set(active(spec))
    assert all_off(spec).tile_types["tile"].adc.out_bound == "off"
    assert only(spec, ["drift"]).tile_types["tile"].adc.out_bound == "calibrated"
    assert "adc_clip" not in active(switch_off(spec, ["adc_clip"]))
    assert scale(spec, "adc_quantisation", 4).tile_types["tile"].adc.bits == 6


def test_one_name_is_one_effect() -> None:
    spec = load_chip("hermes")
    assert only(spec, "drift") == only(spec, ["drift"])
    assert switch_off(spec, "drift") == switch_off(spec, ["drift"])
