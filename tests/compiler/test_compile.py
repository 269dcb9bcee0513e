"""What compile refuses, and how it says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import aimc_compiler as aimc
from aimc_compiler.chip import override
from aimc_compiler.errors import CalibrationError, CaptureError, DoesNotFitError, RuleError, SpecError
from aimc_compiler.mapping import DoesNotFit


def test_does_not_fit_is_a_value_inside_the_error() -> None:
    model = nn.Sequential(nn.Linear(600, 600), nn.Linear(600, 10)).eval()
    chip = aimc.load_chip("analog-fabric", overrides=("tile.count=3",))
    with pytest.raises(DoesNotFitError, match=r"needs 6 tiles.*has 3 \(3 too few\)") as caught:
        aimc.compile(model, chip, (torch.zeros(1, 600),))
    reason = caught.value.reason
    assert isinstance(reason, DoesNotFit)
    assert (reason.demand, reason.capacity, reason.gap) == (6, 3, 3)
    fits = aimc.load_chip("analog-fabric", overrides=(f"tile.count={reason.smallest_count}",))
    assert aimc.compile(model, fits, (torch.zeros(1, 600),)).utilization.tiles_used == 6
    assert reason.smallest_tile is not None
    rows, columns = reason.smallest_tile
    larger = override(chip, {"tile.rows": rows, "tile.columns": columns})
    assert aimc.compile(model, larger, (torch.zeros(1, 600),)).utilization.tiles_used <= 3


def test_rules_leave_a_matrix_digital_and_say_why() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)).eval()
    x = torch.rand(4, 20)
    compiled = aimc.compile(model, "ideal", (x[:1],), rules=[("2", {"analog": False})])
    reasons = {op.name: (op.analog, op.reason) for op in compiled.workload.matrix_ops}
    assert reasons["0"][0]
    assert not reasons["2"][0]
    assert "'2'" in reasons["2"][1]
    assert compiled.utilization.tiles_used == 1
    assert torch.allclose(compiled.deploy()(x), model(x), atol=1e-6)
    with pytest.raises(RuleError, match=r"matches nothing|matches no"):
        aimc.compile(model, "ideal", (x[:1],), rules=[("heads", {"analog": False})])


def test_training_mode() -> None:
    with pytest.raises(CaptureError, match=r"eval\(\)"):
        aimc.compile(nn.Sequential(nn.Linear(3, 3), nn.Dropout()), "ideal", (torch.zeros(1, 3),))


def test_with_chip_refuses_another_geometry() -> None:
    compiled = aimc.compile(nn.Linear(3, 3).eval(), "analog-fabric", (torch.zeros(1, 3),))
    with pytest.raises(SpecError, match=r"in tile.rows \(512, now 16\): .* compile again"):
        compiled.with_chip(override(compiled.chip, {"tile.rows": 16}))
    with pytest.raises(SpecError, match=r"and \d+ more"):
        compiled.with_chip(aimc.load_chip("hermes"))
    with pytest.raises(SpecError, match="takes a chip spec, not 'ideal'"):
        compiled.with_chip("ideal")  # type: ignore[arg-type]
    described = compiled.chip.model_copy(update={"description": "another sentence"})
    for changed in (described, override(compiled.chip, {"tile.adc.bits": 5}), aimc.load_chip("ideal")):
        assert compiled.with_chip(changed).chip == changed


@pytest.mark.parametrize(
    ("chip", "change", "counts"),
    [("hermes", {"nonidealities.mvm.passes": "digital"}, "1, now 2"), ("isaac", {"tile.dac.bits": 8}, "128, now 64")],
)
def test_with_chip_refuses_other_numbers_of_conversions(chip: str, change: dict[str, Any], counts: str) -> None:
    """The program counts them, and a run compares."""
    compiled = aimc.compile(nn.Linear(3, 3).eval(), chip, (torch.zeros(1, 3),))
    with pytest.raises(SpecError, match=rf"in output conversions a column of \w+ \({counts}\): .* compile again"):
        compiled.with_chip(override(compiled.chip, change))


def test_with_chip_knows_several_tile_types() -> None:
    base = aimc.load_chip("analog-fabric")
    spec = base.model_copy(update={"tile": None, "tiles": {"a": base.tile}, "provenance": {}})
    compiled = aimc.compile(nn.Linear(3, 3).eval(), spec, (torch.zeros(1, 3),))
    assert compiled.with_chip(override(spec, {"tiles.a.adc.bits": 5})).chip.tile_types["a"].adc.bits == 5
    with pytest.raises(SpecError, match=r"in tiles.a.columns \(512, now 16\)"):
        compiled.with_chip(override(spec, {"tiles.a.columns": 16}))


def test_wrong_kinds_of_argument_say_what_to_give() -> None:
    model, x = nn.Linear(3, 3).eval(), torch.zeros(1, 3)
    with pytest.raises(CaptureError, match=r"example_inputs=\(x,\)"):
        aimc.compile(model, "ideal", x)  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match="model is a function, no torch"):
        aimc.compile(lambda x: x, "ideal", (x,))  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="'foo' is no way to set ranges"):
        aimc.compile(model, "ideal", (x,), range_method="foo")
    assert aimc.compile(model, Path(__file__).parents[2] / "chipspecs" / "ideal.yaml", (x,)).chip.name == "ideal"
