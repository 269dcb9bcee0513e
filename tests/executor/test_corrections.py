"""Columns corrected and batch norms recalibrated on an aged chip."""

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import all_off
from aimc_compiler.errors import CalibrationError
from aimc_compiler.zoo.fashion import fashion_images, fashion_resnet

YEAR_S = 31_536_000.0
Data = list[tuple[Tensor, Tensor]]


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 5)
    )
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.momentum = None  # the average of all batches
    model.train()
    for _ in range(30):
        model(torch.rand(32, 3, 6, 6))
    return model.eval()


def inputs(count: int = 64, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def compiled() -> aimc.CompiledModel:
    return aimc.compile(network(), "analog-fabric", (inputs(1),), calibration=[inputs()])


def error(compiled: aimc.CompiledModel, outputs: Tensor, x: Tensor) -> float:
    expected = compiled.float_outputs(x)
    return float((outputs - expected).norm() / expected.norm())


@pytest.mark.parametrize("correct", ["correct_columns", "recalibrate_norms"])
def test_each_wins_on_an_uncompensated_chip_and_can_be_taken_back(compiled: aimc.CompiledModel, correct: str) -> None:
    aged = compiled.with_chip(
        aimc.load_chip("analog-fabric", overrides=("nonidealities.drift_compensation=off",))
    ).deploy()
    x = inputs(seed=5)
    before = aged(x, time_s=YEAR_S)
    getattr(aged, correct)([inputs(seed=2), inputs(seed=3)], YEAR_S)
    after = aged(x, time_s=YEAR_S)
    # Norms mend the first layer alone; the last has none.
    assert error(compiled, after, x) < (0.4 if correct == "correct_columns" else 0.95) * error(compiled, before, x)
    getattr(aged, correct)(None)
    aged.rewind()
    assert torch.equal(aged(x, time_s=YEAR_S), before)


def test_columns_of_an_ideal_chip_stay(compiled: aimc.CompiledModel) -> None:
    ideal = compiled.with_chip(all_off(compiled.chip)).deploy()
    x = inputs(seed=5)
    ideal.correct_columns([inputs(seed=2)])
    assert error(compiled, ideal(x), x) < 1e-5


def test_norms_are_those_that_torch_measures() -> None:
    """On an ideal chip: as a batch norm in training mode averages them over all samples at once."""
    model = network()
    x = inputs(200, seed=7) * 3 + 1
    compiled = aimc.compile(model, "analog-fabric", (inputs(1),), calibration=[inputs()])
    device = compiled.with_chip(all_off(compiled.chip)).deploy()
    device.recalibrate_norms([x])
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.reset_running_stats()
    norm.train()
    with torch.no_grad():
        model(x)
    expected = model.eval()(x[:20])
    torch.testing.assert_close(device(x[:20]), expected, rtol=1e-4, atol=1e-5)


def test_in_several_batches_as_in_one(compiled: aimc.CompiledModel) -> None:
    """The statistics of the first layer, whose inputs do not depend on what was fitted before."""
    found = []
    for cut in (64, 16):
        device = compiled.with_chip(all_off(compiled.chip)).deploy()
        device.recalibrate_norms(inputs(64, seed=2).split(cut))
        found.append(device(inputs(4, seed=5)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_columns_then_norms(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy()
    x = inputs(seed=5)
    device.correct_columns([inputs(seed=2)], YEAR_S)
    device.recalibrate_norms([inputs(seed=2)], YEAR_S)
    both = device(x, time_s=YEAR_S)
    device.recalibrate_norms(None)
    device.rewind()
    columns = device(x, time_s=YEAR_S)
    assert not torch.equal(both, columns)
    assert error(compiled, both, x) < 0.2
    assert error(compiled, columns, x) < 0.2


def test_a_batch_that_does_not_run_changes_nothing(compiled: aimc.CompiledModel) -> None:
    device = compiled.deploy()
    before = device(inputs(), time_s=YEAR_S)
    with pytest.raises(CalibrationError, match=r"batch 1 does not run on the chip.*without labels"):
        device.correct_columns([inputs(seed=2), torch.zeros(3)], YEAR_S)
    for correct in (device.correct_columns, device.recalibrate_norms):
        with pytest.raises(CalibrationError, match="at least one batch"):
            correct([], YEAR_S)
    device.rewind()
    assert torch.equal(device(inputs(), time_s=YEAR_S), before)


def test_nothing_to_recalibrate() -> None:
    x = torch.rand(8, 4)
    device = aimc.compile(nn.Linear(4, 3).eval(), "analog-fabric", (x[:1],), calibration=[x]).deploy()
    with pytest.raises(CalibrationError, match="correct columns instead"):
        device.recalibrate_norms([x])
    normed = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
    device = aimc.compile(normed, "analog-fabric", (x[:1],), calibration=[x]).deploy()
    with pytest.raises(CalibrationError, match="two samples or more"):
        device.recalibrate_norms([x[:1]])


@pytest.mark.parametrize("batch_dim", [0, 1])
def test_sequences_and_constant_outputs(batch_dim: int) -> None:
    """Samples are paired with samples wherever the batch is; an output that never moves keeps its offset alone."""
    torch.manual_seed(0)
    model = nn.Linear(12, 6).eval()
    with torch.no_grad():
        model.weight[2] = 0
    x = torch.rand(5, 4, 12)
    example = x[:1] if batch_dim == 0 else x[:, :1]
    compiled = aimc.compile(model, "analog-fabric", (example,), calibration=[x], batch_dim=batch_dim)
    device = compiled.with_chip(all_off(compiled.chip)).deploy()
    device.correct_columns([x])
    torch.testing.assert_close(device(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def demo() -> tuple[aimc.CompiledModel, Data, tuple[Tensor, ...]]:
    calibration, _ = fashion_images("calibration")
    images, labels = fashion_images("test")
    data = list(zip(images[:200].split(100), labels[:200].split(100), strict=True))
    batches = calibration.split(128)
    return aimc.compile(fashion_resnet(), "analog-fabric", (images[:1],), calibration=batches), data, batches[:2]


@pytest.mark.parametrize("names", [("columns",), ("norms",), ("columns", "norms")])
def test_each_wins_accuracy_on_the_aged_demo_chip(demo, names: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    compiled, data, batches = demo
    plain = aimc.evaluate(compiled, data, times_s=(YEAR_S,), n_chips=2)
    found = aimc.evaluate(compiled, data, times_s=(YEAR_S,), n_chips=2, **dict.fromkeys(names, batches))
    assert found.corrections == names
    assert plain.corrections == ()
    assert found.times[0].mean > plain.times[0].mean + 0.03
