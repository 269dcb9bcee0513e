"""Recurrent layers: what waits for the step before, by hand and against the event queue."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from chips_by_hand import ALL, PREVIOUS, SAME, WorkloadByHand, chip_by_hand, tile_by_hand
from queue_oracle import check_periodic, engine_agrees, starts_by_event

from aimc_compiler.errors import NotBuiltError
from aimc_compiler.mapping import Mapping, map_workload, verify_mapping
from aimc_compiler.program import (
    Program,
    Schedule,
    count,
    disassemble,
    lower_mapping,
    parse_program,
    print_program,
    schedule_program,
    simulate,
    verify_program,
)
from aimc_compiler.workload import Workload, parse_workload, print_workload, to_networkx, verify_workload
from aimc_compiler.workload.ir import DigitalOp

HIDDEN = 16
#: Ticks on ``chip()``: an MVM, scale and bias of 4 x 16 outputs, a hop and a tick on the link, a port.
MVM, FINISH, HOP, BITS, PORT = 133, 1, 10, 1, 1
#: The cell of 16 elements: 10 ns to begin, 64 elements a tick.
CELL = 11
#: From one step to the next: hh, its outputs to the unit one hop away, the cell, the state back.
STEP = MVM + FINISH + (HOP + BITS) + CELL + (HOP + BITS)


def chip(units: int = 1, **sections: Any) -> Any:
    return chip_by_hand(
        tile_by_hand(64, 64), digital_units={"count": units}, **{"network": {"shape": (1, 5)}, **sections}
    )


def program_of(workload: Workload, spec: Any) -> Program:
    verify_workload(workload)
    mapping = map_workload(workload, spec)
    assert isinstance(mapping, Mapping), str(mapping)
    verify_mapping(mapping, workload, spec)
    program = lower_mapping(workload, mapping, spec)
    verify_program(program)
    return program


def lstm(steps: int, layers: int = 1, width: int = 16, **recurrent: Any) -> Workload:
    work = WorkloadByHand(steps, width)
    x = "x"
    for layer in range(layers):
        x = work.lstm(f"l{layer}", x, HIDDEN, **recurrent)
    return work.build(x)


def starts_of(program: Program, schedule: Schedule, name: str) -> list[int]:
    """Start of every event of a task, of one sample alone."""
    (task,) = [index for index, task in enumerate(program.tasks) if task.name == name]
    starts = starts_by_event(schedule, program, schedule.alone)
    return [starts[task, 0, event] for event in range(program.tasks[task].events)]


def test_lstm_in_words() -> None:
    """The unit stands at (0, 2), the tiles at (0, 0) and (0, 1): the state comes back by a transfer further behind."""
    assert disassemble(program_of(lstm(3), chip())) == (
        "# net on by-hand: 11 tasks, 33 events a sample, tick 1e-09 s\n"
        "    0 input    x.input | x3 | 1 ticks, next after 1 | on host in\n"
        "    1 mvm      l0.ih.mvm[g0,r0,c0] | x3 | 133 ticks, next after 133 | on tile 0 | after 0\n"
        "    2 local    l0.ih.finish[g0,r0,c0] | x3 | 1 ticks, next after 1 | on local 0 | after 1\n"
        "    3 mvm      l0.hh.mvm[g0,r0,c0] | x3 | 133 ticks, next after 133 | on tile 1 | after 8:previous\n"
        "    4 local    l0.hh.finish[g0,r0,c0] | x3 | 1 ticks, next after 1 | on local 1 | after 3\n"
        "    5 transfer l0.cell.fetch 0[0] | x3 | 11 ticks, next after 1 | on link 0,0>0,1, link 0,1>0,2 | after 2\n"
        "    6 transfer l0.cell.fetch 1[0] | x3 | 11 ticks, next after 1 | on link 0,1>0,2 | after 4\n"
        "    7 digital  l0.cell.digital | x3 | 11 ticks, next after 11 | on unit 0 | after 5, 6\n"
        "    8 transfer l0.hh.send[g0,r0,0] | x3 | 11 ticks, next after 1 | on link 0,2>0,1 | after 7\n"
        "    9 transfer output.fetch l0.h[0] | x3 | 11 ticks, next after 1 | on link 0,2>0,1, link 0,1>0,0 | after 7\n"
        "   10 output   l0.h.output | x3 | 1 ticks, next after 1 | on host out | after 9\n"
    )


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_latency_of_an_lstm_by_hand(steps: int) -> None:
    """The first cell waits for ih: a port, an MVM, two hops. Then every step takes one turn of the loop, which is
    longer than an MVM of ih. The last state leaves by two hops and a port.
    """
    program = program_of(lstm(steps), chip())
    timing = simulate(program)
    first_cell = PORT + MVM + FINISH + 2 * HOP + BITS
    # The state goes back to hh and, on the same link a tick later, to the host, of which only the last is seen.
    out = 1 + 2 * HOP + BITS + PORT
    assert timing.latency_ticks == first_cell + (steps - 1) * STEP + CELL + out
    assert timing.bounds["latency_s"].bound == pytest.approx((timing.latency_ticks - 1) * 1e-9)
    assert timing.interval_ticks == steps * MVM
    assert timing.counts.mvms == 2 * steps


def test_energy_and_counts_of_the_way_back() -> None:
    """64 gate values of both matrices to the unit, 16 of the state back and out, each of 8 bits, a step."""
    counts = count(program_of(lstm(5), chip()))
    assert counts.bits_moved == 5 * 8 * (64 + 64 + 16 + 16)
    assert counts.bit_hops == 5 * 8 * (2 * 64 + 64 + 16 + 2 * 16)


def test_two_layers_are_a_pipeline() -> None:
    """Step k of the second layer begins when step k of the first is done, not when all steps are."""
    steps = 12
    program = program_of(lstm(steps, layers=2), chip(units=2))
    schedule = schedule_program(program)
    engine_agrees(program, schedule, lambda depth: 2 * depth + 4)
    cell = starts_of(program, schedule, "l0.cell.digital")
    second = starts_of(program, schedule, "l1.ih.mvm[g0,r0,c0]")
    for step in range(steps - 1):
        assert cell[step] + CELL <= second[step] < cell[step + 1]
    one = schedule_program(program_of(lstm(steps), chip(units=2)))
    assert schedule.latency_ticks < one.latency_ticks + 3 * STEP


def test_bidirectional_layers_meet_at_the_end() -> None:
    """Both directions run beside each other; a flip needs the whole sequence, and so does what reads it."""
    steps = 10
    work = WorkloadByHand(steps, 16)
    forward = work.lstm("fw", "x", HIDDEN)
    flipped = work.digital("flip", ("x",), ALL, "aten.flip.default", "movement")
    backward = work.lstm("bw", flipped, HIDDEN)
    again = work.digital("flip_back", (backward,), ALL, "aten.flip.default", "free")
    both = work.digital("cat", (forward, again), SAME, "aten.cat.default", "movement", (steps, 2 * HIDDEN))
    program = program_of(work.build(work.matrix("head", both, 8)), chip(units=4))
    schedule = schedule_program(program)
    engine_agrees(program, schedule, lambda depth: 2 * depth + 4)
    cells = [starts_of(program, schedule, f"{name}.cell.digital") for name in ("fw", "bw")]
    assert cells[1][1] < cells[0][3]
    assert starts_of(program, schedule, "head.mvm[g0,r0,c0]")[0] > max(cells[0][-1], cells[1][-1]) + CELL


def gru(steps: int, first_state: bool) -> Workload:
    """hh on the state of the step before, which the cell itself reads too; ``h0`` is an input or a constant."""
    work = WorkloadByHand(steps, 16)
    first, state = work.tensor("h0", 1, HIDDEN), work.tensor("h", steps, HIDDEN)
    recurrent = {"initial": first} if first_state else {}
    gates = work.matrix("ih", "x", 3 * HIDDEN), work.matrix("hh", state, 3 * HIDDEN, PREVIOUS, **recurrent)
    work.ops.append(
        DigitalOp(
            name="cell",
            op="gru_cell",
            cost_class="transcendental",
            inputs=(*gates, state, first),
            accesses=(SAME, SAME, PREVIOUS, ALL),
            output=state,
            work=steps * HIDDEN,
        )
    )
    return replace(work.build(state), inputs=("x", first))


def test_a_cell_reads_its_own_state() -> None:
    """The state stays at the unit that made it: no transfer, and no longer a step than with hh alone."""
    program = program_of(gru(6, first_state=False), chip())
    (cell,) = [index for index, task in enumerate(program.tasks) if task.name == "cell.digital"]
    assert cell in {need.task for need in program.tasks[cell].needs}
    schedule = schedule_program(program)
    engine_agrees(program, schedule, lambda depth: 3 * depth + 4)
    starts = starts_of(program, schedule, "cell.digital")
    assert [later - earlier for earlier, later in pairwise(starts[1:])] == [STEP] * 4


def test_an_initial_state_is_waited_for_once() -> None:
    """Without it hh begins at once; with it when it came through the port, behind the steps of x, and one hop."""
    steps = 6
    program, constant = (program_of(gru(steps, first_state=given), chip()) for given in (True, False))
    sends = [task for task in program.tasks if task.name.startswith("hh.send initial")]
    assert [(task.events, task.bits) for task in sends] == [(1, HIDDEN * 8)]
    assert starts_of(constant, schedule_program(constant), "hh.mvm[g0,r0,c0]")[0] == 0
    schedule = schedule_program(program)
    (begin,) = starts_of(program, schedule, "h0.input")
    assert starts_of(program, schedule, "hh.mvm[g0,r0,c0]")[0] >= begin + PORT + HOP + BITS
    engine_agrees(program, schedule, lambda depth: 3 * depth + 4)


@pytest.mark.parametrize("size", [16, 8])
def test_matrices_cut_into_blocks(size: int) -> None:
    """Every row block of hh is sent the part of the state that it multiplies; partial sums meet as ever."""
    spec = chip_by_hand(tile_by_hand(size, size), digital_units={"count": 2})
    program = program_of(lstm(4), spec)
    sends = [task for task in program.tasks if task.name.startswith("l0.hh.send")]
    assert sum(task.bits for task in sends) == HIDDEN * 8
    waiting = [task for task in program.tasks if task.name.startswith("l0.hh.mvm")]
    assert all([need.access.kind for need in task.needs] == ["previous"] for task in waiting)
    schedule = schedule_program(program)
    engine_agrees(program, schedule, lambda depth: 2 * depth + 4)


def test_a_loop_on_one_tile() -> None:
    """relu(W h): with the ReLU on the tile's own unit the state never leaves the tile, and no link is used."""
    steps = 9
    work = WorkloadByHand(steps, HIDDEN)
    work.matrix("hh", work.tensor("relu.out", steps, HIDDEN), HIDDEN, PREVIOUS)
    work.relu("relu", "hh.out")
    program = program_of(work.build("relu.out"), chip_by_hand(tile_by_hand(64, 64), digital_units={"count": 1}))
    starts = starts_of(program, schedule_program(program), "hh.mvm[g0,r0,c0]")
    assert [later - earlier for earlier, later in pairwise(starts)] == [MVM + 1 + 1] * (steps - 1)
    assert not [task for task in program.tasks if task.kind == "transfer"]


def test_a_recurrent_matrix_that_stays_digital() -> None:
    program = program_of(lstm(4, analog=False), chip(units=2))
    assert not count(program).mvms
    engine_agrees(program, schedule_program(program), lambda depth: 3 * depth + 4)


@pytest.mark.parametrize(("steps", "layers", "units"), [(5, 1, 1), (4, 3, 1), (7, 2, 2)])
def test_samples_interleave_beside_the_loop(steps: int, layers: int, units: int) -> None:
    """The interval is the load of the busiest resource, though a sample alone waits for its loop: others fill in."""
    program = program_of(lstm(steps, layers), chip_by_hand(tile_by_hand(64, 64), digital_units={"count": units}))
    schedule = schedule_program(program)
    assert schedule.interval_ticks == schedule.interval_bound_ticks < schedule.latency_ticks
    check_periodic(program, starts_by_event(schedule, program, schedule.periodic), schedule.interval_ticks)
    engine_agrees(program, schedule, lambda depth: 10 * depth + 20)


@pytest.mark.parametrize("layers", [1, 4])
def test_a_loop_does_not_wait_an_interval_for_every_step(layers: int) -> None:
    schedule = schedule_program(program_of(lstm(60, layers), chip_by_hand(tile_by_hand(64, 64))))
    assert schedule.periodic_latency_ticks < schedule.latency_ticks + 3 * schedule.interval_ticks


def test_text_forms_hold_loops() -> None:
    workload = gru(4, first_state=True)
    text = print_workload(workload)
    assert 'input="h" output="hh.out" access={"kind":"previous"}' in text
    assert 'initial="h0"' in text
    assert parse_workload(text) == workload
    program = program_of(workload, chip())
    assert parse_program(print_program(program)) == program


def test_networkx_form_marks_what_is_fed_back() -> None:
    import networkx

    graph = to_networkx(gru(4, first_state=True))
    marked = [(a, b) for a, b, data in graph.edges(data=True) if data.get("feedback")]
    assert sorted(marked) == [("cell", "cell"), ("cell", "hh")]
    graph.remove_edges_from(marked)
    assert list(networkx.topological_sort(graph))[-1] == "cell"


def test_a_view_of_the_step_before_is_not_built() -> None:
    work = WorkloadByHand(4, HIDDEN)
    shifted = work.digital("shift", (work.tensor("relu.out", 4, HIDDEN),), PREVIOUS, "aten.roll.default", "free")
    work.relu("relu", work.matrix("m", shifted, HIDDEN))
    with pytest.raises(NotBuiltError, match=r"'shift' is free and reads 'relu.out' of the step before"):
        program_of(work.build("relu.out"), chip())
