"""Groups of a matrix on one tile: an event multiplies one after another, and costs what they cost apart."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from chips_by_hand import PREVIOUS, SAME, WorkloadByHand, chip_by_hand, conv_access, tile_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from lowering import lowered, named
from queue_oracle import engine_agrees, run_queue, starts_by_event, tie_ranks

from aimc_compiler.mapping import Mapping, find_runs, map_workload
from aimc_compiler.program import (
    Need,
    Program,
    Task,
    count,
    disassemble,
    lower_mapping,
    mvm_names,
    schedule_program,
    simulate,
    verify_program,
)
from aimc_compiler.workload.ir import Workload

#: 40 ns to the outputs, the next one after 15.
PIPELINED = {"time": "40 ns", "initiation_interval": "15 ns"}


def separable(image: int, channels: int, wide: int, limit: int | None = None) -> Workload:
    """A pointwise convolution, a depthwise one with ReLU, a grouped one of two channels a group, a pointwise one."""
    work = WorkloadByHand(image * image, channels, name="separable")
    y = work.matrix("expand", "x", wide, conv_access(image, 1, 1, 0))
    y = work.matrix("depthwise", y, 1, conv_access(image, 3), 9, wide, groups_per_tile=limit)
    y = work.relu("relu", y)
    y = work.matrix("grouped", y, 3, conv_access(image, 3, 2), 9, wide // 2, groups_per_tile=limit)
    return work.build(work.matrix("project", y, channels, conv_access(image // 2, 1, 1, 0)))


def test_a_shared_tile_in_words() -> None:
    """Six channels, four on the first tile would fit: three and three. Each tile is sent its three channels at once."""
    work = WorkloadByHand(16, 6)
    y = work.relu("relu", work.matrix("conv", "x", 1, conv_access(4, 3), kernel=9, groups=6))
    assert disassemble(lowered(work.build(y), chip_by_hand(tile_by_hand(36, 36, mvm=PIPELINED)))) == (
        "# net on by-hand: 10 tasks, 160 events a sample, tick 1e-09 s\n"
        "    0 input    x.input | x16 | 1 ticks, next after 1 | on host in\n"
        "    1 transfer conv.send[g3-5,r0,0] | x16 | 11 ticks, next after 1 | on link 0,0>0,1 | after 0\n"
        "    2 mvm      conv.mvm[g0-2,r0,c0] | x16 | 70 ticks, next after 45 for 3 MVMs | on tile 0 | after 0:sliding\n"
        "    3 mvm      conv.mvm[g3-5,r0,c0] | x16 | 70 ticks, next after 45 for 3 MVMs | on tile 1 | after 1:sliding\n"
        "    4 local    conv.finish[g0-2,r0,c0] | x16 | 1 ticks, next after 1 | on local 0 | after 2\n"
        "    5 local    conv.finish[g3-5,r0,c0] | x16 | 1 ticks, next after 1 | on local 1 | after 3\n"
        "    6 local    relu.local[0] | x16 | 1 ticks, next after 1 | on local 0 | after 4\n"
        "    7 local    relu.local[3] | x16 | 1 ticks, next after 1 | on local 1 | after 5\n"
        "    8 transfer output.fetch relu.out[1] | x16 | 11 ticks, next after 1 | on link 0,1>0,0 | after 7\n"
        "    9 output   relu.out.output | x16 | 1 ticks, next after 1 | on host out | after 6, 8\n"
    )


@pytest.mark.parametrize("scaling", ["tile", "used"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_sharing_changes_times_and_ways_but_no_counts(limit: int, scaling: str) -> None:
    chip = chip_by_hand(tile_by_hand(40, 40, mvm={"energy_scaling": scaling}))
    together, apart = (simulate(lowered(separable(8, 4, 12, at_most), chip)) for at_most in (None, limit))
    counts = ("mvms", "row_group_activations", "dac_conversions", "adc_conversions")
    assert [getattr(together.counts, name) for name in counts] == [getattr(apart.counts, name) for name in counts]
    assert together.counts.mvms == 64 * (1 + 12) + 16 * (6 + 1)
    for component in ("dac", "array", "adc", "local_digital"):
        assert together.energy_by_component[component] == pytest.approx(apart.energy_by_component[component], rel=1e-12)
    assert together.macs == apart.macs
    assert together.bounds["tiles"].value < apart.bounds["tiles"].value
    assert together.interval_ticks >= apart.interval_ticks


def test_an_event_takes_its_multiplications_one_after_another() -> None:
    """Eight groups in one window: host 1, then seven times 15 and once 40, finish 1, host 1."""
    work = WorkloadByHand(1, 8)
    y = work.matrix("m", "x", 1, groups=8)
    timing = simulate(lowered(work.build(y), chip_by_hand(tile_by_hand(mvm=PIPELINED))))
    assert timing.latency_ticks == 1 + 7 * 15 + 40 + 1 + 1
    assert timing.interval_ticks == timing.busy_ticks["tile 0"] == 8 * 15
    assert timing.rounding_s == pytest.approx((1 - 8 * 8 / 512) * 2e-9 + (1 - 2 * 8 / 512) * 1e-9)


def test_every_multiplication_starts_on_a_tick() -> None:
    work = WorkloadByHand(1, 8)
    tile = tile_by_hand(mvm={"time": "40.5 ns", "initiation_interval": "14.25 ns"})
    program = lowered(work.build(work.matrix("m", "x", 1, groups=8)), chip_by_hand(tile))
    (task,) = named(program, "m.mvm")
    assert (task.service_ticks, task.latency_ticks, task.mvm_ticks) == (8 * 15, 7 * 15 + 41, 41)
    assert task.rounding_ticks == pytest.approx(7 * 0.75 + 0.5)


def test_periphery_that_tiles_lack_runs_on_a_unit_a_tile_at_a_time() -> None:
    """Twelve groups of 3 outputs on two tiles: scale and bias of 18 elements each, startup 10 each."""
    work = WorkloadByHand(4, 24)
    chip = chip_by_hand(tile_by_hand(12, 64), local_digital={"ops": ()})
    workload = work.build(work.matrix("m", "x", 3, groups=12))
    program = lowered(workload, chip)
    finish = [task for task in program.tasks if task.kind == "digital"]
    assert [task.name for task in finish] == ["m.finish[g0-5,c0]", "m.finish[g6-11,c0]"]
    assert [task.service_ticks for task in finish] == [10 + 1] * 2
    assert [task.energy_j for task in finish] == [(("digital", pytest.approx(2 * 18 * 1e-12)),)] * 2
    # The unit stands beside one of the tiles.
    assert [task.bits for task in named(program, "m.sum")] == [18 * 16]


def test_groups_are_sent_what_each_part_makes_of_their_channels() -> None:
    """Behind a matrix of three column blocks of 4 outputs: 12 channels, two tiles of 6, so 4 + 2 and 2 + 4."""
    work = WorkloadByHand(16, 8)
    y = work.matrix("m", "x", 12, conv_access(4, 1, 1, 0))
    y = work.matrix("depthwise", y, 1, conv_access(4, 3), kernel=9, groups=12, groups_per_tile=6)
    tiles = {"narrow": tile_by_hand(64, 4), "wide": tile_by_hand(64, 64)}
    ops = [replace(op, tile_type=kind) for op, kind in zip(work.ops, tiles, strict=True)]  # type: ignore[type-var]
    work.ops = list(ops)
    program = lowered(work.build(y), chip_by_hand(tiles=tiles))
    assert [task.bits for task in named(program, "depthwise.send")] == [32, 16, 16, 32]


def test_a_loop_feeds_every_group_of_a_tile() -> None:
    """A grouped matrix on the state of the step before: each tile waits for its part, and their MVMs for each step."""
    work = WorkloadByHand(5, 8)
    work.tensor("state", 5, 8)
    back = work.matrix("back", "state", 2, PREVIOUS, groups=4, groups_per_tile=2)
    work.digital("cell", ("x", back), SAME)
    work.ops[-1] = replace(work.ops[-1], output="state")
    workload = replace(work.build("state"), tensors=tuple(t for t in work.tensors if t.name != "cell.out"))
    program = lowered(workload, chip_by_hand())
    for task in named(program, "back.mvm"):
        assert task.mvms == 2
        assert [need.access.kind for need in task.needs] == ["previous"]
        source = program.tasks[task.needs[0].task]
        assert source.name.startswith("back.send[") or source.name == "cell.digital"
    timing = simulate(program)
    assert timing.latency_ticks > 5 * 2 * 133


def test_names_of_pieces_are_those_of_their_tasks() -> None:
    workload, chip = separable(8, 4, 12), chip_by_hand(tile_by_hand(40, 40))
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping)
    tasks = {task.name: task for task in lower_mapping(workload, mapping, chip).tasks}
    for op in workload.analog_ops:
        pieces = mapping.pieces_of(op.matrix)
        names = mvm_names(op.name, pieces)
        assert list(names) == list(pieces)
        assert sum(tasks[name].mvms for name in dict.fromkeys(names.values())) == len(pieces)
        assert len(dict.fromkeys(names.values())) == len(find_runs(pieces))


def test_matrices_that_meet_by_hand_keep_tasks_of_their_own() -> None:
    """Groups of two matrices on one tile, and groups out of order: any mapping that verifies can be lowered."""
    workload, chip = separable(8, 4, 12), chip_by_hand(tile_by_hand(256, 256))
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping)
    moved = tuple(
        replace(p, tile=1, tile_row=p.tile_row + 128, tile_column=p.tile_column + 64) if p.matrix == "grouped" else p
        for p in mapping.pieces
    )
    program = lower_mapping(workload, replace(mapping, pieces=moved[::-1]), chip)
    verify_program(program)
    assert count(program).mvms == 64 * (1 + 12) + 16 * (6 + 1)
    assert simulate(program).busy_ticks["tile 1"] == (64 * 12 + 16 * 6) * 133


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([2, 4]),
    st.sampled_from([4, 6, 10]),
    st.sampled_from([20, 40]),
    st.none() | st.integers(1, 3),
    st.sampled_from([PIPELINED, {}]),
)
def test_shared_tiles_agree_with_the_event_queue(
    image: int, wide: int, size: int, limit: int | None, mvm: dict[str, Any]
) -> None:
    program = lowered(separable(image, 2, wide, limit), chip_by_hand(tile_by_hand(size, size, mvm=mvm)))
    engine_agrees(program, schedule_program(program), lambda depth: depth + 4)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([2, 4]), st.sampled_from([4, 6, 10]), st.sampled_from([20, 40]))
def test_an_event_of_several_is_as_many_events_of_one(image: int, wide: int, size: int) -> None:
    """The queue, with a task for every group, starts each MVM when its place in the shared event is."""
    program = lowered(separable(image, 2, wide), chip_by_hand(tile_by_hand(size, size, mvm=PIPELINED)))
    schedule = schedule_program(program)
    starts = starts_by_event(schedule, program, schedule.alone)
    ranks = tie_ranks(schedule, program)
    single, copies = one_by_one(program)
    wanted, ties = {}, {}
    for (task, use, number), start in starts.items():
        step = program.tasks[task].service_ticks // max(1, program.tasks[task].mvms)
        for place, copy in enumerate(copies[task]):
            wanted[copy, use, number] = int(start) + place * step
            ties[copy, use, number] = ranks[task, use, number] * 100 + place
    found = run_queue(single, wanted, ties, samples=1, interval=1)
    assert max(map(len, copies)) > 1
    assert {event[1:]: start for event, start in found.items()} == wanted


def one_by_one(program: Program) -> tuple[Program, list[list[int]]]:
    """The program with a task for every MVM of an event, and the numbers of the tasks that each has become."""
    tasks: list[Task] = []
    copies: list[list[int]] = []
    for task in program.tasks:
        needs = tuple(replace(need, task=copy) for need in task.needs for copy in copies[need.task])
        parts = list(_single(replace(task, needs=needs)))
        copies.append(list(range(len(tasks), len(tasks) + len(parts))))
        tasks += parts
    single = replace(program, tasks=tuple(tasks))
    verify_program(single)
    return single, copies


def _single(task: Task) -> Iterator[Task]:
    if task.mvms < 2:
        yield task
        return
    for number in range(task.mvms):
        yield replace(
            task,
            name=f"{task.name}#{number}",
            mvms=1,
            service_ticks=task.service_ticks // task.mvms,
            latency_ticks=task.mvm_ticks,
        )


def test_needs_are_kept_where_a_task_becomes_several() -> None:
    """The oracle's own transformation: as many MVMs, as many events, every consumer behind all of them."""
    program = lowered(separable(4, 2, 6), chip_by_hand(tile_by_hand(40, 40)))
    single, copies = one_by_one(program)
    assert count(single).mvms == count(program).mvms
    finish = next(index for index, task in enumerate(program.tasks) if task.name.startswith("depthwise.finish"))
    (made,) = copies[finish]
    assert single.tasks[made].needs == tuple(Need(task=copy) for copy in copies[program.tasks[finish].needs[0].task])
