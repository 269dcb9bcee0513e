"""What the MVMs that bound management repeats add to the program's time and energy.

How often a tile repeats depends on its inputs, and the program does not: its time and energy hold one MVM a window.
Repeats are therefore priced beside it. Each occupies its tile for one more MVM, from its start to its outputs, since
the outputs before it decide whether it is made; and takes the energy and conversions of one more.
"""

from collections import Counter
from math import fsum

from aimc_compiler.program import Program
from aimc_compiler.records import record


@record
class Repeats:
    """MVMs that bound management repeated, and what they add to the program. by_op: those of each operation.

    time_s: of all of them, one after another; tiles that repeat at the same time take less.
    """

    mvms: int = 0
    dac_conversions: int = 0
    adc_conversions: int = 0
    energy_j: float = 0.0
    time_s: float = 0.0
    by_op: dict[str, int]


def price_repeats(program: Program, counts: Counter[str]) -> Repeats:
    """counts: repeated MVMs by the name of their task in ``program``, where all MVMs of an event are of one size."""
    found = [(task, counts[task.name]) for task in program.tasks if counts[task.name]]
    by_op: Counter[str] = Counter()
    for task, count in found:
        by_op[task.op] += count
    return Repeats(
        mvms=sum(count for _, count in found),
        dac_conversions=sum(count * task.dac_conversions // task.mvms for task, count in found),
        adc_conversions=sum(count * task.adc_conversions // task.mvms for task, count in found),
        energy_j=fsum(count * joules / task.mvms for task, count in found for _, joules in task.energy_j),
        time_s=sum(count * task.mvm_ticks for task, count in found) * program.tick_s,
        by_op=dict(by_op),
    )
