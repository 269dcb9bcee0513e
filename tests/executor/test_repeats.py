"""MVMs that bound management repeats: counted, and priced beside the program's time and energy."""

import json

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.chip import all_off, override
from aimc_compiler.executor import Repeats
from aimc_compiler.report import evaluation_json, repeats_line

#: Rows that clip 0, 1, 2 and 3 times against a bound of 1: the sum of 8 inputs over a bound of 1 is 1, 2, 4 and 8.
LEVELS = torch.tensor([1.0, 2.0, 4.0, 8.0]) / 8


def compiled_for(bound: float, *, managed: bool = True, passes: str = "one") -> aimc.CompiledModel:
    """Two layers: of 16 inputs on two tiles of 8 rows, with ranges of 1, and of 2 inputs, range 16; all weights 1."""
    model = nn.Sequential(nn.Linear(16, 2, bias=False), nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    chip = aimc.load_chip("analog-fabric", overrides=("tile.rows=8", "tile.columns=8"))
    quiet = override(
        all_off(chip),
        {
            "nonidealities.mvm.bound_management": managed,
            "nonidealities.mvm.passes": passes,
            "tile.adc.clip": True,
            "tile.adc.out_bound": bound,
        },
    )
    return aimc.compile(model, quiet, (torch.ones(1, 16),), calibration=[torch.ones(4, 16)], range_method="max")


def inputs(first: Tensor, second: Tensor) -> Tensor:
    """(samples, 16): what the first and the second tile of the first layer receive, on all their rows."""
    return torch.cat([first[:, None].expand(-1, 8), second[:, None].expand(-1, 8)], dim=1)


@pytest.mark.parametrize("passes", ["one", "digital"])
def test_repeats_are_counted_and_priced(passes: str) -> None:
    """The first tile repeats 0 + 1 + 2 + 3 times, the second once for each of four samples. The two inputs of the
    second layer are 3, 4, 6 and 10 over its range of 16: one more for the last sample."""
    compiled = compiled_for(1.0, passes=passes)
    x = inputs(LEVELS, LEVELS[1].expand(4))
    device = compiled.deploy()
    result = device.run(x)
    assert torch.allclose(result.outputs, compiled.float_outputs(x))
    tasks = {task.op: task for task in compiled.program.tasks if task.mvms}
    first = tasks["0"]
    found = result.repeats
    assert found.by_op == {"0": 6 + 4, "1": 1}
    assert found.mvms == 11
    twice = 2 if passes == "digital" else 1
    assert (found.dac_conversions, found.adc_conversions) == (10 * 8 + 2, twice * (10 * 2 + 1))
    energy_j, tick_s = sum(joules for _, joules in first.energy_j), compiled.program.tick_s
    assert found.energy_j == pytest.approx(11 * energy_j)
    assert found.time_s == pytest.approx(11 * first.latency_ticks * tick_s)
    assert found.time_s >= 11 * compiled.chip.tile_types["tile"].mvm.active.time_s
    assert result.counts.mvms == 4 * 3
    assert result.energy_j == pytest.approx(4 * compiled.timing.energy_j)
    assert device.run(x).repeats == found
    assert sum(device.repeated.values()) == 2 * found.mvms


def test_nothing_is_repeated_below_the_bound_or_without_bound_management() -> None:
    x = inputs(LEVELS, LEVELS)
    for compiled in (compiled_for(64.0), compiled_for(1.0, managed=False)):
        assert compiled.deploy().run(x).repeats == Repeats(by_op={})


def test_repeats_do_not_depend_on_how_samples_are_batched() -> None:
    compiled = compiled_for(1.0)
    x = inputs(LEVELS, LEVELS.flip(0))
    whole = compiled.deploy().run(x).repeats
    device = compiled.deploy()
    parts = [device.run(part).repeats for part in x.split([1, 3])]
    assert whole.mvms == sum(part.mvms for part in parts) > 0


def test_evaluation_reports_repeats_of_a_sample() -> None:
    compiled = compiled_for(1.0)
    data = [(inputs(LEVELS, LEVELS[:1].expand(4)), torch.zeros(4))]

    def score(outputs: Tensor, targets: Tensor) -> float:
        return float((outputs[:, 0] - targets).mean())

    result = aimc.evaluate(compiled, data, metric=score, times_s=(1.0, 60.0), n_chips=3)
    once = compiled.deploy().run(data[0][0]).repeats
    assert result.repeats is not None
    assert result.repeats.mvms == 2 * 3 * once.mvms
    found = evaluation_json(result)["repeats"]
    assert found["mvms"] == once.mvms / 4
    assert found["energy_j"] == pytest.approx(once.energy_j / 4)
    assert json.loads(json.dumps(found))["by_op"]["0"] == 6 / 4
    assert "MVMs a sample (0 1.5" in repeats_line(result)
    none = aimc.evaluate(compiled_for(64.0), data, metric=score, times_s=(1.0,), n_chips=1)
    assert "repeats" not in evaluation_json(none)
    assert repeats_line(none) == ""
