"""The preset of aihwkit's standard settings; with aihwkit at hand, the same network on the same chip in both.

aihwkit 1.2.0, Rasch et al., Nat. Commun. 14, 5282 (2023).
"""

import statistics

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.chip import figures, load_chip
from aimc_compiler.errors import CalibrationError, DataError, MissingDependencyError, SpecError
from aimc_compiler.study import interchange
from aimc_compiler.study.interchange import as_aihwkit, rpu_config_of, unusable_because
from aimc_compiler.zoo.fashion import fashion_images, fashion_resnet

TIMES_S = (1.0, 3600.0, 86_400.0, 31_536_000.0)
NOISE_FREE = (
    *(f"nonidealities.mvm.{key}=0" for key in ("sigma_out", "sigma_w")),
    *(f"nonidealities.device.{key}=0" for key in ("programming_noise", "drift", "accumulated_read_noise")),
)
WHY_NOT = unusable_because()
needs_aihwkit = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
#: aihwkit and the packages it imports warn of what they will change themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


def compiled_on(chip: aimc.ChipSpec) -> aimc.CompiledModel:
    images, _ = fashion_images("calibration")
    return aimc.compile(fashion_resnet(), chip, (images[:1],), calibration=images.split(128))


def test_the_preset_gives_the_values_of_the_default_chip() -> None:
    """aihwkit's preset is the standard model of the same paper: the figures agree, their sources differ."""
    preset, default = load_chip("aihwkit"), load_chip()
    assert [(f.path, f.value) for f in figures(preset)] == [(f.path, f.value) for f in figures(default)]
    sources = {f.path: f.provenance.source for f in figures(preset) if f.provenance is not None}
    for path in ("tile.rows", "tile.adc.out_bound", "tile.device.g_max", "nonidealities.mvm.sigma_w"):
        assert sources[path] == "aihwkit"


def test_a_chip_beyond_aihwkit_is_refused_by_figure() -> None:
    wanted = r"chip analog-fabric has figures without a counterpart in aihwkit: .*tile\.adc\.inl \(0\.5\), "
    wanted += r"nonidealities\.defects\.stuck_at_zero \(0\.01\)\. Set them as in the built-in chip aihwkit"
    changed = ["tile.adc.inl=0.5", "nonidealities.defects.stuck_at_zero=0.01", "nonidealities.mvm.sigma_out=0.1"]
    with pytest.raises(SpecError, match=wanted):
        rpu_config_of(load_chip("analog-fabric", changed))
    with pytest.raises(SpecError, match=r"tile\.device\.model \(pcm_hermes_two\)"):
        rpu_config_of(load_chip("hermes"))
    with pytest.raises(SpecError, match=r"tile\.adc\.out_bound \(off\)"):
        rpu_config_of(load_chip("aihwkit", ["tile.adc.out_bound=off", "tile.adc.bits=off"]))
    with pytest.raises(SpecError, match=r"tile\.adc\.out_bound \(calibrated\)"):
        rpu_config_of(load_chip("aihwkit", ["tile.adc.out_bound=calibrated"]))


def test_without_aihwkit_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interchange, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"aihwkit is not installed\. Install .*pip install aihwkit"):
        rpu_config_of(load_chip("aihwkit"))


def test_networks_without_a_counterpart_are_refused() -> None:
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)).eval()
    x = torch.ones(1, 4, 5, 5)
    bare = aimc.compile(grouped, "aihwkit", (x,))
    with pytest.raises(CalibrationError, match=r"no input ranges: call compiled\.calibrate"):
        as_aihwkit(grouped, bare)
    with pytest.raises(DataError, match=r"'0' has no counterpart in aihwkit, which converts linear and convolution"):
        as_aihwkit(grouped, bare.calibrate([x]))
    several = aimc.compile(grouped, "aihwkit", entries={"small": (x,), "large": (torch.ones(1, 4, 9, 9),)})
    with pytest.raises(DataError, match=r"several entries \(small, large\), and a network in aihwkit has one"):
        as_aihwkit(grouped, several)


@needs_aihwkit
def test_the_config_is_the_toolkits_preset() -> None:
    from aihwkit.simulator.presets import StandardHWATrainingPreset

    ours, theirs = rpu_config_of(load_chip("aihwkit")), StandardHWATrainingPreset()
    assert (ours.mapping.max_output_size, theirs.mapping.max_output_size) == (512, 0)
    theirs.mapping.max_output_size = 512
    assert str(ours) == str(theirs)
    assert vars(ours.forward) == vars(theirs.forward)
    assert ours.noise_model == theirs.noise_model
    assert type(ours.drift_compensation) is type(theirs.drift_compensation)


@needs_aihwkit
def test_figures_arrive_in_the_config() -> None:
    chip = load_chip(
        "aihwkit",
        [
            "tile.rows=128",
            "tile.dac.bits=6",
            "tile.adc.bits=off",
            "nonidealities.mvm.read_noise=constant",
            "nonidealities.mvm.r_wire=0.7 ohm",
            "nonidealities.device.drift=2",
            "nonidealities.drift_compensation=off",
        ],
    )
    config = rpu_config_of(chip)
    assert config.mapping.max_input_size == 128
    assert (config.forward.inp_res, config.forward.out_res) == (62, -1)
    assert config.forward.w_noise_type.value == "AdditiveConstant"
    assert config.forward.ir_drop_g_ratio == pytest.approx(1 / 0.7 / 5e-6)
    assert (config.noise_model.drift_scale, config.drift_compensation) == (2, None)


@needs_aihwkit
def test_without_noise_the_outputs_are_those_of_aihwkit() -> None:
    """Ten layers with column scales, input ranges, converters, IR drop, two row blocks, digital batch norms."""
    images, _ = fashion_images("test")
    compiled = compiled_on(load_chip("aihwkit", NOISE_FREE))
    twin = as_aihwkit(fashion_resnet(), compiled)
    twin.program_analog_weights()
    twin.drift_analog_weights(3600.0)
    with torch.no_grad():
        theirs, float_outputs = twin(images[:50]), fashion_resnet()(images[:50])
    ours = compiled.deploy(precision="exact")(images[:50], time_s=3600.0)
    assert (float_outputs - theirs).norm() > 0.05 * theirs.norm()
    # Where a sum lies between two codes, the order of its additions decides: that shows in few images.
    assert ((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).median() < 1e-5


@needs_aihwkit
def test_accuracy_over_a_year_is_that_of_aihwkit() -> None:
    """Means over chips, at the four times: apart by less than 4 standard errors of their difference and 0.5 points."""
    images, labels = fashion_images("test")
    data = list(zip(images[:200].split(100), labels[:200].split(100), strict=True))
    compiled = compiled_on(load_chip("aihwkit"))
    ours = aimc.evaluate(compiled, data, times_s=TIMES_S, n_chips=25)
    theirs = accuracies(compiled, data, chips=5)
    for row in ours.times:
        found = theirs[row.time_s]
        assert row.standard_error is not None
        error = (row.standard_error**2 + statistics.variance(found) / len(found)) ** 0.5
        difference = statistics.fmean(found) - row.mean
        assert abs(difference) < 4 * error + 0.005, f"at {row.time_s} s: {difference:+.4f}, standard error {error:.4f}"


def accuracies(
    compiled: aimc.CompiledModel, data: list[tuple[torch.Tensor, torch.Tensor]], chips: int
) -> dict[float, list[float]]:
    """By time, of ``chips`` programmed in aihwkit."""
    torch.manual_seed(0)
    found: dict[float, list[float]] = {time_s: [] for time_s in TIMES_S}
    twin = as_aihwkit(fashion_resnet(), compiled)
    for _ in range(chips):
        twin.program_analog_weights()
        for time_s, values in found.items():
            twin.drift_analog_weights(time_s)
            with torch.no_grad():
                right = [float((twin(x).argmax(1) == y).float().mean()) for x, y in data]
            values.append(statistics.fmean(right))
    return found
