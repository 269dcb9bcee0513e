"""Which schedule a program gets: event by event where that takes seconds, else phase by phase."""

from aimc_compiler.errors import NotBuiltError
from aimc_compiler.program.engine import Schedule, schedule_program
from aimc_compiler.program.events import EVENT_LIMIT, USE_LIMIT
from aimc_compiler.program.ir import Need, Program, Task
from aimc_compiler.program.phases import PhaseSchedule, schedule_phases

#: More events a sample than this take tens of seconds one by one.
MANY_EVENTS = 10_000_000


def find_schedule(program: Program) -> Schedule | PhaseSchedule:
    """Start times of all events of a program.

    Up to ``MANY_EVENTS`` on all resources, they are found one by one (``engine.py``). Above, phase by phase
    (``phases.py``) where everything is read window by window or as a whole. Sliding kernels and loops are better off
    one by one, up to ``USE_LIMIT`` and ``EVENT_LIMIT``. Raises NotBuiltError above those for loops, and for sliding
    kernels of very many windows.
    """
    uses = sum(len(task.uses) for task in program.tasks)
    events = sum(task.events * max(1, len(task.uses)) for task in program.tasks)
    if uses <= USE_LIMIT and (events <= min(MANY_EVENTS, EVENT_LIMIT) or not reads_in_lines(program)):
        try:
            return schedule_program(program)
        except NotBuiltError:
            pass  # too many events one by one: phases take more, and say what they do not take
    return schedule_phases(program)


def reads_in_lines(program: Program) -> bool:
    """Whether every task reads event by event, of as many, or everything."""
    return all(_in_line(task, program.tasks[need.task], need) for task in program.tasks for need in task.needs)


def _in_line(task: Task, maker: Task, need: Need) -> bool:
    return need.access.kind == "all" or (need.access.kind == "same" and task.events == maker.events)
