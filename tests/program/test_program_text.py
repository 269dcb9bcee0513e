"""The text form and the verifier of programs."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from chips_by_hand import chip_by_hand, residual_network, tile_by_hand

from aimc_compiler.errors import TextFormError, VerificationError
from aimc_compiler.mapping import Mapping, map_workload
from aimc_compiler.program import Need, Program, lower_mapping, parse_program, print_program, simulate, verify_program
from aimc_compiler.workload.ir import Access

PREVIOUS = Access(kind="previous")


@pytest.fixture(scope="module")
def program() -> Program:
    workload, chip = residual_network(), chip_by_hand(tile_by_hand(32, 32))
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping)
    return lower_mapping(workload, mapping, chip)


def test_round_trip(program: Program) -> None:
    text = print_program(program)
    again = parse_program(text)
    assert again == program
    assert print_program(again) == text
    assert simulate(again) == simulate(program)
    assert text.splitlines()[1] == 'resource name="host in" kind="host"'
    assert 'task name="stem.mvm[g0,r0,c0]" kind="mvm" op="stem" events=64 uses=[[1,-1]]' in text


def test_text_faults_are_located(program: Program) -> None:
    text = print_program(program)
    with pytest.raises(TextFormError, match=r"line 3: no record is called 'rsource'"):
        parse_program(text.replace("resource", "rsource").replace("rsource", "resource", 1))
    with pytest.raises(TextFormError, match="begins with its one 'program' line"):
        parse_program(text + text)


def _with_task(number: int, **changes: object) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        tasks = list(program.tasks)
        tasks[number] = replace(tasks[number], **changes)  # type: ignore[arg-type]
        return replace(program, tasks=tuple(tasks))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with_task(1, name="x.input"), "two tasks are called 'x.input'"),
        (_with_task(1, events=0), "has 0 events"),
        (_with_task(1, service_ticks=-1), "negative time or count"),
        (_with_task(1, uses=((999, -1),)), "use 0 of task .* is of resource 999 behind use -1"),
        (_with_task(1, uses=((0, 0),)), "is of resource 0 behind use 0"),
        (_with_task(1, energy_j=(("magic", 1.0),)), "books 1.0 J under 'magic'"),
        (_with_task(1, energy_j=(("adc", float("nan")),)), "books nan J"),
        (_with_task(1, needs=(Need(task=1),)), "needs task 1, which does not stand before it"),
        (_with_task(1, needs=(Need(task=99999, access=PREVIOUS),)), "needs task 99999, which does not stand before"),
        (
            _with_task(1, needs=(Need(task=0), Need(task=9, access=PREVIOUS))),
            "'s0.first.mvm.*' is in a loop with 's0.first.send.*', but its window 0 needs window 9 of it",
        ),
        (_with_task(1, needs=(Need(task=0, use=1),)), "needs use 1 of 'x.input': there is none"),
        (
            _with_task(
                1,
                needs=(
                    Need(
                        task=0,
                        access=Access(
                            kind="sliding",
                            input_size=(99,),
                            output_size=(64,),
                            kernel=(99,),
                            stride=(1,),
                            padding=(0,),
                            dilation=(1,),
                        ),
                    ),
                ),
            ),
            "needs window 98 of 'x.input', which has 64",
        ),
    ],
)
def test_broken_programs_are_caught(program: Program, change: Callable[[Program], Program], message: str) -> None:
    verify_program(program)
    with pytest.raises(VerificationError, match=message):
        verify_program(change(program))
