"""Data of the Program: what each resource of the chip does for one sample, loops kept as loops.

A task is one loop: the same event ``events`` times, in order. The size of a program follows from the number of pieces
and operations, not from the number of windows.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator

from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access, Routing

ResourceKind = Literal["tile", "local", "unit", "link", "host"]
TaskKind = Literal["input", "transfer", "mvm", "local", "digital", "view", "output"]

#: Components that energy is booked under, in the order they are printed.
COMPONENTS = ("dac", "array", "adc", "local_digital", "digital", "network")


@record
class Resource:
    """Something that serves one event at a time: a tile, its local digital unit, a global unit, a link, a host port."""

    name: str
    kind: ResourceKind


@record
class Need:
    """Event k of a task needs event ``access.last_needed(k)`` of an earlier task, and with it all before that one.

    With access "previous" the task may also stand behind, or be the same one: the feedback of a recurrent layer.
    use: which use of that task's resources brings it: the last link on the way to this consumer (0 for other tasks).
    """

    task: int
    use: int = 0
    access: Access = Access(kind="same")


#: Of the uses of a task: a tuple, or for long transfers a ``Links``, which reads and compares as one.
Uses = Annotated[Sequence[tuple[int, int]], AfterValidator(tuple)]


@record
class Task:
    """One loop of the program.

    op: the operation of the workload it belongs to. uses: (resource index, use that it follows or -1): one resource,
    none for a view, or the links of a transfer, where each link is entered ``hop_ticks`` after the one before it, or
    later if it is busy. service_ticks: for which an event occupies each; latency_ticks: from its start on a resource
    to what it brings being there; rounding_ticks: what rounding up to whole ticks added to an event. needs: what the
    first uses wait for. energy_j: (component, joules) of one event. Per event: mvms, one after another where they are
    several; row_groups (of the MVMs those on the first column block of each row block, so that their sum counts input
    vectors into row blocks); conversions; bits moved.
    """

    name: str
    kind: TaskKind
    op: str
    events: int
    uses: Uses = ()
    service_ticks: int = 0
    latency_ticks: int = 0
    hop_ticks: int = 0
    rounding_ticks: float = 0.0
    needs: tuple[Need, ...] = ()
    energy_j: tuple[tuple[str, float], ...] = ()
    mvms: int = 0
    row_groups: int = 0
    dac_conversions: int = 0
    adc_conversions: int = 0
    bits: int = 0

    @property
    def mvm_ticks(self) -> int:
        """Ticks from the start of one MVM of an event to its outputs; 0 where it makes none."""
        return self.latency_ticks - (self.mvms - 1) * self.service_ticks // self.mvms if self.mvms else 0


@record
class Program:
    """Tasks in an order in which every task stands behind those it needs, except for what it needs of a step before.

    macs: multiply-accumulates of all matrix operations a sample; tiles, tiles_bound: used, and at least needed;
    routings: what is assumed of each mixture of experts, whose tasks have the windows that follow from it.
    """

    workload: str
    chip: str
    tick_s: float
    macs: int
    tiles: int
    tiles_bound: int
    energy_per_bit_j: float
    resources: tuple[Resource, ...]
    tasks: tuple[Task, ...]
    routings: tuple[Routing, ...] = ()

    @property
    def events(self) -> int:
        """Events of one sample."""
        return sum(task.events for task in self.tasks)
