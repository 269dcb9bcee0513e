"""Writing until it fits: pulses and errors against the closed forms of a truncated normal."""

import math

import pytest
import torch
from analog_chips import STANDARD_EFFECTS, standard_tile

from aimc_compiler.analog import PieceDevices, Streams, require_built
from aimc_compiler.chip.devices import DEVICES
from aimc_compiler.chip.spec import DeviceNonidealities
from aimc_compiler.errors import NotBuiltError

SAMPLES = 200_000
SIGMA = (0.26348 + 1.9650 * 0.8 - 1.1731 * 0.64) / 25
RULE = {"pulse_time": "1 us", "pulse_energy": "10 pJ"}


def devices(tolerance: float, most: int) -> PieceDevices:
    rule = {"tolerance": tolerance, "max_pulses": most, **RULE}
    return PieceDevices(
        target=torch.full((1, SAMPLES), 0.8),
        streams=Streams(seed=4, chip=0, piece="verify"),
        effects=DeviceNonidealities.model_validate({"write_verify": rule}),
        figures=DEVICES["pcm"].figures,
    )


@pytest.mark.parametrize("share", [0.5, 1.0, 2.0])
def test_pulses_are_geometric_and_errors_a_truncated_normal(share: float) -> None:
    """With p = erf(a / sqrt 2) accepted a pulse: mean 1 / p; sd sigma sqrt(1 - 2 a phi(a) / p)."""
    made = devices(share * SIGMA, 100)
    accepted = math.erf(share / math.sqrt(2))
    density = math.exp(-share * share / 2) / math.sqrt(2 * math.pi)
    error = made.conductances(None)[0] - 0.8
    assert float(error.abs().max()) <= share * SIGMA * (1 + 1e-4)
    assert float(error.std()) == pytest.approx(SIGMA * math.sqrt(1 - 2 * share * density / accepted), rel=0.01)
    pulses = made.pulses()[0, 0].double()
    assert float(pulses.mean()) == pytest.approx(1 / accepted, rel=0.01)
    assert float((pulses == 2).double().mean()) == pytest.approx(accepted * (1 - accepted), abs=0.005)


def test_after_the_last_pulse_a_device_stays_where_it_is() -> None:
    made = devices(0.1 * SIGMA, 3)
    missed = (made.conductances(None)[0] - 0.8).abs() > 0.1 * SIGMA
    accepted = math.erf(0.1 / math.sqrt(2))
    assert float(missed.double().mean()) == pytest.approx((1 - accepted) ** 3, abs=0.005)
    assert int(made.pulses().max()) == 3


def test_one_pulse_is_programming_once() -> None:
    once = PieceDevices(
        target=torch.full((1, SAMPLES), 0.8),
        streams=Streams(seed=4, chip=0, piece="verify"),
        effects=DeviceNonidealities(),
        figures=DEVICES["pcm"].figures,
    )
    assert torch.equal(devices(0.1, 1).programmed(), once.programmed())
    assert torch.equal(once.pulses(), torch.ones(1, 2, 1, SAMPLES, dtype=torch.int64))


def test_only_devices_with_single_pulses_can_be_verified() -> None:
    rule = DeviceNonidealities.model_validate({"write_verify": {"tolerance": 0.1, "max_pulses": 2, **RULE}})
    nonidealities = STANDARD_EFFECTS.model_copy(update={"device": rule})
    require_built(standard_tile(), nonidealities)
    with pytest.raises(NotBuiltError, match=r"write_verify with device\.model 'reram_wan2022'"):
        require_built(standard_tile(device={"model": "reram_wan2022"}), nonidealities)
