"""Mapping the workloads of several entries onto the tiles that they share."""

from dataclasses import replace

import pytest
from chips_by_hand import WorkloadByHand, chip_by_hand, tile_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.errors import RuleError, VerificationError
from aimc_compiler.mapping import DoesNotFit, Mapping, map_entries, map_workload, verify_entries, verify_mapping
from aimc_compiler.workload import Workload
from aimc_compiler.workload.joint import join_matrices

CHIP = chip_by_hand(tile_by_hand(64, 64))


def entry(name: str, windows: int, matrices: list[tuple[str, int]], width: int = 100) -> Workload:
    """A chain of matrices (name, outputs) on ``windows`` vectors, each with a relu behind it."""
    work = WorkloadByHand(windows, width, name=f"net:{name}")
    y = "x"
    for matrix, outputs in matrices:
        y = work.relu(f"{matrix}.relu", work.matrix(matrix, y, outputs))
    return work.build(y)


def mapped(*workloads: Workload) -> tuple[Mapping, ...]:
    found = map_entries(workloads, CHIP)
    assert not isinstance(found, DoesNotFit), str(found)
    verify_entries(found, workloads, CHIP)
    return found


def test_pieces_are_shared_and_units_are_not() -> None:
    long, short = entry("long", 9, [("a", 100), ("b", 100)]), entry("short", 1, [("b", 100), ("c", 30)])
    first, second = mapped(long, short)
    assert first.pieces is second.pieces
    assert list(dict.fromkeys(piece.matrix for piece in first.pieces)) == ["a", "b", "c"]
    assert first.tiles_used == 4 + 4 + 2
    assert {unit.op for unit in first.units} == {"a.relu", "b.relu"}
    assert {unit.op for unit in second.units} == {"b.relu", "c.relu"}
    assert (first.workload, second.workload) == ("net:long", "net:short")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4, unique=True), min_size=1, max_size=3
    )
)
def test_the_pieces_are_those_of_the_union(chains: list[list[str]]) -> None:
    entries = [entry(f"e{k}", k + 1, [(name, 100) for name in names]) for k, names in enumerate(chains)]
    found = mapped(*entries)
    union = list(dict.fromkeys(name for names in chains for name in names))
    alone = map_workload(entry("all", 1, [(name, 100) for name in union]), CHIP)
    assert isinstance(alone, Mapping)
    assert all(mapping.pieces == alone.pieces for mapping in found)
    assert all(mapping.mesh == alone.mesh for mapping in found)


def test_what_does_not_fit_counts_the_matrices_of_all() -> None:
    chip = chip_by_hand(tile_by_hand(64, 64, 7))
    entries = entry("one", 1, [("a", 100)]), entry("two", 1, [("b", 100)])
    reason = map_entries(entries, chip)
    assert isinstance(reason, DoesNotFit)
    assert (reason.demand, reason.capacity, reason.workload) == (8, 7, "net")
    assert isinstance(map_workload(entries[0], chip), Mapping)


def test_uses_that_disagree_are_refused() -> None:
    one, two = entry("one", 1, [("a", 100)]), entry("two", 1, [("a", 100)])
    tiles = {"small": tile_by_hand(64, 64), "large": tile_by_hand(128, 128)}
    chip = chip_by_hand(tiles=tiles, tile=None)

    def typed(workload: Workload, tile_type: str) -> Workload:
        ops = tuple(replace(op, tile_type=tile_type) if hasattr(op, "tile_type") else op for op in workload.ops)
        return replace(workload, ops=ops)

    with pytest.raises(RuleError, match=r"'a' asks for tile type 'large', an earlier use of its matrix 'a'"):
        map_entries((typed(one, "small"), typed(two, "large")), chip)


def test_one_name_of_two_matrices_is_a_fault() -> None:
    with pytest.raises(VerificationError, match="'net:two' has another matrix 'a' than one before"):
        join_matrices((entry("one", 1, [("a", 100)]), entry("two", 1, [("a", 99)])))


def test_entries_on_other_pieces_are_a_fault() -> None:
    one, two = entry("one", 1, [("a", 100)]), entry("two", 1, [("a", 100), ("b", 4)])
    mappings = mapped(one, two)
    moved = replace(mappings[1], pieces=mappings[1].pieces[::-1])
    with pytest.raises(VerificationError, match="'net:two' has other pieces or another mesh than the entries before"):
        verify_entries((mappings[0], moved), (one, two), CHIP)
    with pytest.raises(VerificationError, match="matrix 'b' has pieces on tiles but no analog use"):
        verify_mapping(mappings[0], one, CHIP)
