"""The timing engine against an event queue, against its bounds, and by properties of its schedules."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from chips_by_hand import PREVIOUS, chain, chip_by_hand, conv_access, residual_network, tile_by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_oracle import check_periodic, engine_agrees, starts_by_event

from aimc_compiler.errors import NotBuiltError
from aimc_compiler.mapping import Mapping, map_workload
from aimc_compiler.program import (
    Need,
    Program,
    Resource,
    Task,
    lower_mapping,
    resource_loads,
    schedule_program,
    verify_program,
)
from aimc_compiler.program import engine as engine_module
from aimc_compiler.program import events as events_module
from aimc_compiler.program.events import last_needed, task_loops
from aimc_compiler.workload.ir import Access, DigitalOp, TensorShape, Workload

SAME, ALL = Access(kind="same"), Access(kind="all")


def make_program(tasks: list[Task], resources: int) -> Program:
    program = Program(
        workload="made",
        chip="made",
        tick_s=1e-9,
        macs=0,
        tiles=0,
        tiles_bound=0,
        energy_per_bit_j=0.0,
        resources=tuple(Resource(name=f"r{index}", kind="unit") for index in range(resources)),
        tasks=tuple(tasks),
    )
    verify_program(program)
    return program


def compiled(workload: Any, chip: Any) -> Program:
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping)
    program = lower_mapping(workload, mapping, chip)
    verify_program(program)
    return program


@st.composite
def accesses(draw: Any, events: int, input_events: int) -> Access:
    kind = draw(st.sampled_from(["same", "all", "sliding"]))
    if kind != "sliding":
        return Access(kind=kind)
    return Access(
        kind="sliding",
        input_size=(input_events,),
        output_size=(events,),
        kernel=(draw(st.integers(1, 3)),),
        stride=(draw(st.integers(1, 2)),),
        padding=(draw(st.integers(0, 1)),),
        dilation=(draw(st.integers(1, 2)),),
    )


@st.composite
def programs(draw: Any) -> Program:
    """Up to eight tasks that meet on up to four resources: single resources, trees of links, views."""
    resources = draw(st.integers(1, 4))
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 8))):
        events = draw(st.integers(1, 6))
        needs = []
        for maker in draw(st.lists(st.integers(0, number - 1), max_size=2)) if number else ():
            use = draw(st.integers(0, max(1, len(tasks[maker].uses)) - 1))
            needs.append(Need(task=maker, use=use, access=draw(accesses(events, tasks[maker].events))))
        taken = draw(st.lists(st.integers(0, resources - 1), max_size=3, unique=True))
        uses = tuple((resource, draw(st.integers(-1, use - 1))) for use, resource in enumerate(taken))
        tasks.append(
            Task(
                name=f"t{number}",
                kind="digital",
                op=f"t{number}",
                events=events,
                uses=uses,
                service_ticks=draw(st.integers(1, 5)) if uses else 0,
                latency_ticks=draw(st.integers(0, 9)) if uses else 0,
                hop_ticks=draw(st.integers(0, 3)),
                needs=tuple(needs),
            )
        )
    return make_program(tasks, resources)


@st.composite
def programs_with_loops(draw: Any) -> Program:
    """The same with up to three needs of a step before, of tasks further behind or of themselves."""
    program = draw(programs())
    tasks = list(program.tasks)
    for _ in range(draw(st.integers(1, 3))):
        reader = draw(st.integers(0, len(tasks) - 1))
        maker = draw(st.integers(reader, len(tasks) - 1))
        use = draw(st.integers(0, max(1, len(tasks[maker].uses)) - 1))
        need = Need(task=maker, use=use, access=PREVIOUS)
        tasks[reader] = replace(tasks[reader], needs=(*tasks[reader].needs, need))
    for loop in task_loops(replace(program, tasks=tuple(tasks))):
        for task in loop:
            needs = tuple(_in_step(need, tasks, task, loop) for need in tasks[task].needs)
            tasks[task] = replace(tasks[task], needs=needs)
    return make_program(tasks, len(program.resources))


def _in_step(need: Need, tasks: list[Task], reader: int, loop: list[int]) -> Need:
    """The need, where it is inside a loop and of a later window, of the same window instead."""
    table = last_needed(need.access, tasks[reader].events, tasks[need.task].events)
    late = need.task in loop and (table > np.arange(len(table))).any()
    return replace(need, access=SAME) if late else need


@settings(max_examples=150, deadline=None)
@given(programs_with_loops())
def test_loops_agree_with_the_event_queue(program: Program) -> None:
    schedule = schedule_program(program)
    engine_agrees(program, schedule, lambda depth: 8 * (depth + 4))
    assert schedule.interval_ticks == max(1, int(resource_loads(program).max()))
    assert schedule.latency_ticks >= schedule.latency_bound_ticks


@settings(max_examples=150, deadline=None)
@given(programs())
def test_engine_agrees_with_the_event_queue(program: Program) -> None:
    schedule = schedule_program(program)
    engine_agrees(program, schedule, lambda depth: 8 * (depth + 4))


@settings(max_examples=100, deadline=None)
@given(programs())
def test_schedules_respect_their_bounds(program: Program) -> None:
    schedule = schedule_program(program)
    assert schedule.latency_ticks >= schedule.latency_bound_ticks
    assert schedule.periodic_latency_ticks >= schedule.latency_bound_ticks
    assert schedule.interval_ticks == max(1, int(resource_loads(program).max()))
    check_periodic(program, starts_by_event(schedule, program, schedule.periodic), schedule.interval_ticks)
    assert (np.asarray(schedule.alone) >= np.asarray(schedule.unlimited)).all()
    assert (np.asarray(schedule.periodic) >= np.asarray(schedule.unlimited)).all()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_table_of_last_needed_windows(data: Any) -> None:
    """The vectorised table is ``Access.last_needed``, in two dimensions and over repeats."""
    size = data.draw(st.integers(3, 7))
    kernel = data.draw(st.integers(1, 3))
    access = conv_access(size, kernel, data.draw(st.integers(1, 2)), data.draw(st.integers(0, 1)))
    repeats = data.draw(st.integers(1, 2))
    windows = repeats * access.output_size[0] * access.output_size[1]
    table = last_needed(access, windows, repeats * size * size)
    assert table.tolist() == [access.last_needed(window, repeats * size * size) for window in range(windows)]


@pytest.mark.parametrize("tile", [64, 16])
def test_lowered_network_is_sound_and_periodic(tile: int) -> None:
    """No two events at once on a resource, every dependency kept, the pattern found by unrolling samples."""
    program = compiled(residual_network(image=6, sizes=((6, 8), (3, 12))), chip_by_hand(tile_by_hand(tile, tile)))
    schedule = schedule_program(program)
    check_periodic(program, starts_by_event(schedule, program, schedule.periodic), schedule.interval_ticks)
    engine_agrees(program, schedule, lambda depth: 3 * depth + 4)


def test_layers_overlap() -> None:
    """A convolution starts once the first rows of its input are there, not after all of it."""
    program = compiled(residual_network(image=16, sizes=((16, 8),)), chip_by_hand(tile_by_hand(128, 128)))
    schedule = schedule_program(program)
    starts = starts_by_event(schedule, program, schedule.alone)
    tasks = {task.name: index for index, task in enumerate(program.tasks)}
    stem, mvm = tasks["stem.mvm[g0,r0,c0]"], tasks["s0.first.mvm[g0,r0,c0]"]
    one_mvm = program.tasks[stem].service_ticks
    # Its first window needs window (1, 1) of the stem, the eighteenth of 256.
    assert starts[stem, 0, 0] + 18 * one_mvm < starts[mvm, 0, 0] < starts[stem, 0, 0] + 20 * one_mvm


def test_saturated_shared_resource() -> None:
    """Two tasks of 3 x 5 ticks on one unit: the unit is never idle in steady state."""
    feed = Task(name="in", kind="input", op="in", events=3, uses=((1, -1),), service_ticks=1, latency_ticks=1)
    one, two = (
        Task(
            name=name,
            kind="digital",
            op=name,
            events=3,
            uses=((0, -1),),
            service_ticks=5,
            latency_ticks=5,
            needs=(Need(task=need, access=access),),
        )
        for name, need, access in (("one", 0, SAME), ("two", 1, ALL))
    )
    schedule = schedule_program(make_program([feed, one, two], 2))
    assert (schedule.latency_ticks, schedule.interval_ticks, schedule.interval_bound_ticks) == (31, 30, 30)


def mixer(tokens: int, layers: int) -> Workload:
    """Layers that each need the whole of the one before, on one digital unit: served as they come, samples pile up."""
    last = TensorShape(name="x", windows=tokens, width=16)
    tensors, ops = [last], []
    for layer in range(layers):
        made = TensorShape(name=f"y{layer}", windows=tokens, width=16)
        ops.append(
            DigitalOp(
                name=f"norm{layer}",
                op="layer_norm",
                cost_class="reduction" if layer % 3 else "elementwise",
                inputs=(last.name,),
                accesses=(ALL if layer % 2 else SAME,),
                output=made.name,
                work=made.elements * (1 + layer % 4),
            )
        )
        tensors.append(made)
        last = made
    return Workload(
        name="mixer", inputs=("x",), outputs=(last.name,), tensors=tuple(tensors), matrices=(), ops=tuple(ops)
    )


@pytest.mark.parametrize(("tokens", "layers", "units"), [(9, 8, 1), (16, 24, 2), (5, 40, 3)])
def test_samples_keep_up_with_the_busiest_resource_whatever_the_order(tokens: int, layers: int, units: int) -> None:
    program = compiled(mixer(tokens, layers), chip_by_hand(digital_units={"count": units}))
    schedule = schedule_program(program)
    assert schedule.interval_ticks == schedule.interval_bound_ticks
    assert schedule.periodic_latency_ticks < schedule.latency_ticks + 4 * schedule.interval_ticks
    check_periodic(program, starts_by_event(schedule, program, schedule.periodic), schedule.interval_ticks)
    engine_agrees(program, schedule, lambda stages: 6 * stages + 20)


def test_places_side_by_side_where_gaps_are_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mixer has gaps enough: without looking for them, samples keep up as well, and wait longer."""
    program = compiled(mixer(16, 24), chip_by_hand(digital_units={"count": 2}))
    fitted = schedule_program(program)
    monkeypatch.setattr(engine_module, "_SLOT_WORK", 0)
    schedule = schedule_program(program)
    assert schedule.interval_ticks == fitted.interval_ticks
    assert schedule.periodic_latency_ticks > fitted.periodic_latency_ticks
    check_periodic(program, starts_by_event(schedule, program, schedule.periodic), schedule.interval_ticks)
    engine_agrees(program, schedule, lambda stages: 6 * stages + 20)


def test_too_many_events_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = compiled(chain(3, 64), chip_by_hand())
    monkeypatch.setattr(events_module, "EVENT_LIMIT", 3)
    with pytest.raises(NotBuiltError, match=r"'net' on 'by-hand' has 4 events a sample: timing is built for up to 3"):
        schedule_program(program)
