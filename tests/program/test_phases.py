"""Schedules laid out phase by phase: against loops over ticks, an event queue, and the engine of single events."""

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from queue_oracle import check_periodic, needs_of, run_queue
from steady_oracle import Board, Starts, board, steady_starts
from test_engine import ALL, SAME, make_program, programs

from aimc_compiler.program import Need, Program, Task, schedule_program
from aimc_compiler.program.phases import PhaseSchedule, line_shift, schedule_phases
from aimc_compiler.workload.ir import Access


@st.composite
def lined_programs(draw: Any) -> Program:
    """Chains and trees of few window counts, read event by event or as a whole, on few resources."""
    resources = draw(st.integers(1, 4))
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))
    tasks: list[Task] = []
    for number in range(draw(st.integers(1, 14))):
        needs = []
        for maker in draw(st.lists(st.integers(0, number - 1), max_size=3)) if number else ():
            use = draw(st.integers(0, max(1, len(tasks[maker].uses)) - 1))
            needs.append(Need(task=maker, use=use, access=draw(st.sampled_from([SAME, SAME, SAME, ALL]))))
        taken = draw(st.lists(st.integers(0, resources - 1), max_size=3, unique=True))
        uses = tuple((resource, draw(st.integers(-1, use - 1))) for use, resource in enumerate(taken))
        tasks.append(
            Task(
                name=f"t{number}",
                kind="digital",
                op=f"t{number}",
                events=draw(st.sampled_from(counts)),
                uses=uses,
                service_ticks=draw(st.integers(1, 7)) if uses else 0,
                latency_ticks=draw(st.integers(0, 12)) if uses else 0,
                hop_ticks=draw(st.integers(0, 3)),
                needs=tuple(needs),
            )
        )
    return make_program(tasks, resources)


def phase_keys(program: Program) -> list[tuple[int, int]]:
    """(needs in front that are not event by event of as many, windows) of every task."""
    level: list[int] = []
    for task in program.tasks:
        level.append(0)
        for need in task.needs:
            maker = program.tasks[need.task]
            joined = need.access.kind == "same" and maker.events == task.events
            level[-1] = max(level[-1], level[need.task] + (not joined))
    return [(each, task.events) for each, task in zip(level, program.tasks, strict=True)]


def lay_by_tick(program: Program, beats: list[int], early: list[int]) -> Starts:
    """Starts of all events of a sample alone, where the events of each task have the beat that is given."""
    keys = phase_keys(program)
    begins: dict[tuple[int, int], int] = defaultdict(lambda: 1 << 62)
    for key, first in zip(keys, early, strict=True):
        begins[key] = min(begins[key], first)
    found: Starts = {}
    free: dict[int, int] = defaultdict(int)
    for key in sorted(begins, key=lambda key: (key[0], begins[key], key)):
        boards: dict[int, Board] = {}
        laid = {}
        for number in (number for number in range(len(keys)) if keys[number] == key):
            for use in range(max(1, len(program.tasks[number].uses))):
                first = first_start(program, number, use, beats[number], found | laid, free, boards)
                for window in range(program.tasks[number].events):
                    laid[number, use, window] = first + window * beats[number]
        found |= laid
        for (number, use, _), start in laid.items():
            task = program.tasks[number]
            if task.uses:
                free[task.uses[use][0]] = max(free[task.uses[use][0]], start + task.service_ticks)
    return found


def first_start(
    program: Program,
    number: int,
    use: int,
    beat: int,
    found: Starts,
    free: dict[int, int],
    boards: dict[int, Board],
) -> int:
    """The start of event 0 of a task on one of its uses, in the first gap of the beat."""
    task, ready = program.tasks[number], 0
    for window in range(task.events):
        for need, delay in needs_of(program, number, use, window):
            if need[:2] != (number, use):
                ready = max(ready, found[need] + delay - window * beat)
    if not task.uses:
        return ready
    on = task.uses[use][0]
    place = boards.setdefault(on, board(beat if task.events > 1 else 4000))
    ready = place.first(max(ready, free[on]), task.service_ticks)
    assert ready >= 0
    place.take(ready, task.service_ticks)
    return ready


def beats_of(program: Program, schedule: PhaseSchedule) -> list[int]:
    """Ticks from event to event of every task; 0 for a single one."""
    beats = [0] * len(program.tasks)
    for phase in schedule.phases:
        for task in phase.tasks:
            beats[task] = phase.beat if phase.windows > 1 else 0
    return beats


def makespan(program: Program, starts: Starts) -> int:
    return max(start + program.tasks[task].latency_ticks for (task, _, _), start in starts.items())


def expand(program: Program, schedule: PhaseSchedule) -> Starts:
    early = [min(row) for row in earliest(program)]
    return lay_by_tick(program, beats_of(program, schedule), early)


def earliest(program: Program) -> list[list[int]]:
    """Starts of all events without contention, on the first use of every task."""
    starts: Starts = {}
    for number, task in enumerate(program.tasks):
        for use in range(max(1, len(task.uses))):
            for window in range(task.events):
                ready = [starts[need] + delay for need, delay in needs_of(program, number, use, window)]
                starts[number, use, window] = max(ready, default=0)
    return [[starts[number, 0, window] for window in range(task.events)] for number, task in enumerate(program.tasks)]


def agrees_with_ticks(program: Program) -> None:
    """Equal to the loops over ticks; nothing starts before what it needs; no resource does two things at once."""
    schedule = schedule_phases(program)
    starts = expand(program, schedule)
    assert makespan(program, starts) == schedule.latency_ticks
    taken = {
        (task, use): None
        for task in range(len(program.tasks))
        for use in sorted({need.use for reader in program.tasks for need in reader.needs if need.task == task})
    }
    assert [starts[task, use, 0] for task, use in taken] == list(schedule.first)
    check_periodic(program, starts, 1 << 40)


@settings(max_examples=120, deadline=None)
@given(lined_programs())
def test_equals_loops_over_ticks(program: Program) -> None:
    agrees_with_ticks(program)


@settings(max_examples=120, deadline=None)
@given(programs())
def test_equals_loops_over_ticks_where_kernels_slide(program: Program) -> None:
    agrees_with_ticks(program)


@settings(max_examples=120, deadline=None)
@given(programs() | lined_programs())
def test_the_longest_path_is_that_of_the_engine(program: Program) -> None:
    schedule, engine = schedule_phases(program), schedule_program(program)
    assert schedule.latency_bound_ticks == engine.latency_bound_ticks <= schedule.latency_ticks
    assert schedule.interval_ticks == engine.interval_ticks == schedule.interval_bound_ticks
    assert (schedule.loads == engine.loads).all()


@settings(max_examples=120, deadline=None)
@given(lined_programs())
def test_an_event_queue_in_this_order_is_never_later(program: Program) -> None:
    """Served in the order of the schedule, every event starts when the schedule says, or before."""
    starts = expand(program, schedule_phases(program))
    ties = {event: rank for rank, event in enumerate(starts)}
    queue = run_queue(program, starts, ties, 1, 0)
    assert all(when <= starts[event[1:]] for event, when in queue.items())


def two_on_a_chain() -> Program:
    """A task of one event and one of two, both on a unit and on another right behind it."""

    def task(name: str, events: int, latency: int, *needs: Need) -> Task:
        fixed: Any = {"kind": "digital", "uses": ((1, -1), (0, 0)), "service_ticks": 1}
        return Task(name=name, op=name, events=events, latency_ticks=latency, needs=needs, **fixed)

    return make_program([task("t0", 1, 2), task("t1", 2, 0, Need(task=0))], 2)


@settings(max_examples=150, deadline=None)
@example(two_on_a_chain())
@given(lined_programs() | programs())
def test_steady_state_equals_loops_over_ticks(program: Program) -> None:
    schedule = schedule_phases(program)
    if not schedule.met:
        # Alone, no resource is in use for longer than the interval: the same starts, again and again, do not meet.
        assert schedule.periodic_latency_ticks == schedule.latency_ticks
        check_periodic(program, expand(program, schedule), schedule.interval_ticks)
        return
    starts = steady_starts(program, schedule.interval_ticks)
    check_periodic(program, starts, schedule.interval_ticks)
    # Others see the events of a stream as late as the last one makes them, and so does the latency.
    assert makespan(program, starts) == schedule.periodic_latency_ticks


def line_of(windows: int) -> Program:
    """A tile behind a port, and a unit that both read it event by event and read all of it."""
    shared: Any = {"kind": "digital", "events": windows, "service_ticks": 7, "latency_ticks": 9}
    return make_program(
        [
            Task(name="in", kind="input", op="in", events=windows, uses=((0, -1),), service_ticks=3, latency_ticks=3),
            Task(name="a", op="a", uses=((1, -1),), needs=(Need(task=0),), **shared),
            Task(name="b", op="b", uses=((2, -1),), needs=(Need(task=1),), **shared),
            Task(name="c", op="c", uses=((1, -1),), needs=(Need(task=2), Need(task=0, access=ALL)), **shared),
        ],
        3,
    )


def test_work_does_not_grow_with_the_windows() -> None:
    """A million million windows: beats of 7 ticks for the port, tile and unit, of 7 for what reads all, by hand."""
    short, long = schedule_phases(line_of(10)), schedule_phases(line_of(10**12))
    assert [phase.beat for phase in long.phases] == [phase.beat for phase in short.phases] == [7, 7]
    for schedule, windows in ((short, 10), (long, 10**12)):
        # in 3, a 9, b 9; c from where a leaves the unit, and not before b has its event, nor in has its last.
        first_a, first_b = 3, 3 + 9
        first_c = max(first_a + 7 * windows, first_b + 9, 7 * (windows - 1) + 3)
        assert schedule.latency_ticks == first_c + 7 * (windows - 1) + 9
        assert schedule.interval_ticks == 14 * windows
        assert schedule.first.tolist() == [0, first_a, first_b]
        # The tile is in use from 3 to 3 + 14 * windows, no longer than the interval: samples do not meet.
        assert not schedule.met
        assert schedule.periodic_latency_ticks == schedule.latency_ticks


def test_a_beat_grows_where_gaps_are_too_short() -> None:
    """Three tasks that take 64, 1 and 64 of a unit: the second one leaves gaps of 63 ticks in a beat of 129."""

    def task(name: str, service: int, *needs: int) -> Task:
        return Task(
            name=name,
            kind="digital",
            op=name,
            events=100,
            uses=((0, -1),),
            service_ticks=service,
            latency_ticks=96,
            needs=tuple(Need(task=need) for need in needs),
        )

    program = make_program([task("a", 64), task("b", 1, 0), task("c", 64, 1)], 1)
    agrees_with_ticks(program)
    (phase,) = schedule_phases(program).phases
    assert 129 < phase.beat <= 2 * 129


@pytest.mark.parametrize(
    ("access", "windows", "made"),
    [
        (SAME, 5, 5),
        (SAME, 7, 3),
        (SAME, 3, 7),
        (ALL, 4, 6),
        (Access(kind="previous"), 6, 6),
        (Access(kind="previous"), 6, 2),
        (
            Access(
                kind="sliding", input_size=(9,), output_size=(4,), kernel=(3,), stride=(2,), padding=(0,), dilation=(1,)
            ),
            4,
            9,
        ),
        (Access(kind="stretched", input_size=(3,), output_size=(6,), stride=(2,), padding=(0,)), 6, 3),
    ],
)
@pytest.mark.parametrize(("pace", "beat"), [(0, 0), (3, 3), (2, 7), (9, 4), (5, 0)])
def test_lines_that_wait_for_lines(access: Access, windows: int, made: int, pace: int, beat: int) -> None:
    needed = [(window, access.last_needed(window, made)) for window in range(windows)]
    late = [pace * event - beat * window for window, event in needed if event >= 0]
    assert line_shift(access, windows, made, pace, beat) == max(late)
