"""The virtual chip: levels against the float network, reproducibility, counts."""

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import all_off, load_chip, only, override
from aimc_compiler.errors import AimcError, CalibrationError, DataError, NotBuiltError
from aimc_compiler.executor import run_mapping

DAY_S, YEAR_S = 86_400.0, 31_536_000.0


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 10)
    ).eval()


def inputs(count: int = 6, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    chip = aimc.load_chip("analog-fabric", overrides=("tile.rows=48", "tile.columns=16"))
    return aimc.compile(small_network(), chip, (inputs(1),), calibration=[inputs(64, seed=2)])


def test_same_seed_same_bytes(compiled: aimc.CompiledModel) -> None:
    first = compiled.deploy(seed=3)(inputs(), time_s=DAY_S)
    again = compiled.deploy(seed=3)(inputs(), time_s=DAY_S)
    assert torch.equal(first, again)


def test_another_seed_and_another_index_are_other_chips(compiled: aimc.CompiledModel) -> None:
    states = [
        compiled.deploy(seed=seed, chip_index=index).conductances("4", DAY_S)
        for seed, index in ((3, 0), (4, 0), (3, 1))
    ]
    assert not torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert not torch.equal(states[1], states[2])


def test_two_reads_at_one_time_differ_in_read_noise_only(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy(seed=0)
    state = device.conductances("4", DAY_S).clone()
    first = device(inputs(), time_s=DAY_S)
    second = device(inputs(), time_s=DAY_S)
    assert not torch.equal(first, second)
    assert torch.equal(state, device.conductances("4", DAY_S))
    quiet = compiled.with_chip(
        override(compiled.chip, {"nonidealities.mvm.sigma_out": 0, "nonidealities.mvm.sigma_w": 0})
    ).deploy(seed=0)
    assert torch.equal(quiet(inputs(), time_s=DAY_S), quiet(inputs(), time_s=DAY_S))


def test_the_order_of_times_does_not_matter(compiled: aimc.CompiledModel) -> None:
    forwards, backwards = compiled.deploy(seed=0), compiled.deploy(seed=0)
    early = forwards.conductances("0", 1.0)
    late = forwards.conductances("0", YEAR_S)
    assert torch.equal(backwards.conductances("0", YEAR_S), late)
    assert torch.equal(backwards.conductances("0", 1.0), early)


def test_samples_do_not_depend_on_how_they_are_batched(compiled: aimc.CompiledModel) -> None:
    whole = compiled.deploy(seed=0)(inputs(), time_s=DAY_S)
    device = compiled.deploy(seed=0)
    parts = torch.cat([device(part, time_s=DAY_S) for part in (inputs()[:1], inputs()[1:4], inputs()[4:])])
    # fp32 products may round differently by batch size and then move a converter code, no more than that
    step = 2 * 10 / 254 * float(compiled.deploy().conductances("4", 0.0).abs().max()) * 40
    assert (whole - parts).abs().max() < step
    assert (whole - parts).abs().median() < 1e-5


def test_rewind_numbers_samples_from_zero(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy(seed=0)
    first = device(inputs(), time_s=1.0)
    assert device.samples == 6
    device.rewind()
    assert torch.equal(device(inputs(), time_s=1.0), first)


def test_recalibration_time_sets_the_compensation(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy(seed=0)
    fresh = device.compensation("4", YEAR_S).mean()
    device.recalibrate(1.0)
    stale = device.compensation("4", YEAR_S).mean()
    assert stale < 1.1 < fresh
    device.recalibrate(None)
    assert device.compensation("4", YEAR_S).mean() == fresh


def test_run_counts_what_the_program_counts(compiled: aimc.CompiledModel) -> None:
    result = compiled.deploy(seed=0).run(inputs(), time_s=1.0)
    closed_form = sum(op.windows * len(compiled.mapping.pieces_of(op.matrix)) for op in compiled.workload.analog_ops)
    assert result.counts.samples == 6
    assert result.counts.mvms == 6 * closed_form
    assert result.timing.counts.mvms == closed_form
    assert result.energy_j == pytest.approx(6 * result.timing.energy_j)


def test_integer_weights_and_inputs_are_exact_on_the_ideal_chip() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 40, 3, bias=False), nn.Flatten(), nn.Linear(40 * 36, 30)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape))
    x = torch.randint(-3, 4, (5, 3, 8, 8)).float()
    chip = aimc.load_chip("ideal", overrides=("tile.rows=64", "tile.columns=16"))
    compiled = aimc.compile(model, chip, (x[:1],))
    expected = model.double()(x.double())
    assert expected.abs().max() < 2**24
    assert torch.equal(compiled.deploy()(x).double(), expected)
    assert torch.equal(run_mapping(compiled.graph, compiled.workload, compiled.mapping, x).double(), expected)


def test_all_effects_off_equals_ideal(compiled: aimc.CompiledModel) -> None:
    off = compiled.with_chip(all_off(compiled.chip)).deploy()(inputs(), time_s=YEAR_S)
    expected = compiled.float_outputs(inputs())
    assert (off - expected).norm() / expected.norm() < 1e-6


@pytest.mark.parametrize(
    "effect",
    ["dac_quantisation", "ir_drop", "read_noise", "output_noise", "adc_quantisation", "programming_noise", "drift"],
)
def test_each_effect_alone_changes_the_outputs(compiled: aimc.CompiledModel, effect: str) -> None:
    alone = compiled.with_chip(only(compiled.chip, [effect])).deploy()(inputs(), time_s=DAY_S)
    expected = compiled.float_outputs(inputs())
    error = (alone - expected).norm() / expected.norm()
    assert 1e-6 < error < 0.5


def test_without_ranges_running_says_how_to_calibrate() -> None:
    compiled = aimc.compile(small_network(), "analog-fabric", (inputs(1),))
    assert compiled.timing.latency_s > 0
    with pytest.raises(CalibrationError, match=r"no input ranges.*aimc calibrate net.aimc --data DATA"):
        compiled.deploy()


@pytest.mark.parametrize("name", ["hermes", "ibm-34-tile", "neurram"])
def test_chips_of_the_literature_run(name: str) -> None:
    compiled = aimc.compile(small_network(), name, (inputs(1),), calibration=[inputs(64)])
    outputs = compiled.deploy()(inputs(), time_s=DAY_S)
    expected = compiled.float_outputs(inputs())
    assert 0.01 < (outputs - expected).norm() / expected.norm() < 0.5


def test_isaac_loses_almost_nothing() -> None:
    """16-bit weights and inputs, and converters that resolve every sum (Shafiee et al., ISCA 2016)."""
    compiled = aimc.compile(small_network(), "isaac", (inputs(1),), calibration=[4 * inputs(64)])
    run = compiled.deploy().run(inputs())
    expected = compiled.float_outputs(inputs())
    assert (run.outputs - expected).norm() / expected.norm() < 2e-4
    # 16 planes of 8 slices of every column, as the program says; a device whose counts differed would have raised.
    pieces = compiled.mapping.pieces
    assert run.timing.counts.adc_conversions % (16 * 8) == 0
    assert run.timing.counts.adc_conversions >= 16 * 8 * sum(piece.columns for piece in pieces)


def test_conversions_are_counted_as_they_are_made() -> None:
    made = {}
    for keys in ("", "tile.dac.accumulate=digital", "nonidealities.mvm.passes=digital"):
        chip = load_chip("neurram", [keys] if keys else [])
        compiled = aimc.compile(small_network(), chip, (inputs(1),), calibration=[inputs(64)])
        made[keys] = compiled.deploy().run(inputs()).timing.counts.adc_conversions
    assert made["tile.dac.accumulate=digital"] == 5 * made[""]  # five magnitude planes of 6-bit inputs
    assert made["nonidealities.mvm.passes=digital"] == 2 * made[""]


def test_tied_weights_share_cells_and_draw_their_own_noise() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) - self.layer(x)

    torch.manual_seed(0)
    x = torch.rand(64, 12)
    compiled = aimc.compile(Tied().eval(), "analog-fabric", (x[:1],), calibration=[x])
    assert compiled.utilization.tiles_used == 1
    outputs = compiled.deploy()(x, time_s=1.0)
    assert outputs.std() > 0.01  # equal noise in both uses would cancel to zero


@pytest.mark.parametrize("batch_dim", [0, 1])
def test_sequences_with_the_batch_first_or_second(batch_dim: int) -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 4, 12)
    example = x[:1] if batch_dim == 0 else x[:, :1]
    model = nn.Linear(12, 6).eval()
    compiled = aimc.compile(model, "analog-fabric", (example,), calibration=[x], batch_dim=batch_dim)
    device = compiled.deploy()
    whole = device(x, time_s=1.0)
    device.rewind()
    parts = [device(part, time_s=1.0) for part in x.split(1, dim=batch_dim)]
    assert (whole - torch.cat(parts, dim=batch_dim)).abs().max() < 1e-5
    expected = model(x)
    assert (whole - expected).norm() / expected.norm() < 0.5


@pytest.mark.parametrize("time_s", [-1.0, float("nan"), float("inf"), "1 h", None])
def test_times_that_are_none(compiled: aimc.CompiledModel, time_s: object) -> None:
    device = compiled.deploy(seed=0)
    with pytest.raises(DataError, match=r"a chip cannot be run at time_s=.*: give seconds after programming"):
        device(inputs(1), time_s=time_s)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="cannot be run at"):
        device.conductances("4", time_s)  # type: ignore[arg-type]
    if time_s is not None:
        with pytest.raises(DataError, match="a chip cannot be recalibrated at"):
            device.recalibrate(time_s)  # type: ignore[arg-type]


def test_a_chip_is_not_run_before_its_recalibration(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy(seed=0)
    device.recalibrate(DAY_S)
    with pytest.raises(DataError, match=r"recalibrated at 1 day, so it cannot be run at 1 h: give a later time_s"):
        device(inputs(1), time_s=3600.0)
    assert device.samples == 0
    device.recalibrate(None)
    device(inputs(1), time_s=3600.0)


def test_an_unknown_operation_is_named(compiled: aimc.CompiledModel) -> None:
    with pytest.raises(DataError, match=r"no analog operation is called 'conv1': there are 0, 4"):
        compiled.deploy(seed=0).conductances("conv1", 1.0)


def test_an_input_without_a_batch_is_refused_by_name() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, table: Tensor) -> Tensor:
            return self.query(x) @ self.key(table).T

    x, table = torch.rand(1, 4), torch.rand(5, 4)
    model = Shared().eval()
    compiled = aimc.compile(model, "ideal", (x, table), batch_dim=(0, None))
    with pytest.raises(NotBuiltError, match=r"the input of 'key' has no batch dimension"):
        compiled.deploy()
    digital = aimc.compile(model, "ideal", (x, table), batch_dim=(0, None), rules={"key": {"analog": False}})
    batch = torch.rand(3, 4)
    assert torch.allclose(digital.deploy()(batch, table), model(batch, table), atol=1e-6)


def test_programming_by_write_verify_is_counted() -> None:
    rule = "{tolerance: 1e-9, max_pulses: 3, pulse_time: 1 us, pulse_energy: 10 pJ}"
    chip = load_chip("analog-fabric", [f"nonidealities.device.write_verify={rule}"])
    device = aimc.compile(small_network(), chip, (inputs(1),), calibration=[inputs(8)]).deploy()
    cost = device.programming()
    # 8 x 27 and 10 x 128 weights of two devices, all but a few refused twice; the second matrix has 128 rows. A device
    # of target 0 that is clipped there hits it exactly.
    devices = 2 * (8 * 27 + 10 * 128)
    assert 2 * devices < cost.pulses <= 3 * devices
    assert cost.energy_j == pytest.approx(cost.pulses * 10e-12)
    assert cost.time_s == pytest.approx(3 * 128e-6)
    with pytest.raises(AimcError, match=r"written once.*give nonidealities\.device\.write_verify"):
        aimc.compile(small_network(), "analog-fabric", (inputs(1),), calibration=[inputs(8)]).deploy().programming()


def test_running_inside_inference_mode_changes_nothing(compiled: aimc.CompiledModel) -> None:
    expected = compiled.deploy(seed=3)(inputs(), time_s=DAY_S)
    device = compiled.deploy(seed=3)
    with torch.inference_mode():
        found = device(inputs(), time_s=DAY_S)
    device.rewind()
    assert torch.equal(found, expected)
    assert torch.equal(device(inputs(), time_s=DAY_S), expected)
