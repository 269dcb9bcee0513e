"""What no schedule and no placement of this mapping can beat: printed with every result.

Latency: the longest path of dependencies, where tasks never wait for each other's resources (the events of one task
follow each other). Interval: the load of the busiest resource. Energy: the MVMs with their conversions, and one hop
for every transfer. Tiles: ``aimc_compiler.mapping.bounds``.
"""

from math import fsum

import numpy as np

from aimc_compiler.program.events import Ints
from aimc_compiler.program.ir import Program
from aimc_compiler.program.links import Links
from aimc_compiler.records import record


@record
class Bound:
    """value: what was reached; bound: what cannot be beaten; gap: their relative distance, 0 where equal."""

    value: float
    bound: float

    @property
    def gap(self) -> float:
        return self.value / self.bound - 1 if self.bound else 0.0


def resource_loads(program: Program) -> Ints:
    """Busy ticks a sample of each resource: (resources,)."""
    loads = np.zeros(len(program.resources), dtype=np.int64)
    for task in program.tasks:
        if isinstance(task.uses, Links):
            np.add.at(loads, task.uses.resources, task.events * task.service_ticks)
            continue
        for resource, _ in task.uses:
            loads[resource] += task.events * task.service_ticks
    return loads


def bound_energy(program: Program) -> float:
    """Joules a sample of all MVMs and of one hop for every transfer."""
    mvms = (task.events * energy_j for task in program.tasks if task.kind == "mvm" for _, energy_j in task.energy_j)
    hops = (task.events * task.bits * program.energy_per_bit_j for task in program.tasks if task.kind == "transfer")
    return fsum([*mvms, *hops])
