"""Programs of workloads made by hand, for the tests."""

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping import Mapping, map_workload
from aimc_compiler.program import Program, Task, lower_mapping, verify_program
from aimc_compiler.workload.ir import Workload


def lowered(workload: Workload, chip: ChipSpec) -> Program:
    """The verified program of a workload that fits."""
    mapping = map_workload(workload, chip)
    assert isinstance(mapping, Mapping), str(mapping)
    program = lower_mapping(workload, mapping, chip)
    verify_program(program)
    return program


def named(program: Program, part: str) -> list[Task]:
    """Tasks with this in their name."""
    return [task for task in program.tasks if part in task.name]
