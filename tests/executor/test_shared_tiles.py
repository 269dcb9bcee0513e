"""Networks whose matrices share tiles, on the virtual chip: drift compensation is that of the tile."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.analog.fast import Precision
from aimc_compiler.mapping import verify_mapping
from aimc_compiler.program import lower_mapping, verify_program

HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 31_536_000.0


class Network(nn.Module):
    """Three matrices, the first used twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Linear(12, 12), nn.Linear(12, 20), nn.Linear(20, 8)
        with torch.no_grad():
            self.second.weight.pow_(5)  # small weights, which drift more

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.third(torch.relu(self.second(torch.relu(self.first(torch.relu(self.first(x)))))))
        return y


def inputs(seed: int = 1) -> Tensor:
    return torch.rand(8, 12, generator=torch.Generator().manual_seed(seed))


def compiled_on(places: dict[str, tuple[int, int, int]], kind: str = "tile") -> aimc.CompiledModel:
    """With the matrix of each operation at (tile, row, column)."""
    chip = aimc.load_chip("analog-fabric", overrides=(f"nonidealities.drift_compensation={kind}",))
    compiled = aimc.compile(Network().eval(), chip, (inputs()[:1],), calibration=[inputs()])
    at = {op.matrix: places[op.name] for op in compiled.workload.analog_ops if op.name in places}
    pieces = tuple(
        replace(piece, tile=at[piece.matrix][0], tile_row=at[piece.matrix][1], tile_column=at[piece.matrix][2])
        for piece in compiled.mapping.pieces
    )
    mapping = replace(compiled.mapping, pieces=pieces)
    verify_mapping(mapping, compiled.workload, chip)
    program = lower_mapping(compiled.workload, mapping, chip)
    verify_program(program)
    return compiled._replace(entries=[replace(compiled.entry(), mapping=mapping, program=program)])


@pytest.fixture(scope="module")
def shared() -> aimc.CompiledModel:
    return compiled_on({"first": (0, 0, 0), "second": (0, 12, 0), "third": (1, 0, 0)})


@pytest.mark.parametrize("precision", ["auto", "exact"])
def test_matrices_on_a_tile_have_one_factor(shared: aimc.CompiledModel, precision: Precision) -> None:
    apart = compiled_on({"first": (0, 0, 0), "second": (1, 12, 0), "third": (2, 0, 0)})
    names = list(shared.deploy().precision)
    assert len(names) == 4
    together, alone = (
        {name: deployed.compensation(name, DAY_S).unique() for name in names}
        for deployed in (each.deploy(seed=2, precision=precision) for each in (shared, apart))
    )
    assert all(len(factor) == 1 for factor in (*together.values(), *alone.values()))
    first, again, second, third = (float(together[name]) for name in names)
    assert first == again == second != third
    assert third == float(alone[names[3]])
    low, high = sorted((float(alone[names[0]]), float(alone[names[2]])))
    assert low + 0.001 < first < high - 0.001


def test_policies_read_the_tile(shared: aimc.CompiledModel) -> None:
    device = shared.deploy(seed=2)
    names = list(device.precision)

    def factors(time_s: float) -> list[float]:
        return [float(device.compensation(name, time_s)[0, 0, 0]) for name in names]

    always = factors(DAY_S)
    device.recalibrate(HOUR_S)
    hourly = factors(DAY_S)
    assert hourly[0] == hourly[1] == hourly[2] < always[0]
    assert factors(YEAR_S) == hourly
    device.recalibrate(None)
    assert factors(DAY_S) == always


def test_outputs_do_not_depend_on_the_times_asked_for_before(shared: aimc.CompiledModel) -> None:
    device = shared.deploy(seed=2)
    device(inputs(), time_s=YEAR_S)
    device.compensation("third", HOUR_S)
    device.rewind()
    assert torch.equal(device(inputs(), time_s=DAY_S), shared.deploy(seed=2)(inputs(), time_s=DAY_S))


@pytest.mark.parametrize("kind", ["tile", "column", "exact"])
def test_evaluation_runs_on_shared_tiles(kind: str) -> None:
    compiled = compiled_on({"first": (0, 0, 0), "second": (0, 12, 4), "third": (0, 40, 0)}, kind)

    def error(outputs: Tensor, targets: Tensor) -> float:
        return -float((outputs - targets).norm() / targets.norm())

    data = [(inputs(), compiled.float_outputs(inputs()))]
    found: dict[str, Any] = {
        policy: aimc.evaluate(
            compiled, data, metric=error, times_s=(1.0, YEAR_S), n_chips=2, recalibration=policy
        ).times[1]
        for policy in ("always", "never")
    }
    assert found["always"].mean > found["never"].mean
