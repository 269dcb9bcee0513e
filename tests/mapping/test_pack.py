"""Groups of one matrix on shared tiles: block-diagonal, as many as fit, near-equally many a tile."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from chips_by_hand import WorkloadByHand, chip_by_hand, conv_access, tile_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.errors import RuleError, VerificationError
from aimc_compiler.mapping import (
    Mapping,
    Piece,
    find_runs,
    groups_on_tiles,
    map_workload,
    measure_utilization,
    tiles_needed,
    verify_mapping,
)
from aimc_compiler.workload.ir import Matrix, Workload


def grouped(groups: int, channels: int, outputs: int, kernel: int, limit: int | None = None) -> Workload:
    """One grouped matrix: ``channels`` in and ``outputs`` out of each group."""
    work = WorkloadByHand(16, groups * channels)
    access = conv_access(4, 3) if kernel == 9 else conv_access(4, 1, 1, 0)
    return work.build(work.matrix("conv", "x", outputs, access, kernel, groups, groups_per_tile=limit))


def mapped(workload: Workload, rows: int, columns: int) -> Mapping:
    chip = chip_by_hand(tile_by_hand(rows, columns))
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping)
    verify_mapping(mapping, workload, chip)
    return mapping


def test_depthwise_groups_stand_on_the_diagonal() -> None:
    """Eight groups of 9 x 1 on tiles of 64 x 4: four fit in columns."""
    mapping = mapped(grouped(8, 1, 1, 9), 64, 4)
    assert [(p.group, p.rows, p.columns) for p in mapping.pieces] == [(group, 9, 1) for group in range(8)]
    assert [(p.tile, p.tile_row, p.tile_column) for p in mapping.pieces] == [
        (group // 4, 9 * (group % 4), group % 4) for group in range(8)
    ]


def test_groups_of_resnext() -> None:
    """32 groups of 4 channels, 3 x 3, on tiles of 256 x 256: 7 fit in rows, so five tiles of 7, 7, 6, 6, 6."""
    workload = grouped(32, 4, 4, 9)
    assert groups_on_tiles(workload.matrices[0], 256, 256) == (7, 7, 6, 6, 6)
    mapping = mapped(workload, 256, 256)
    use = measure_utilization(mapping, chip_by_hand())
    assert use.tiles_used == 5
    assert use.utilization == 32 * 36 * 4 / (5 * 256 * 256)
    assert [len(tile.pieces) for tile in use.tiles] == [7, 7, 6, 6, 6]
    assert (use.layers[0].pieces, use.layers[0].tiles) == (32, 5)


def test_groups_too_large_for_one_tile_are_cut_and_stand_alone() -> None:
    mapping = mapped(grouped(3, 20, 4, 1), 16, 16)
    assert [(p.group, p.rows, p.tile) for p in mapping.pieces] == [
        (group, 10, 2 * group + block) for group in range(3) for block in range(2)
    ]
    assert all(p.tile_row == p.tile_column == 0 for p in mapping.pieces)
    assert all(len(run) == 1 for run in find_runs(mapping.pieces))


@pytest.mark.parametrize(("limit", "tiles"), [(1, 8), (2, 4), (3, 3), (4, 2), (100, 2), (None, 2)])
def test_a_limit_spreads_groups_over_more_tiles(limit: int | None, tiles: int) -> None:
    mapping = mapped(grouped(8, 1, 1, 9, limit), 64, 4)
    assert mapping.tiles_used == tiles
    assert limit is None or max(Counter(p.tile for p in mapping.pieces).values()) <= limit


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 9]),
    st.integers(3, 40),
    st.integers(3, 40),
    st.none() | st.integers(1, 5),
)
def test_every_weight_is_in_one_cell_and_no_cell_is_used_twice(
    groups: int, channels: int, outputs: int, kernel: int, rows: int, columns: int, limit: int | None
) -> None:
    workload = grouped(groups, channels, outputs, kernel, limit)
    mapping, matrix = mapped(workload, rows, columns), workload.matrices[0]
    held = np.zeros((groups, matrix.rows, matrix.columns), dtype=int)
    cells = np.zeros((mapping.tiles_used, rows, columns), dtype=int)
    for p in mapping.pieces:
        held[p.group, p.first_row : p.first_row + p.rows, p.first_column : p.first_column + p.columns] += 1
        cells[p.tile, p.tile_row : p.tile_row + p.rows, p.tile_column : p.tile_column + p.columns] += 1
    assert (held == 1).all()
    assert cells.max() == 1
    assert cells.sum() == matrix.cells
    assert mapping.tiles_used == tiles_needed(matrix, rows, columns, limit)
    on_tile = Counter(p.tile for p in mapping.pieces)
    if groups > 1 and max(on_tile.values()) > 1:
        assert max(on_tile.values()) - min(on_tile.values()) <= 1
    for one, other in combinations(mapping.pieces, 2):
        if one.tile == other.tile:
            assert not _meet(one.tile_row, one.rows, other.tile_row, other.rows)
            assert not _meet(one.tile_column, one.columns, other.tile_column, other.columns)
    assert [piece for run in find_runs(mapping.pieces) for piece in run] == list(mapping.pieces)


def _meet(first: int, length: int, other_first: int, other_length: int) -> bool:
    return first < other_first + other_length and other_first < first + length


def test_the_cut_and_the_names_of_groups_do_not_depend_on_the_limit() -> None:
    """What the numerics and the noise of a piece follow from."""

    def apart(p: Piece) -> Piece:
        return replace(p, tile=0, tile_row=0, tile_column=0)

    together, alone = (mapped(grouped(8, 2, 3, 9, limit), 64, 64) for limit in (None, 1))
    assert [apart(p) for p in together.pieces] == [apart(p) for p in alone.pieces]
    assert together.tiles_used < alone.tiles_used == 8


def test_runs_are_neighbouring_groups_of_one_tile() -> None:
    pieces = mapped(grouped(6, 1, 1, 9), 64, 64).pieces
    assert [len(run) for run in find_runs(pieces)] == [6]
    moved = tuple(replace(p, tile=1) if p.group == 2 else p for p in pieces)
    assert [[p.group for p in run] for run in find_runs(moved)] == [[0, 1], [2], [3, 4, 5]]
    assert [len(run) for run in find_runs(pieces[::-1])] == [1] * 6


def test_groups_that_overlap_are_caught() -> None:
    workload, chip = grouped(6, 1, 1, 9), chip_by_hand(tile_by_hand(64, 64))
    mapping = mapped(workload, 64, 64)
    wrong = replace(mapping.pieces[3], tile_row=2 * 9 + 8, tile_column=2)
    broken = replace(mapping, pieces=(*mapping.pieces[:3], wrong, *mapping.pieces[4:]))
    with pytest.raises(VerificationError, match="pieces conv/g2/r0/c0/n0 and conv/g3/r0/c0/n0 overlap on tile 0"):
        verify_mapping(broken, workload, chip)


def test_uses_of_one_matrix_agree_on_the_limit() -> None:
    work = WorkloadByHand(4, 8)
    x = work.matrix("a", "x", 2, conv_access(2, 1, 1, 0), groups=4, groups_per_tile=1)
    y = work.matrix("b", x, 2, conv_access(2, 1, 1, 0), groups=4, matrix="a")
    with pytest.raises(RuleError, match="'b' asks for groups_per_tile None, an earlier use of its matrix 'a' for 1"):
        map_workload(work.build(y), chip_by_hand())


def test_more_groups_a_tile_never_take_more_tiles() -> None:
    matrix = Matrix(name="conv", parameter="conv.weight", rows=9, columns=1, groups=100, kernel=9)
    needed = [tiles_needed(matrix, 128, 128, limit) for limit in (*range(1, 20), None)]
    assert needed == sorted(needed, reverse=True)
    assert (needed[0], needed[-1]) == (100, 8)
