"""What the tasks of a program are, read as text where that says it best."""

import pytest
from chips_by_hand import ALL, SAME, WorkloadByHand, chain, chip_by_hand, conv_access, residual_network, tile_by_hand
from lowering import lowered, named

from aimc_compiler.errors import NotBuiltError, SpecError
from aimc_compiler.mapping import Mapping, map_workload
from aimc_compiler.program import count, disassemble, lower_mapping, simulate


def test_two_tiles_in_words() -> None:
    assert disassemble(lowered(chain(2, 64), chip_by_hand())) == (
        "# net on by-hand: 8 tasks, 8 events a sample, tick 1e-09 s\n"
        "    0 input    x.input | x1 | 1 ticks, next after 1 | on host in\n"
        "    1 mvm      layer0.mvm[g0,r0,c0] | x1 | 133 ticks, next after 133 | on tile 0 | after 0\n"
        "    2 local    layer0.finish[g0,r0,c0] | x1 | 1 ticks, next after 1 | on local 0 | after 1\n"
        "    3 transfer layer1.send[g0,r0,0] | x1 | 11 ticks, next after 1 | on link 0,0>0,1 | after 2\n"
        "    4 mvm      layer1.mvm[g0,r0,c0] | x1 | 133 ticks, next after 133 | on tile 1 | after 3\n"
        "    5 local    layer1.finish[g0,r0,c0] | x1 | 1 ticks, next after 1 | on local 1 | after 4\n"
        "    6 transfer output.fetch layer1.out[0] | x1 | 11 ticks, next after 1 | on link 0,1>0,0 | after 5\n"
        "    7 output   layer1.out.output | x1 | 1 ticks, next after 1 | on host out | after 6\n"
    )


def test_size_does_not_grow_with_windows() -> None:
    programs = [
        lowered(residual_network(((size, 8), (size // 2, 16)), size), chip_by_hand(tile_by_hand(32, 32)))
        for size in (8, 32)
    ]
    assert len(programs[0].tasks) == len(programs[1].tasks)
    assert programs[1].events > 10 * programs[0].events


def test_each_row_block_is_sent_the_channels_it_multiplies() -> None:
    """A 3 x 3 convolution of 12 channels in 3 row blocks of 4: 4 channels of 8 bits each, once, to two tiles."""
    work = WorkloadByHand(16, 12)
    y = work.matrix("conv", "x", 40, conv_access(4, 3), kernel=9)
    program = lowered(work.build(y), chip_by_hand(tile_by_hand(40, 20)))
    sends = named(program, "conv.send")
    assert [(task.name, task.bits, task.events) for task in sends] == [
        (f"conv.send[g0,r{block},0]", 32, 16) for block in range(3)
    ]
    assert sum(task.kind == "mvm" for task in program.tasks) == 6


def test_a_channel_cut_in_two_goes_to_both_blocks() -> None:
    """Two channels of 9 rows on tiles of 6 rows: blocks of 6, 6, 6 read channels 0, 0 and 1, 1."""
    work = WorkloadByHand(16, 2)
    y = work.matrix("conv", "x", 4, conv_access(4, 3), kernel=9)
    program = lowered(work.build(y), chip_by_hand(tile_by_hand(6, 8)))
    assert [task.mvms for task in named(program, "conv.mvm")] == [1, 1, 1]
    assert [task.bits for task in named(program, "conv.send")] == [16, 8]
    blocks = named(program, "conv.mvm")
    assert [len(task.needs) for task in blocks] == [1, 1, 1]


def test_groups_read_their_own_channels() -> None:
    """A depthwise convolution behind a matrix of two column blocks: four channels from each block, 8 bits each."""
    work = WorkloadByHand(16, 8)
    y = work.matrix("m", "x", 8, conv_access(4, 1, 1, 0))
    y = work.matrix("depthwise", y, 1, conv_access(4, 3), kernel=9, groups=8)
    program = lowered(work.build(y), chip_by_hand(tile_by_hand(16, 4)))
    assert [task.bits for task in named(program, "depthwise.send")] == [8] * 8
    makers = [program.tasks[task.needs[0].task].name for task in named(program, "depthwise.send")]
    assert makers == ["m.finish[g0,r0,c0]"] * 4 + ["m.finish[g0,r0,c1]"] * 4


def test_a_unit_fetches_every_part_of_its_inputs() -> None:
    """Three column blocks of 16 outputs and the host's 48: 2 x 48 x 8 bits, less what is there already."""
    work = WorkloadByHand(4, 48)
    y = work.digital("add", (work.matrix("m", "x", 48), "x"))
    program = lowered(work.build(y), chip_by_hand(tile_by_hand(48, 16), digital_units={"count": 1}))
    (add,) = named(program, "add.digital")
    makers = [program.tasks[need.task] for need in add.needs]
    assert len(add.needs) == 4
    fetched = sum(task.bits for task in makers if task.kind == "transfer")
    assert {program.tasks[task.needs[0].task].name for task in makers if task.kind == "transfer"} | {
        task.name for task in makers if task.kind != "transfer"
    } == {"m.finish[g0,r0,c0]", "m.finish[g0,r0,c1]", "m.finish[g0,r0,c2]", "x.input"}
    here = sum(task.kind == "local" for task in makers) * 16 * 8
    assert fetched + here == 2 * 48 * 8


def test_partial_sums_meet_on_one_tile() -> None:
    """Three row blocks: two scale and send 16 bits a column, the middle one adds two and its bias."""
    work = WorkloadByHand(1, 192)
    program = lowered(work.build(work.matrix("m", "x", 64)), chip_by_hand(tile_by_hand(64, 64)))
    sums = named(program, ".sum")
    assert [(task.kind, task.bits) for task in sums] == [("transfer", 64 * 16)] * 2
    (finish,) = named(program, "m.finish")
    assert len(finish.needs) == 3
    # scale 64, add 2 x 64, bias 64
    assert finish.energy_j == (("local_digital", pytest.approx(4 * 64 * 0.1e-12)),)
    assert [task.energy_j for task in named(program, "m.scale") if task.kind == "local"] == [
        (("local_digital", pytest.approx(64 * 0.1e-12)),)
    ] * 2


@pytest.mark.parametrize(
    ("ops", "local", "elements"),
    [(("scale",), 3 * 64, (2 + 1) * 64), ((), 0, (3 + 2 + 1) * 64), (("scale", "accumulate"), 5 * 64, 64)],
)
def test_periphery_that_tiles_lack_runs_on_a_unit(ops: tuple[str, ...], local: int, elements: int) -> None:
    work = WorkloadByHand(1, 192)
    chip = chip_by_hand(tile_by_hand(64, 64), local_digital={"ops": ops})
    program = lowered(work.build(work.matrix("m", "x", 64)), chip)
    (finish,) = [task for task in program.tasks if task.kind == "digital"]
    assert finish.energy_j == (("digital", pytest.approx(elements * 1e-12)),)
    assert finish.service_ticks == 10 + elements // 64
    energy = simulate(program).energy_by_component
    assert energy["local_digital"] == pytest.approx(local * 0.1e-12)


def test_unpriced_periphery_is_an_error() -> None:
    chip = chip_by_hand(local_digital={"ops": ("scale",)}, digital_units={"cost_classes": {}})
    work = WorkloadByHand(1, 8)
    workload = work.build(work.matrix("m", "x", 8))
    with pytest.raises(SpecError, match=r"'m \(bias of its outputs\)'.*add digital_units.cost_classes.elementwise"):
        map_workload(workload, chip)


def test_local_relu_costs_its_own_elements() -> None:
    work = WorkloadByHand(4, 16)
    program = lowered(work.build(work.relu("relu", work.matrix("m", "x", 48))), chip_by_hand(tile_by_hand(16, 16)))
    tasks = named(program, "relu.local")
    assert [(task.kind, task.events, task.op) for task in tasks] == [("local", 4, "relu")] * 3
    assert simulate(program).energy_by_op["relu"] == pytest.approx(4 * 48 * 0.1e-12)


def test_digital_matrix_pays_by_multiply_accumulate() -> None:
    work = WorkloadByHand(4, 16)
    program = lowered(work.build(work.matrix("m", "x", 48, analog=False)), chip_by_hand())
    (task,) = named(program, "m.digital")
    assert (task.service_ticks, task.events) == (10 + 16 * 48 // 64, 4)
    assert count(program).mvms == 0
    assert program.macs == 4 * 16 * 48


def test_views_cost_nothing_and_keep_dependencies() -> None:
    """Flattening waits for every window, and the head is sent as many bits as the windows hold."""
    work = WorkloadByHand(16, 8)
    y = work.matrix("conv", "x", 8, conv_access(4, 3), kernel=9)
    flat = work.digital("flatten", (y,), ALL, "aten.flatten.using_ints", "free", (1, 128))
    program = lowered(work.build(work.matrix("head", flat, 10)), chip_by_hand(tile_by_hand(128, 128)))
    (view,) = named(program, "flatten.view")
    assert (view.uses, view.energy_j, view.latency_ticks) == ((), (), 0)
    assert sum(task.bits for task in named(program, "head.send")) == 128 * 8
    assert simulate(program).energy_by_op["flatten"] == 0


def test_plain_view_is_no_task() -> None:
    work = WorkloadByHand(4, 16)
    same = work.digital("same", (work.matrix("m", "x", 16),), SAME, "aten.contiguous.default", "free")
    assert not named(lowered(work.build(work.matrix("n", same, 16)), chip_by_hand()), "same")


def test_data_at_its_own_site_is_not_sent() -> None:
    """A single tile, a single unit, the host port: all at (0, 0)."""
    work = WorkloadByHand(4, 16)
    y = work.digital("add", (work.matrix("m", "x", 16), "x"))
    chip = chip_by_hand(digital_units={"count": 1})
    timing = simulate(lowered(work.build(y), chip))
    assert timing.counts.bits_moved == 0
    assert timing.energy_by_component["network"] == 0


def test_replicas_are_not_built() -> None:
    from dataclasses import replace

    workload, chip = chain(1, 8), chip_by_hand()
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping)
    doubled = replace(mapping, pieces=tuple(replace(piece, replica=1) for piece in mapping.pieces))
    with pytest.raises(NotBuiltError, match="matrix 'layer0' is replicated"):
        lower_mapping(workload, doubled, chip)
