"""What a run must do by the program: the MVMs and conversions that its values are compared with.

An expert of a mixture is timed for the windows that it is assumed to see, and computed for all, since the router's
choice is in the values. So the values of an expert take more MVMs than the program has, by as many windows.
"""

from aimc_compiler.chip import ChipSpec
from aimc_compiler.mapping import Mapping
from aimc_compiler.program import Program, output_conversions
from aimc_compiler.records import record
from aimc_compiler.workload import Workload


@record
class Planned:
    """Per sample. mvms: computed, by operation; conversions: of all their outputs; timed: MVMs that the program has."""

    mvms: dict[str, int]
    conversions: int
    timed: int


def planned_work(workload: Workload, mapping: Mapping, program: Program, chip: ChipSpec) -> Planned:
    """What the values of one sample take: the program's own, and what it leaves out of experts."""
    mvms = {op.name: 0 for op in workload.analog_ops}
    for task in program.tasks:
        if task.mvms:
            mvms[task.op] += task.events * task.mvms
    timed = sum(mvms.values())
    conversions = sum(task.events * task.adc_conversions for task in program.tasks)
    for op in workload.analog_ops:
        left_out = op.computed_windows - op.windows
        if left_out:
            pieces = [piece for piece in mapping.pieces_of(op.matrix) if piece.replica == 0]
            mvms[op.name] += left_out * len(pieces)
            conversions += left_out * sum(output_conversions(chip, piece) for piece in pieces)
    return Planned(mvms=mvms, conversions=conversions, timed=timed)
