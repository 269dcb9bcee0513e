"""Bit planes and bit slices: against whole numbers, and their noise against closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from analog_chips import effects, pieces, tile
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import Contraction, MatrixOnTiles, MvmSettings
from aimc_compiler.analog.passes import bit_planes
from aimc_compiler.analog.slices import Slices
from aimc_compiler.chip import load_chip
from aimc_compiler.chip.stored import Device
from aimc_compiler.errors import SpecError

BITS = {"sign_magnitude": lambda bits: bits - 1, "twos_complement": lambda bits: bits}
ISAAC = {"slices": 8, "bits_per_slice": 2, "encoding": "offset_column", "flip_columns": True}


def bit_serial(bits: int = 8, code: str = "sign_magnitude", accumulate: str = "digital", **other: Any) -> Any:
    adc = other.pop("adc", {"bits": "off", "out_bound": "off"})
    dac = {"bits": bits, "input_mode": "bit_serial", "bit_code": code, "accumulate": accumulate}
    made = tile(device=other.pop("device", {}), **other).model_dump(by_alias=True, exclude_none=True)
    return type(tile()).model_validate({**made, "dac": dac, "adc": adc})


def matrix(weight: torch.Tensor, made: Any, mvm: dict[str, Any] | None = None, **other: Any) -> MatrixOnTiles:
    nonidealities = effects({"range_clip": True, **(mvm or {})}, **other)
    cut = pieces(1, (weight.shape[2],), (weight.shape[1],))
    return MatrixOnTiles(weight, Contraction(kind="linear"), cut, made, nonidealities, dtype=weight.dtype)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(BITS)), st.integers(2, 12), st.integers(0, 2**31))
def test_planes_are_bits_of_the_code(code: str, bits: int, seed: int) -> None:
    largest = 2 ** (bits - 1) - 1
    whole = torch.randint(-largest, largest + 1, (50,), generator=torch.Generator().manual_seed(seed)).double()
    of_tile = MvmSettings.of(bit_serial(bits, code), effects({"range_clip": True}))
    planes = bit_planes(whole / largest, of_tile)
    assert len(planes) == BITS[code](bits)
    values = {-1.0, 0.0, 1.0} if code == "sign_magnitude" else {0.0, 1.0}
    assert all(set(plane.tolist()) <= values for _, plane in planes)
    assert torch.allclose(sum(weight * plane for weight, plane in planes) * largest, whole, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["differential", "offset_column"]), st.integers(2, 8), st.integers(1, 3), st.integers(0, 2**31))
def test_slices_hold_the_rounded_weight(encoding: str, count: int, bits: int, seed: int) -> None:
    spec = {"model": "cells", "g_max": "25 uS", "slices": count, "bits_per_slice": bits, "encoding": encoding}
    slices = Slices.of(Device.model_validate(spec))
    w = torch.rand(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    w[:3] = torch.tensor([-1.0, 0.0, 1.0])
    states = slices.states(w)
    digits = states * (2**bits - 1)
    assert torch.allclose(digits, digits.round(), atol=1e-9)
    assert float(states.abs().max()) <= 1
    assert encoding == "differential" or float(states.min()) >= 0
    total = count * bits - (encoding == "offset_column")
    held = sum(f * s for f, s in zip(slices.factors, states, strict=True)) - slices.offset
    assert float((held - w).abs().max()) <= 0.5 / (2**total - 1) + 1e-9


@pytest.mark.parametrize("code", ["sign_magnitude", "twos_complement"])
@pytest.mark.parametrize("accumulate", ["digital", "analog"])
def test_bit_serial_without_noise_is_the_product_of_codes(code: str, accumulate: str) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(1, 20, 30, generator=generator)
    x = torch.rand(16, 30, generator=generator) * 2 - 1
    ranges = torch.ones(1, 1)
    serial = matrix(weight, bit_serial(8, code, accumulate)).forward(x, ranges)
    parallel = matrix(weight, tile(dac=8)).forward(x, ranges)
    assert torch.allclose(serial, parallel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mean", [0.0, 0.6, -0.6])
def test_isaac_is_the_product_of_whole_numbers(mean: float) -> None:
    """16-bit weights by 16-bit inputs in integers of numpy: nothing is lost on the way, whatever columns hold."""
    rng = np.random.default_rng(2)
    weight = np.clip(rng.normal(mean, 0.3, (16, 128)), -1, 1)
    weight[:, 0] = 1.0
    x = rng.uniform(-1, 1, (8, 128))
    adc = {"bits": 8, "out_bound": 85, "signed": False}
    made = bit_serial(16, "twos_complement", device={"model": "cells", **ISAAC}, adc=adc)
    on_tile = matrix(torch.from_numpy(weight)[None], made)
    y = on_tile.forward(torch.from_numpy(x), torch.ones(1, 1)).numpy()
    largest = 2**15 - 1
    whole = np.rint(x * largest).astype(np.int64) @ np.rint(weight * largest).astype(np.int64).T
    assert np.allclose(y * largest**2, whole, rtol=0, atol=0.1)
    assert on_tile.adc_conversions == 8 * 16 * 16 * 8
    assert on_tile.mvms == 8


def test_full_columns_need_to_be_flipped() -> None:
    weight = torch.full((1, 4, 128), 1.0, dtype=torch.float64)
    errors = []
    for flips in (True, False):
        device = {"model": "cells", **ISAAC, "flip_columns": flips}
        made = bit_serial(16, "twos_complement", device=device, adc={"bits": 8, "out_bound": 85, "signed": False})
        y = matrix(weight, made).forward(torch.ones(1, 128, dtype=torch.float64), torch.ones(1, 1))
        errors.append(float((y - 128).abs().max()))
    assert errors[0] < 1e-6
    assert errors[1] > 1


def test_an_analog_offset_column() -> None:
    weight = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(3))
    on_tile = matrix(weight, tile(device={"encoding": "offset_column"}))
    x = torch.rand(4, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    assert torch.allclose(on_tile.forward(x, torch.ones(1, 1)), x @ weight[0].T, atol=1e-5)
    held = on_tile.state(0.0)
    assert float(held.stored.min()) >= 0
    assert torch.allclose(held.weights, on_tile.target, atol=1e-6)


@pytest.mark.parametrize("accumulate", ["digital", "analog"])
def test_every_conversion_has_noise_of_its_own(accumulate: str) -> None:
    """Digital: sd sigma sqrt(sum 4^p) / (2^7 - 1) of seven planes; analog: sigma, once. 128 000 outputs."""
    on_tile = matrix(torch.zeros(1, 128, 4), bit_serial(8, accumulate=accumulate), {"sigma_out": 0.1})
    y = on_tile.forward(torch.zeros(1000, 4), torch.ones(1, 1))
    planes = math.sqrt(sum(4**p for p in range(7))) / 127
    assert float(y.std()) == pytest.approx(0.1 * (planes if accumulate == "digital" else 1.0), rel=0.01)


def test_read_noise_of_planes() -> None:
    """constant: sigma_w ||x_p|| a plane; at full inputs all planes are on, analog or not."""
    for accumulate in ("digital", "analog"):
        mvm = {"sigma_w": 0.02, "read_noise": "constant"}
        on_tile = matrix(torch.zeros(1, 128, 9), bit_serial(8, accumulate=accumulate), mvm)
        y = on_tile.forward(torch.ones(1000, 9), torch.ones(1, 1))
        expected = 0.02 * 3 * math.sqrt(sum(4**p for p in range(7))) / 127
        assert float(y.std()) == pytest.approx(expected, rel=0.01)


def test_every_slice_has_devices_of_its_own() -> None:
    """State-independent noise of 0.2 uS at 25 uS: sd of the weight is 0.008 sqrt(sum f_k^2), mid-range digits."""
    device = {"model": "state_independent", "slices": 3, "bits_per_slice": 2, "encoding": "offset_column"}
    # 011001 + offset: digits 1, 2, 1 of three, away from the bounds at 0.
    w = (0b011001 - 32) / 31
    weight = torch.full((1, 400, 401), w)
    weight[:, :, 0] = 1.0
    on_tile = matrix(weight, tile(device=device), device={"programming_noise": 1})
    held = on_tile.state(0.0).weights[0, :, 1:]
    factors = [3 * 4 ** (2 - k) / 31 for k in range(3)]
    assert float(held.std()) == pytest.approx(0.008 * math.sqrt(sum(f * f for f in factors)), rel=0.01)
    assert float(held.mean()) == pytest.approx(w, abs=1e-3)


def test_slices_that_drift_alike_are_compensated() -> None:
    """Slices are scaled before they are added: outputs keep their level, digit for digit."""
    device = {"model": "custom", "custom": {"programming": [], "drift_mean": [0.05]}, "slices": 2, "bits_per_slice": 2}
    weight = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(5))
    x = torch.rand(8, 64, generator=torch.Generator().manual_seed(6))
    found = {}
    for kind in ("off", "tile"):
        on_tile = matrix(weight, tile(device=device), device={"drift": 1}, compensation=kind)
        found[kind] = on_tile.forward(x, torch.ones(1, 1), 86_400.0)
        at_once = on_tile.forward(x, torch.ones(1, 1), 0.0)
    assert torch.allclose(found["tile"], at_once, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found["off"], at_once * (86_420 / 20) ** -0.05, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tile.device.flip_columns=true", "is true, but signs are stored differentially; set it to false"),
        ("tile.adc.signed=false", "is false, but differential columns give either sign; set it to true"),
    ],
)
def test_keys_that_contradict_each_other(key: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_chip("analog-fabric", [key])
