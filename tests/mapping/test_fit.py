"""DoesNotFit: its figures are computed, its levers work, its message reads well."""

from chips_by_hand import WorkloadByHand, chain, chip_by_hand, conv_access, resnet_shapes, tile_by_hand

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping import DoesNotFit, Mapping, map_workload
from aimc_compiler.workload.ir import Workload


def refused(workload: Workload, chip: ChipSpec) -> DoesNotFit:
    reason = map_workload(workload, chip)
    assert isinstance(reason, DoesNotFit)
    return reason


def test_resnet18_on_64_tiles() -> None:
    reason = refused(resnet_shapes(), chip_by_hand(tile_by_hand(count=64)))
    assert (reason.demand, reason.capacity, reason.gap, reason.unit) == (201, 64, 137, "tiles")
    assert sum(entry.tiles for entry in reason.breakdown) == 201
    assert str(reason) == (
        "resnet18 does not fit by-hand: it needs 201 tiles of type 'tile', the chip has 64 (137 too few)\n"
        "  largest: layer4.1 36, layer4.2 36, layer4.3 36, layer4.0 18, layer3.1 9, layer3.2 9, layer3.3 9, fc 8\n"
        "  smallest chip that fits: 201 tiles of this size, or 64 tiles of 1024 x 1024\n"
        "  - more tiles: --set tile.count=201, or --set tile.count=auto for as many as needed\n"
        "  - larger tiles: --set tile.rows=1024 --set tile.columns=1024\n"
        "  - fewer analog layers: --rule layer4.1=digital --rule layer4.2=digital --rule layer4.3=digital "
        "--rule layer4.0=digital --rule layer3.1=digital --rule layer3.2=digital keeps 144 tiles' worth of weights "
        "digital"
    )


def test_the_named_chips_fit_and_smaller_ones_do_not() -> None:
    workload = resnet_shapes()
    reason = refused(workload, chip_by_hand(tile_by_hand(count=64)))
    assert isinstance(map_workload(workload, chip_by_hand(tile_by_hand(count=reason.smallest_count))), Mapping)
    refused(workload, chip_by_hand(tile_by_hand(count=reason.smallest_count - 1)))
    assert reason.smallest_tile is not None
    size = reason.smallest_tile[0]
    assert isinstance(map_workload(workload, chip_by_hand(tile_by_hand(size, size, 64))), Mapping)
    refused(workload, chip_by_hand(tile_by_hand(size // 2, size // 2, 64)))


def test_one_layer_that_closes_the_gap_is_preferred() -> None:
    work = WorkloadByHand(1, 256)
    x = work.matrix("wide", "x", 1024)
    x = work.matrix("narrow", x, 128)
    reason = refused(work.build(x), chip_by_hand(tile_by_hand(count=7)))
    assert reason.gap == 1
    assert "--rule wide=digital keeps 4" in reason.levers[-1]


def test_no_tile_is_large_enough_for_more_groups_apart_than_tiles() -> None:
    """Eight groups of 9 x 1 fit one tile of 256 x 256; at most one a tile they need eight, of whatever size."""
    work = WorkloadByHand(16, 8)
    y = work.matrix("depthwise", "x", 1, conv_access(4, 3), kernel=9, groups=8, groups_per_tile=1)
    reason = refused(work.build(y), chip_by_hand(tile_by_hand(count=5)))
    assert reason.smallest_tile is None
    assert reason.smallest_chip == "8 tiles of this size; no tile size fits in 5"
    assert reason.levers[0] == "more groups a tile: no groups_per_tile in the rules for 'depthwise' saves 7 tiles"


def test_larger_tiles_hold_more_groups() -> None:
    """64 groups of 9 x 1: 7 a tile of 64 x 64 are 10 tiles, 14 a tile of 128 x 128 are 5, 28 of 256 x 256 are 3."""
    work = WorkloadByHand(16, 64)
    workload = work.build(work.matrix("depthwise", "x", 1, conv_access(4, 3), kernel=9, groups=64))
    reason = refused(workload, chip_by_hand(tile_by_hand(64, 64, 4)))
    assert (reason.demand, reason.smallest_tile) == (10, (256, 256))
    assert [(entry.matrix, entry.tiles) for entry in reason.breakdown] == [("depthwise", 10)]
    assert not any("groups_per_tile" in lever for lever in reason.levers)
    assert isinstance(map_workload(workload, chip_by_hand(tile_by_hand(64, 64, 10))), Mapping)
    assert isinstance(map_workload(workload, chip_by_hand(tile_by_hand(256, 256, 4))), Mapping)
    refused(workload, chip_by_hand(tile_by_hand(128, 128, 4)))


def test_tile_type_and_mesh_are_named() -> None:
    chip = chip_by_hand(tiles={"main": tile_by_hand(count=2)})
    work = WorkloadByHand(1, 256)
    y = work.matrix("a", "x", 1024, tile_type="main")
    assert "--set tiles.main.count=4" in refused(work.build(y), chip).levers[0]
    reason = refused(chain(5, 256), chip_by_hand(network={"shape": (2, 2)}))
    assert reason.levers[0] == "a larger mesh: network.shape of at least 5 sites, or none"
