"""What a network is sensitive to: one linear layer whose errors are known, a small task, and bad input."""

import math

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import load_chip, only, override
from aimc_compiler.errors import DataError
from aimc_compiler.study import Sensitivity
from aimc_compiler.study.sensitivity_results import EffectSensitivity

Batches = list[tuple[Tensor, Tensor]]
Task = tuple[aimc.CompiledModel, Batches]


def minus_squared_error(outputs: Tensor, targets: Tensor) -> float:
    return -float((outputs - targets).double().square().mean())


@pytest.fixture(scope="module")
def line() -> tuple[aimc.CompiledModel, Batches, Tensor]:
    """y = W x on a chip with output noise alone, its targets the float outputs; the scales r s_i of its outputs.

    The error of output i is sigma_out r s_i xi, whatever the input: the metric is -sigma_out^2 mean (r s_i)^2.
    """
    torch.manual_seed(0)
    model = nn.Linear(32, 8, bias=False).eval()
    x = torch.rand(500, 32) * 2 - 1
    chip = only(load_chip("analog-fabric"), ["output_noise"])
    compiled = aimc.compile(model, chip, (x[:1],), calibration=[x], range_method="max")
    with torch.no_grad():
        data = [(part, model(part)) for part in x.split(250)]
    assert compiled.ranges is not None
    scales = model.weight.detach().abs().amax(1) * compiled.ranges.rows[0].range
    return compiled, data, scales


@pytest.fixture(scope="module")
def found(line: tuple[aimc.CompiledModel, Batches, Tensor]) -> Sensitivity:
    compiled, data, scales = line
    return aimc.sensitivity(
        compiled,
        data,
        minus_squared_error,
        chance=-float(scales.square().mean()),  # so that A* is 1 - sigma_out^2
        n_chips=5,
        parts=["effects", "layers", "columns"],
        effects=["output_noise"],
        loss=lambda outputs, targets: (outputs * torch.arange(1.0, 9.0)).sum(),
    )


def row(found: Sensitivity, name: str = "output_noise") -> EffectSensitivity:
    return next(each for each in found.effects if each.name == name)


def test_a_star_and_gain_of_a_linear_layer(found: Sensitivity) -> None:
    gain = row(found).without
    assert found.a_star.mean == pytest.approx(1 - 0.04**2, abs=5e-5)
    assert gain is not None
    assert gain.mean == pytest.approx(0.04**2, rel=0.03)
    assert gain.low < gain.mean < gain.high  # type: ignore[operator]


def test_a_star_against_another_baseline(line: tuple[aimc.CompiledModel, Batches, Tensor], found: Sensitivity) -> None:
    """A network that is a tenth below the baseline has A* of 90 % before noise acts, and what is alone adds to that."""
    compiled, data, scales = line
    chance = -float(scales.square().mean())
    other = aimc.sensitivity(
        compiled, data, minus_squared_error, chance, baseline=-chance / 9, n_chips=5, parts=["layers"]
    )
    assert other.float_metric == found.float_metric == 0
    assert other.a_star.mean == pytest.approx(0.9 * found.a_star.mean)
    assert other.layers[0].gain.mean == pytest.approx(0.9 * found.layers[0].gain.mean)
    assert other.layers[0].alone.mean == pytest.approx(0.9 * found.layers[0].alone.mean)
    with pytest.raises(DataError, match="the baseline reaches"):
        aimc.sensitivity(compiled, data, minus_squared_error, chance, baseline=chance)


def test_the_tolerance_of_a_linear_layer(found: Sensitivity) -> None:
    """A* is 99 % at sigma_out = 0.1, which is 2.5 times the chip's."""
    tolerance = row(found).tolerance
    assert tolerance is not None
    assert tolerance.threshold == found.threshold == 0.99
    assert tolerance.level == pytest.approx(2.5, rel=0.02)
    assert tolerance.low < 2.52  # type: ignore[operator]
    assert tolerance.high > 2.48  # type: ignore[operator]
    assert tolerance.high / tolerance.low < 1.05  # type: ignore[operator]


def test_equal_error_of_a_linear_layer(found: Sensitivity) -> None:
    """Alone, the MVM error is proportional to the noise."""
    equal = row(found).equal
    assert equal is not None
    assert found.mvm_error is not None
    assert found.target_error == 0.2
    assert equal.mvm_error == pytest.approx(0.2, rel=2e-3)
    assert equal.factor == pytest.approx(0.2 / found.mvm_error, rel=5e-3)
    assert equal.value == pytest.approx(0.04 * equal.factor)
    assert equal.loss.mean == pytest.approx(equal.value**2 - 0.04**2, rel=0.03)


def test_the_only_layer_costs_everything(found: Sensitivity) -> None:
    (layer,) = found.layers
    assert layer.parameters == 256
    assert layer.gain.mean == pytest.approx(1 - found.a_star.mean, rel=1e-6)
    assert layer.alone.mean == pytest.approx(1 - found.a_star.mean, rel=1e-6)
    (point,) = found.layers_protected
    assert point.parameters == 1.0
    assert point.a_star.mean == pytest.approx(1.0)


def test_columns_of_a_linear_layer(line: tuple[aimc.CompiledModel, Batches, Tensor], found: Sensitivity) -> None:
    """The gradient of output i is i + 1 and its error has the deviation sigma_out r s_i."""
    expected = (torch.arange(1.0, 9.0) * line[2]).square()
    expected = expected / expected.sum()
    assert found.columns is not None
    shares = {each.output: each.share for each in found.columns.top}
    assert sum(shares.values()) == pytest.approx(1.0)
    for output, share in shares.items():
        assert share == pytest.approx(float(expected[output]), rel=0.1)
    half = found.columns.protected[-1]
    kept = expected.argsort(descending=True)[4:]
    left = float(line[2][kept].square().sum() / line[2].square().sum())
    assert (half.count, half.parameters) == (4, 0.5)
    assert 1 - half.a_star.mean == pytest.approx(0.04**2 * left, rel=0.1)


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 5)).eval()
    x = torch.randn(120, 30)
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), calibration=x.split(60))
    return compiled, [(part, model(part).argmax(1)) for part in x.split(60)]


def test_a_chip_below_the_threshold_is_held_against_itself(task: Task) -> None:
    compiled, data = task
    found = aimc.sensitivity(compiled, data, n_chips=3, parts=["effects"], effects=["output_noise", "range_clip"])
    assert found.a_star.mean < found.asked_threshold == 0.99
    assert found.threshold == pytest.approx(found.a_star.mean - 0.01)
    tolerance = row(found).tolerance
    assert tolerance is not None
    assert 1 < tolerance.level < math.inf
    assert (1.0, pytest.approx(found.a_star.mean)) in tolerance.measured
    assert row(found, "range_clip").notes == ("on or off: it has no scale",)
    assert row(found, "range_clip").tolerance is None


def test_bits_off_effects_and_what_a_chip_cannot_have(task: Task) -> None:
    compiled, data = task
    names = ["adc_quantisation", "stuck_at_g_max", "output_asymmetry", "device_noise"]
    found = aimc.sensitivity(compiled, data, n_chips=2, parts=["effects"], effects=names)
    bits, stuck, asymmetry, noise = found.effects
    assert bits.kind == "bits"
    assert bits.figure == 8
    assert bits.equal is not None
    assert 2 < bits.equal.value < 8
    assert bits.equal.mvm_error == pytest.approx(0.2)
    assert bits.tolerance is not None
    assert bits.tolerance.level == int(bits.tolerance.level) <= 8
    assert stuck.kind == "value"
    assert stuck.without is None
    assert stuck.equal is not None
    assert 1e-5 < stuck.equal.value < 0.01
    assert stuck.equal.factor is None
    assert asymmetry.equal is not None
    assert 0 < asymmetry.equal.value <= 1
    assert noise.effects == ("programming_noise", "accumulated_read_noise")
    assert noise.equal is not None
    assert noise.equal.factor == noise.equal.value > 1


def test_an_effect_whose_error_jumps_or_stays(task: Task) -> None:
    """A tile is dead or it is not; column scales of few bits cost outputs nothing."""
    compiled, data = task
    names = ["dead_tiles", "column_scale_precision"]
    found = aimc.sensitivity(compiled, data, n_chips=2, parts=["effects"], effects=names)
    dead, scales = found.effects
    assert dead.equal is scales.equal is None
    assert dead.notes[0].startswith("its MVM error jumps from 15.2 to 100.0 % at 0.")
    assert scales.notes[0].startswith("its MVM error stays below: 15.2 % at 2 bits")


def test_sweeps(task: Task) -> None:
    compiled, data = task
    sweeps = {"time": (1.0, 3.15e7), "g_max": (0.5, 1.0), "all_noise": (0.0, 1.0, 4.0), "stuck_random": (0.0, 2.0)}
    found = aimc.sensitivity(compiled, data, n_chips=2, parts=["sweeps"], sweeps=sweeps)
    time, g_max, noise, stuck = found.sweeps
    assert time.own == 86_400.0
    own = found.a_star
    assert next(point.a_star for point in g_max.points if point.value == 1.0) == own
    assert next(point.a_star for point in noise.points if point.value == 1.0) == own
    assert noise.points[0].a_star.mean > noise.points[2].a_star.mean  # type: ignore[union-attr]
    assert stuck.points[0].a_star == own
    assert stuck.points[1].a_star is None
    assert "stuck_random" in stuck.points[1].note
    assert found.effects == found.layers == ()


def test_usual_sweeps_say_what_is_left_out(task: Task) -> None:
    compiled, data = task
    quiet = compiled.with_chip(only(compiled.chip, ["adc_quantisation"]))
    found = aimc.sensitivity(quiet, data[:1], n_chips=1, parts=["sweeps"])
    assert [each.name for each in found.sweeps][:3] == ["dac_quantisation", "adc_quantisation", "g_max"]
    assert found.notes == (
        "not swept: chip analog-fabric has none of input_noise, read_noise, output_noise, programming_noise, "
        "accumulated_read_noise on, so all_noise scales nothing",
    )
    assert found.a_star.low is None


def test_the_same_seed_gives_the_same_result_whatever_else_is_studied(task: Task) -> None:
    compiled, data = task

    def study(parts: list[str], seed: int = 3) -> Sensitivity:
        return aimc.sensitivity(compiled, data, n_chips=2, seed=seed, parts=parts, effects=["read_noise"])

    both, again = study(["effects", "layers"]), study(["layers"])
    assert both.layers == again.layers
    assert both.a_star == again.a_star != study(["layers"], seed=4).a_star
    regrouped = [(torch.cat([x for x, _ in data]), torch.cat([y for _, y in data]))]
    assert aimc.sensitivity(compiled, regrouped, n_chips=2, seed=3, parts=["layers"]).layers == both.layers


def test_columns_need_a_loss(task: Task) -> None:
    compiled, data = task

    def right(outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.argmax(1) == targets).float().mean())

    found = aimc.sensitivity(compiled, data, right, chance=0.2, n_chips=2, parts=["columns"])
    assert found.columns is None
    assert found.notes == ("columns are not ranked: metric 'right' has no gradient; give loss=...",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": []}, "the data is empty"),
        ({"parts": ["layer"]}, r"parts is \['layer'\]: give some of effects, layers, columns, sweeps"),
        ({"parts": "layers"}, r"parts is 'layers': .* in a list"),
        ({"n_chips": 0}, "n_chips is 0: at least one chip"),
        ({"effects": ["outputnoise"]}, r"no effect is called 'outputnoise'; did you mean 'output_noise'\?"),
        ({"effects": "drift"}, "effects is 'drift': give a list of names"),
        ({"mvm_error": 20.0}, "mvm_error is 20: give the share"),
        ({"mvm_error": 0.01}, r"mvm_error is 0.01, but a tile of analog-fabric has 0\.1\d+ by itself"),
        ({"threshold": 99.0}, "threshold is 99: give the A"),
        ({"time_s": -1.0}, "seconds after programming"),
        ({"chance": 1.5}, "reaches 1 and chance 1.5, so there is no A"),
        ({"metric": lambda outputs, targets: 1.0}, r"says nothing of chance, .* give chance=..."),
        ({"parts": ["sweeps"], "sweeps": {"range_clip": (1.0,)}}, "range_clip is on or off: it has no scale to sweep"),
        (
            {"parts": ["columns"], "loss": lambda outputs, targets: 1.0},
            r"the loss of batch 0 gives no gradient: .*float",
        ),
    ],
)
def test_bad_input(task: Task, change: dict, message: str) -> None:  # type: ignore[type-arg]
    compiled, data = task
    arguments = {"data": data, "n_chips": 1, "effects": ["read_noise"], "parts": ["effects"]} | change
    with pytest.raises(DataError, match=message):
        aimc.sensitivity(compiled, **arguments)


def test_g_max_may_change_without_compiling_again(task: Task) -> None:
    compiled, _ = task
    changed = compiled.with_chip(override(compiled.chip, {"tile.device.g_max": "5 uS"}))
    assert changed.chip.tile_types["tile"].device.g_max_s == pytest.approx(5e-6)


def test_planes_of_bit_serial_inputs_are_part_of_the_program(task: Task) -> None:
    _, data = task
    torch.manual_seed(0)
    model = nn.Linear(30, 5).eval()
    compiled = aimc.compile(model, "isaac", (data[0][0][:1],), calibration=[data[0][0]])
    batches = [(x, model(x).argmax(1)) for x, _ in data]
    found = aimc.sensitivity(compiled, batches, n_chips=1, parts=["effects"], effects=["dac_quantisation"])
    notes = "; ".join(found.effects[0].notes)
    assert "differs from isaac, for which this was compiled, in output conversions a column of tile (" in notes


def test_a_network_without_tiles_is_sensitive_to_nothing() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 3).eval(), torch.randn(20, 6)
    compiled = aimc.compile(model, "analog-fabric", (x[:1],), rules=[("*", {"analog": False})])
    found = aimc.sensitivity(compiled, [(x, model(x).argmax(1))], n_chips=2, parts=["effects", "layers", "columns"])
    assert found.a_star.mean == 1.0
    assert (found.effects, found.layers, found.columns) == ((), (), None)
    assert found.notes == ("columns are not ranked: no operation is on tiles",)
