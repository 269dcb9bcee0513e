"""Device models by name: figures against closed forms, models from outside, several pairs a weight."""

import math

import pytest
import torch
from analog_chips import effects, pieces, standard_tile, tile
from torch import Tensor

from aimc_compiler.analog import Contraction, MatrixOnTiles, PieceDevices, Streams
from aimc_compiler.analog.models import STATISTICS, deviation_sd_us, register_statistics
from aimc_compiler.chip import DEVICES, load_chip, register_device
from aimc_compiler.chip.devices import DeviationFigures, Device, device_figures
from aimc_compiler.chip.stored import Device as DeviceSpec
from aimc_compiler.chip.stored import DeviceNonidealities
from aimc_compiler.errors import AimcError, SpecError
from aimc_compiler.records import record

SAMPLES = 200_000
DAY_S = 86_400.0


def spec_of(model: str, **keys: object) -> DeviceSpec:
    return DeviceSpec.model_validate({"model": model, "g_max": "25 uS", **keys})


def devices(target: float, device: DeviceSpec, pairs: tuple[float, ...] = (1.0,), **factors: object) -> PieceDevices:
    return PieceDevices(
        target=torch.full((1, SAMPLES), target),
        streams=Streams(seed=2, chip=0, piece="models"),
        effects=DeviceNonidealities.model_validate(factors),
        figures=device_figures(device),
        significance=pairs,
    )


@pytest.mark.parametrize(
    ("time_s", "sd_us"),
    [
        # The polynomials of Wan et al., Nature 608, 504 (2022), at r = 0.5, by hand; between fits linear in ln t.
        (0.0, 2.02280),
        (1.0, 2.02280),
        (DAY_S, 3.92663),
        (2 * DAY_S, 3.92875),
        (math.sqrt(DAY_S), (2.02280 + 3.92663) / 2),
    ],
)
def test_resistive_memory_deviates_as_measured(time_s: float, sd_us: float) -> None:
    g = devices(0.5, spec_of("reram_wan2022")).conductances(time_s)[0] * 40
    assert float(g.mean()) == pytest.approx(20, rel=1e-3)
    assert float(g.std()) == pytest.approx(sd_us, rel=0.01)


def test_resistive_memory_deviates_anew_at_each_time() -> None:
    state = devices(0.5, spec_of("reram_wan2022"))
    early, late = state.conductances(1.0)[0], state.conductances(DAY_S)[0]
    assert abs(float(torch.corrcoef(torch.cat([early, late]))[0, 1])) < 0.01
    assert torch.equal(early, state.conductances(1.0)[0])


def test_after_the_last_measurement_only_where_asked() -> None:
    with pytest.raises(
        AimcError, match=r"time 3 days: .* until 2 days; ask for an earlier time, or set tile.device.ext"
    ):
        devices(0.5, spec_of("reram_wan2022")).at(3 * DAY_S)
    held = devices(0.5, spec_of("reram_wan2022", extrapolate="hold")).conductances(30 * DAY_S)[0] * 40
    assert float(held.std()) == pytest.approx(3.92875, rel=0.01)


def test_interpolation_passes_through_every_fit() -> None:
    figures = device_figures(spec_of("reram_wan2022"))
    assert isinstance(figures, DeviationFigures)
    r = torch.linspace(0, 1, 11, dtype=torch.float64)
    for time_s, fit in zip(figures.times_s, figures.deviation_us, strict=True):
        expected = sum(c * r**power for power, c in enumerate(fit))
        assert torch.allclose(deviation_sd_us(r, figures, time_s), torch.as_tensor(expected).clamp(min=0))


def test_state_independent() -> None:
    """0.2 uS of 25 at every target; T/t0 to the power -nu, nu = |0.1 + 0.05 xi|."""
    for target in (0.3, 0.9):
        state = devices(target, spec_of("state_independent"), accumulated_read_noise=0)
        programmed = state.conductances(None)[0]
        assert float(programmed.std()) * 25 == pytest.approx(0.2, rel=0.01)
        exponents = -torch.log(state.conductances(20.0 * (math.e - 1))[0] / programmed)
        # |N(0.1, 0.05)|: the folded normal has mean 0.100849 and sd 0.048265.
        assert float(exponents.mean()) == pytest.approx(0.100849, rel=0.01)
        assert float(exponents.std()) == pytest.approx(0.048265, rel=0.01)


def test_state_independent_keeps_its_microsiemens() -> None:
    wide = devices(0.5, spec_of("state_independent", g_max="50 uS")).conductances(None)[0]
    assert float(wide.std()) * 50 == pytest.approx(0.2, rel=0.01)


def test_custom_polynomials_of_the_spec() -> None:
    keys = {"programming": [0.5, 1.0], "drift_mean": [0.02, 0.04], "drift_sd": [], "read": [0.01], "t0": "1 s"}
    state = devices(0.5, spec_of("custom", custom=keys))
    programmed = state.conductances(None)[0]
    assert float(programmed.std()) * 25 == pytest.approx(1.0, rel=0.01)
    ratio = state.conductances(99.0)[0] / programmed
    assert float(ratio.mean()) == pytest.approx(100**-0.04, rel=1e-3)
    spread = 0.01 * math.sqrt(math.log((100 + 250e-9) / 500e-9)) * 100**-0.04
    assert float(ratio.std()) == pytest.approx(spread, rel=0.01)


@record
class HalvingFigures:
    """A memory that has lost half of its conductance after ``half_life_s``."""

    half_life_s: float


def halving(
    targets: Tensor, normals: object, figures: HalvingFigures, effects: DeviceNonidealities, time_s: float | None
) -> Tensor:
    return targets * 0.5 ** (effects.drift * (time_s or 0.0) / figures.half_life_s)


def test_a_device_from_outside_runs_on_a_chip() -> None:
    register_device("halving", Device(title="halving", source="a test", figures=HalvingFigures(half_life_s=10.0)))
    try:
        with pytest.raises(SpecError, match="a device called 'halving' is registered already"):
            register_device("halving", Device(title="again", source="a test"))
        chip = load_chip("analog-fabric", ["tile.device.model=halving", "nonidealities.drift_compensation=off"])
        assert chip.tile is not None
        weight = torch.tensor([[[1.0, -0.5]]])
        on_tile = MatrixOnTiles(
            weight, Contraction(kind="linear"), pieces(1, (2,), (1,)), chip.tile, chip.nonidealities
        )
        with pytest.raises(
            AimcError, match="figures of type HalvingFigures have no function: call register_statistics"
        ):
            on_tile.state(20.0)
        register_statistics(HalvingFigures, halving)
        assert torch.equal(on_tile.state(20.0).weights, weight / 4)
        with pytest.raises(AimcError, match="have their function already"):
            register_statistics(HalvingFigures, halving)
    finally:
        DEVICES.pop("halving")
        STATISTICS.pop(HalvingFigures, None)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("tile.device.model=pcn", "is 'pcn', which is no device; did you mean 'pcm'"),
        ("tile.device.model=custom", "is custom, without custom; add the section custom"),
        ("tile.device.custom={programming: [1]}", "is pcm, beside custom; remove the section custom"),
        ("tile.device.extrapolate=hold", "is given, but pcm has no fits that end; remove it"),
        ("tile.device.significance=[1, 2]", "has 2 factors for 1 pairs; give one a pair, or leave it out"),
    ],
)
def test_what_a_device_section_must_hold(keys: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_chip("analog-fabric", [keys])


@pytest.mark.parametrize("significance", [(1.0,), (1.0, 1.0), (4.0, 1.0), (1.0, 2.0, 3.0)])
def test_pairs_average_their_errors_by_significance(significance: tuple[float, ...]) -> None:
    """sd of a weight: that of a pair times sqrt(sum f^2) / sum f. At r = 0.5 the zero device adds half a Gaussian."""
    single = devices(0.5, spec_of("pcm")).programmed()
    several = devices(0.5, spec_of("pcm"), significance).programmed()
    share = math.sqrt(sum(f * f for f in significance)) / sum(significance)
    assert float(several.std()) == pytest.approx(share * float(single.std()), rel=0.01)
    assert float(several.mean()) == pytest.approx(float(single.mean()), rel=1e-3)


def test_pairs_of_the_spec_reach_the_tile() -> None:
    weight = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    nonidealities = effects(device={"programming_noise": 1})

    def error(**device: object) -> float:
        made = standard_tile(device=device)
        on_tile = MatrixOnTiles(weight, Contraction(kind="linear"), pieces(1, (64,), (64,)), made, nonidealities)
        return float((on_tile.state(0.0).weights - on_tile.target).std())

    assert error(pairs=4) == pytest.approx(error() / 2, rel=0.05)
    assert error(pairs=2, significance=(3, 1)) == pytest.approx(error() * math.sqrt(10) / 4, rel=0.05)
    assert tile(device={"pairs": 2}).device.significance is None
