"""Which schedule a program gets, and which programs get none."""

from dataclasses import replace

import pytest
from chips_by_hand import chip_by_hand, residual_network, tile_by_hand
from test_engine import SAME, compiled, make_program, mixer
from test_phases import line_of

from aimc_compiler.errors import NotBuiltError
from aimc_compiler.program import Need, simulate
from aimc_compiler.program import phases as phases_module
from aimc_compiler.program import schedule as schedule_module
from aimc_compiler.program.phases import schedule_phases
from aimc_compiler.workload.ir import Access


def test_which_schedule_a_program_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    lined = compiled(mixer(16, 4), chip_by_hand(digital_units={"count": 2}))
    slid = compiled(residual_network(image=6, sizes=((6, 8),)), chip_by_hand(tile_by_hand(16, 16)))
    assert simulate(lined).schedule == simulate(slid).schedule == "events"
    monkeypatch.setattr(schedule_module, "MANY_EVENTS", 50)
    assert simulate(lined).schedule == "phases"
    assert simulate(slid).schedule == "events"
    monkeypatch.setattr(schedule_module, "USE_LIMIT", 10)
    assert simulate(slid).schedule == "phases"
    monkeypatch.setattr(phases_module, "EVENT_LIMIT", 50)
    with pytest.raises(
        NotBuiltError, match=r"kernels that slide over their inputs is built for up to 50; .*groups_per_"
    ):
        simulate(slid)


@pytest.mark.parametrize(
    ("access", "made", "what"),
    [
        (Access(kind="dealt", input_size=(4,), output_size=(2,)), 2, "windows dealt to experts"),
        (SAME, 3, "windows read by tasks of fewer or more"),
    ],
)
def test_the_refusal_names_what_is_read(access: Access, made: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(4).tasks
    reader = replace(line[1], events=made, needs=(Need(task=0, access=access),))
    monkeypatch.setattr(phases_module, "EVENT_LIMIT", 3)
    with pytest.raises(NotBuiltError, match=rf"timing of networks with {what} is built for up to 3;"):
        schedule_phases(make_program([line[0], reader], 2))


def test_loops_of_many_events_are_refused() -> None:
    loop = replace(line_of(4).tasks[1], needs=(Need(task=0, access=Access(kind="previous")),))
    with pytest.raises(NotBuiltError, match="'made' on 'made' has 4 events a sample: timing of networks with loops"):
        schedule_phases(make_program([loop], 2))
