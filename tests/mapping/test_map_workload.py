"""From workloads to mappings: pieces, tiles, units, meshes."""

from itertools import pairwise

import pytest
from chips_by_hand import (
    SAME,
    WorkloadByHand,
    chain,
    chip_by_hand,
    conv_access,
    residual_network,
    resnet_shapes,
    tile_by_hand,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import NotBuiltError, RuleError, SpecError
from aimc_compiler.mapping import (
    DoesNotFit,
    Mapping,
    bound_tiles,
    map_workload,
    measure_utilization,
    near_square,
    snake_site,
    unit_sites,
    verify_mapping,
)
from aimc_compiler.workload.ir import Workload


def mapped(workload: Workload, chip: ChipSpec) -> Mapping:
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping), str(mapping)
    verify_mapping(mapping, workload, chip)
    return mapping


@pytest.mark.parametrize(
    ("size", "tiles", "percent"), [(128, 727, 98.1), (256, 201, 88.7), (512, 75, 59.4), (1024, 45, 24.8)]
)
def test_resnet18_tiles(size: int, tiles: int, percent: float) -> None:
    """Tiles and utilisation of ResNet-18 at one matrix block a tile, as two published compilers give them."""
    chip = chip_by_hand(tile_by_hand(size, size))
    mapping = mapped(resnet_shapes(), chip)
    use = measure_utilization(mapping, chip)
    assert mapping.tiles_used == use.tiles_used == tiles
    assert round(100 * use.utilization, 1) == percent
    assert use.matrix_cells_used == sum(layer.cells for layer in use.layers) == sum(t.cells_used for t in use.tiles)


def test_bounds_hold_and_are_named() -> None:
    chip = chip_by_hand(tile_by_hand(512, 512))
    bound = bound_tiles(mapped(resnet_shapes(), chip), chip)
    assert bound.tiles == max(bound.area, bound.big_items)
    assert bound.area == 45
    assert bound.tiles <= 75


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 4), st.sampled_from([1, 9])), min_size=1, max_size=4),
    st.integers(4, 64),
    st.integers(4, 64),
)
def test_every_mapping_verifies(layers: list[tuple[int, int, int]], rows: int, columns: int) -> None:
    work = WorkloadByHand(16, 12)
    x = "x"
    for number, (outputs, groups, kernel) in enumerate(layers):
        usable = groups if work.shape(x).width % groups == 0 else 1
        access = conv_access(4, 3) if kernel == 9 else SAME
        x = work.matrix(f"m{number}", x, outputs, access, kernel, usable)
    workload, chip = work.build(x), chip_by_hand(tile_by_hand(rows, columns))
    mapping = mapped(workload, chip)
    assert list(dict.fromkeys(piece.tile for piece in mapping.pieces)) == list(range(mapping.tiles_used))
    assert sum(piece.cells for piece in mapping.pieces) == sum(matrix.cells for matrix in workload.matrices)
    assert bound_tiles(mapping, chip).tiles <= mapping.tiles_used
    assert mapping.mesh == near_square(mapping.tiles_used)
    sites = [snake_site(tile, mapping.mesh) for tile in range(mapping.mesh[0] * mapping.mesh[1])]
    assert len(set(sites)) == len(sites)
    assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in pairwise(sites))


def test_mapping_is_repeatable() -> None:
    chip = chip_by_hand(tile_by_hand(64, 64))
    assert map_workload(residual_network(), chip) == map_workload(residual_network(), chip)


def test_tied_matrix_is_placed_once() -> None:
    work = WorkloadByHand(1, 64)
    x = work.matrix("first", "x", 64)
    y = work.matrix("second", x, 64, matrix="first")
    mapping = mapped(work.build(y), chip_by_hand(tile_by_hand(64, 64)))
    assert mapping.tiles_used == 1


def test_tile_types_are_numbered_one_after_the_other() -> None:
    chip = chip_by_hand(tiles={"small": tile_by_hand(32, 32, 6), "large": tile_by_hand(128, 128, "auto")})
    work = WorkloadByHand(1, 64)
    x = work.matrix("a", "x", 128, tile_type="large")
    x = work.matrix("b", x, 32, tile_type="small")
    x = work.matrix("c", x, 32, tile_type="large")
    mapping = mapped(work.build(x), chip)
    assert [(piece.matrix, piece.tile) for piece in mapping.pieces if piece.matrix != "b"] == [("a", 6), ("c", 7)]
    assert [piece.tile for piece in mapping.pieces_of("b")] == [0, 1, 2, 3]
    assert mapping.tiles_available is None


def test_unknown_tile_type_suggests_one() -> None:
    chip = chip_by_hand(tiles={"small": tile_by_hand(32, 32), "large": tile_by_hand(128, 128)})
    work = WorkloadByHand(1, 64)
    y = work.matrix("a", "x", 64, tile_type="smal")
    with pytest.raises(RuleError, match=r"'a' asks for tile type 'smal'.*'small', 'large'; did you mean 'small'\?"):
        map_workload(work.build(y), chip)


def test_one_weight_on_two_tile_types_is_refused() -> None:
    chip = chip_by_hand(tiles={"small": tile_by_hand(32, 32), "large": tile_by_hand(128, 128)})
    work = WorkloadByHand(1, 32)
    x = work.matrix("a", "x", 32, tile_type="small")
    y = work.matrix("b", x, 32, matrix="a", tile_type="large")
    with pytest.raises(RuleError, match="give all uses of one weight the same type"):
        map_workload(work.build(y), chip)


def test_what_is_not_built_says_so() -> None:
    with pytest.raises(NotBuiltError, match="objective 'interval' is not built: give one of tiles"):
        map_workload(chain(1, 8), chip_by_hand(), objective="interval")
    with pytest.raises(NotBuiltError, match="limits are not built yet"):
        map_workload(chain(1, 8), chip_by_hand(), limits={"tiles": 3})


def test_given_mesh_holds() -> None:
    assert mapped(chain(3, 256), chip_by_hand(tile_by_hand(count=12), network={"shape": (2, 6)})).mesh == (2, 6)


def test_relu_behind_a_matrix_runs_on_its_tiles() -> None:
    """Not where another operation reads the matrix, nor where the tiles' units lack what comes before."""
    work = WorkloadByHand(4, 16)
    a = work.matrix("a", "x", 16)
    b = work.matrix("b", work.relu("a.relu", a), 16)
    y = work.digital("add", (work.relu("b.relu", b), b))
    workload = work.build(y)
    assert {unit.op: unit.local for unit in mapped(workload, chip_by_hand()).units} == {
        "a.relu": True,
        "b.relu": False,
        "add": False,
    }
    bare = chip_by_hand(local_digital={"ops": ("scale", "relu")})
    assert [unit.op for unit in mapped(workload, bare).units] == ["a", "a.relu", "b", "b.relu", "add"]
    assert not any(unit.local for unit in mapped(workload, bare).units)


def test_relu_of_a_network_output_stays_digital() -> None:
    work = WorkloadByHand(4, 16)
    a = work.matrix("a", "x", 16)
    mapping = mapped(work.build(work.relu("relu", a), a), chip_by_hand())
    assert [unit.local for unit in mapping.units] == [False]


def test_digital_work_is_balanced() -> None:
    """Longest first on the least loaded of two units: 8, 7, 6, 5 give 13 and 13."""
    work = WorkloadByHand(1, 8)
    sizes = {"a": 5, "b": 8, "c": 6, "d": 7}
    ends = [work.digital(name, ("x",), shape=(size, 64)) for name, size in sizes.items()]
    price = {"startup": "0 ns", "rate": "64/tick", "energy": "1 pJ"}
    chip = chip_by_hand(digital_units={"count": 2, "cost_classes": {"elementwise": price}})
    units = {unit.op: unit.unit for unit in mapped(work.build(*ends), chip).units}
    assert units == {"b": 0, "d": 1, "c": 1, "a": 0}


def test_missing_price_names_op_class_and_key() -> None:
    work = WorkloadByHand(1, 8)
    y = work.digital("net.norm", ("x",), cost_class="normalisation")
    with pytest.raises(
        SpecError,
        match=r"no price for 'net.norm', whose.*'normalisation'.*add digital_units.cost_classes.normalisation",
    ):
        map_workload(work.build(y), chip_by_hand())


@pytest.mark.parametrize(("count", "mesh"), [(8, (8, 8)), (3, (2, 5)), (64, (1, 3))])
def test_units_stand_on_the_mesh(count: int, mesh: tuple[int, int]) -> None:
    sites = unit_sites(count, mesh)
    assert len(sites) == count
    assert all(0 <= row < mesh[0] and 0 <= column < mesh[1] for row, column in sites)
    if count <= mesh[0] * mesh[1]:
        assert len(set(sites)) == count


def test_network_without_analog_layers_maps() -> None:
    work = WorkloadByHand(4, 16)
    y = work.matrix("a", "x", 16, analog=False)
    mapping = mapped(work.build(y), chip_by_hand())
    assert (mapping.tiles_used, mapping.mesh, [unit.op for unit in mapping.units]) == (0, (1, 1), ["a"])
    assert measure_utilization(mapping, chip_by_hand()).utilization == 0


def test_resnet_does_not_fit_64_tiles() -> None:
    assert isinstance(map_workload(resnet_shapes(), chip_by_hand(tile_by_hand(count=64))), DoesNotFit)
