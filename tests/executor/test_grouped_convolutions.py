"""Grouped convolutions on shared tiles, on the virtual chip: the numerics of a group are those of a tile of its own."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.analog.fast import Precision
from aimc_compiler.chip import all_off, override
from aimc_compiler.executor import run_mapping

DAY_S = 86_400.0
#: Nonidealities that see where on a tile a piece stands, or what stands beside it.
PLACES = ("nonidealities.mvm.ir_drop=0", "nonidealities.drift_compensation=off")


class Separable(nn.Module):
    """Depthwise 3 x 3, grouped 3 x 3 in groups of two channels, pointwise."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, stride=2, groups=4, bias=False)
        self.pointwise = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(torch.relu(self.grouped(torch.relu(self.depthwise(x)))))
        return y


def inputs(samples: int = 6, seed: int = 1) -> Tensor:
    return torch.rand(samples, 8, 9, 9, generator=torch.Generator().manual_seed(seed))


def compiled(groups_per_tile: int | None = None, *overrides: str, size: int = 64) -> aimc.CompiledModel:
    spec = aimc.load_chip("analog-fabric", overrides=(f"tile.rows={size}", f"tile.columns={size}", *overrides))
    rules = {} if groups_per_tile is None else {"*": {"groups_per_tile": groups_per_tile}}
    return aimc.compile(Separable().eval(), spec, (inputs(1),), calibration=[inputs()], rules=rules)


def test_tiles_events_and_counts() -> None:
    """Tiles of 64 x 64: 7 groups of 9 rows, 3 of 18; two tiles each, and one for the pointwise layer."""
    together, alone = compiled(), compiled(1)
    assert together.utilization.tiles_used == 5
    assert alone.utilization.tiles_used == 8 + 4 + 1
    assert together.program.events < alone.program.events
    results = [each.deploy(seed=3).run(inputs()) for each in (together, alone)]
    assert results[0].counts == results[1].counts
    assert results[0].counts.mvms == 6 * (81 * 8 + 16 * 4 + 16)
    assert results[0].timing.interval_ticks == 81 * 4 * 40
    assert results[1].timing.interval_ticks == 81 * 40


@pytest.mark.parametrize("precision", ["auto", "exact"])
def test_a_group_computes_as_on_a_tile_of_its_own(precision: Precision) -> None:
    """Scales, ranges, devices and noise follow from the cut, so outputs are the same to the byte."""
    outputs = [
        compiled(limit, *PLACES).deploy(seed=3, precision=precision)(inputs(), time_s=DAY_S) for limit in (None, 3, 1)
    ]
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[2])


def test_wires_are_longer_for_groups_further_down() -> None:
    """The first group of each tile stands at its first row, as it would alone; the others lose more in the wire."""
    found = {}
    for limit in (None, 1):
        each = compiled(limit)
        quiet = override(all_off(each.chip), {"nonidealities.mvm.ir_drop": 1.0, "nonidealities.mvm.r_wire": "35 ohm"})
        device = each.with_chip(quiet).deploy(seed=3)
        found[limit] = device._ops["depthwise"](inputs())
    lost = (found[None] - found[1]).abs().amax(dim=(0, 2, 3))
    first_rows = [piece.tile_row for piece in compiled().mapping.pieces_of("depthwise")]
    assert first_rows == [0, 9, 18, 27] * 2
    assert all((loss > 0) == (row > 0) for loss, row in zip(lost.tolist(), first_rows, strict=True))


@pytest.mark.parametrize("kind", ["tile", "column"])
def test_groups_share_the_factor_of_their_tile(kind: str) -> None:
    """Of the tile one factor; of columns, which groups on a diagonal do not share, the factors they have alone."""
    choice = f"nonidealities.drift_compensation={kind}"
    together, alone = (
        compiled(limit, choice, PLACES[0]).deploy(seed=3).compensation("depthwise", DAY_S)[0, :, 0]
        for limit in (None, 1)
    )
    if kind == "column":
        assert torch.equal(together, alone)
        return
    assert len(alone.unique()) == 8
    for tile in (slice(0, 4), slice(4, 8)):
        assert len(together[tile].unique()) == 1
        assert alone[tile].min() < together[tile][0] < alone[tile].max()


def test_repeats_are_those_of_single_multiplications() -> None:
    """Four groups on a tile, all weights 1 on inputs of 1: 4 over a bound of 1 repeats twice, the first group alone."""
    model = nn.Conv1d(8, 4, 2, groups=4, bias=False).eval()
    with torch.no_grad():
        model.weight.fill_(1.0)
    found = []
    for limit in (None, 1):
        chip = override(
            all_off(aimc.load_chip("analog-fabric")),
            {"nonidealities.mvm.bound_management": True, "tile.adc.clip": True, "tile.adc.out_bound": 1.0},
        )
        rules = {} if limit is None else {"*": {"groups_per_tile": limit}}
        x = torch.zeros(3, 8, 6)
        x[:, :2] = 1.0
        each = aimc.compile(
            nn.Sequential(model).eval(),
            chip,
            (x[:1],),
            calibration=[torch.ones(2, 8, 6)],
            range_method="max",
            rules=rules,
        )
        device = each.deploy()
        found.append(device.run(x).repeats)
        assert sum(device.repeated.values()) == found[-1].mvms == 3 * 5 * 2
    assert found[0].time_s == found[1].time_s == pytest.approx(30 * 40e-9)
    assert found[0].energy_j == pytest.approx(found[1].energy_j)
    assert replace(found[0], energy_j=0.0) == replace(found[1], energy_j=0.0)


def test_levels_agree_and_artifacts_keep_the_limit(tmp_path: object) -> None:
    each = compiled(3)
    assert torch.allclose(run_mapping(each.graph, each.workload, each.mapping, inputs()), each.float_outputs(inputs()))
    loaded = aimc.load(each.save(f"{tmp_path}/net.aimc"))
    assert loaded.workload.analog_ops[0].groups_per_tile == 3
    assert (loaded.mapping, loaded.program) == (each.mapping, each.program)
    assert torch.equal(loaded.deploy(seed=3)(inputs()), each.deploy(seed=3)(inputs()))
