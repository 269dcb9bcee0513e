"""Latency, interval, energy, counts and busy times of a program, with the bounds they stand against."""

from collections.abc import Iterable
from math import fsum
from typing import Literal

from aimc_compiler.mapping.ticks import exact
from aimc_compiler.program.bounds import Bound, bound_energy
from aimc_compiler.program.engine import Schedule
from aimc_compiler.program.ir import COMPONENTS, Program, Task
from aimc_compiler.program.phases import PhaseSchedule
from aimc_compiler.program.schedule import find_schedule
from aimc_compiler.records import record


@record
class Counts:
    """Per sample. bits_moved: over links, each transfer once; bit_hops: each transfer times its links."""

    mvms: int
    row_group_activations: int
    dac_conversions: int
    adc_conversions: int
    bits_moved: int
    bit_hops: int


@record
class Timing:
    """What one sample costs.

    latency: one sample alone in the machine; interval: between two samples in steady state, proven sustainable, so
    throughput is its inverse; steady_latency: of a sample among others. schedule: how start times were found, event
    by event ("events") or, where they are very many, phase by phase ("phases"). energy_j: the sum of
    ``energy_by_component``, and of ``energy_by_op``. busy_ticks: a sample, by resource in use; utilization: that over
    the interval.
    rounding_s: time that rounding up to whole ticks added, summed over all events. tops: 1 MAC = 2 operations.
    """

    workload: str
    chip: str
    tick_s: float
    latency_ticks: int
    latency_s: float
    interval_ticks: int
    interval_s: float
    steady_latency_ticks: int
    steady_latency_s: float
    schedule: Literal["events", "phases"]
    throughput_per_s: float
    energy_j: float
    energy_by_component: dict[str, float]
    energy_by_op: dict[str, float]
    busy_ticks: dict[str, int]
    utilization: dict[str, float]
    bounds: dict[str, Bound]
    counts: Counts
    rounding_s: float
    macs: int
    tops: float
    tops_per_w: float


def simulate(program: Program) -> Timing:
    """Simulates a program once, exactly; the result depends on no data.

    Raises NotBuiltError for programs that no schedule takes (``find_schedule``).
    """
    return summarise(program, find_schedule(program))


def summarise(program: Program, schedule: Schedule | PhaseSchedule) -> Timing:
    """The figures of a schedule."""
    latency_s, interval_s = (_seconds(ticks, program) for ticks in (schedule.latency_ticks, schedule.interval_ticks))
    by_component = energy_by_component(program)
    energy_j = fsum(by_component.values())
    loads = {resource.name: int(load) for resource, load in zip(program.resources, schedule.loads, strict=True) if load}
    return Timing(
        workload=program.workload,
        chip=program.chip,
        tick_s=program.tick_s,
        latency_ticks=schedule.latency_ticks,
        latency_s=latency_s,
        interval_ticks=schedule.interval_ticks,
        interval_s=interval_s,
        steady_latency_ticks=schedule.periodic_latency_ticks,
        steady_latency_s=_seconds(schedule.periodic_latency_ticks, program),
        schedule="phases" if isinstance(schedule, PhaseSchedule) else "events",
        throughput_per_s=1 / interval_s,
        energy_j=energy_j,
        energy_by_component=by_component,
        energy_by_op=_energy_by_op(program),
        busy_ticks=loads,
        utilization={name: load / schedule.interval_ticks for name, load in loads.items()},
        bounds={
            "latency_s": Bound(value=latency_s, bound=_seconds(schedule.latency_bound_ticks, program)),
            "interval_s": Bound(value=interval_s, bound=_seconds(schedule.interval_bound_ticks, program)),
            "energy_j": Bound(value=energy_j, bound=bound_energy(program)),
            "tiles": Bound(value=program.tiles, bound=program.tiles_bound),
        },
        counts=count(program),
        rounding_s=fsum(task.events * task.rounding_ticks for task in program.tasks) * program.tick_s,
        macs=program.macs,
        tops=2 * program.macs / interval_s / 1e12,
        tops_per_w=2 * program.macs / energy_j / 1e12 if energy_j else 0.0,
    )


def count(program: Program) -> Counts:
    """Everything that is counted of one sample."""
    tasks = program.tasks
    moves = [task for task in tasks if task.kind == "transfer"]
    return Counts(
        mvms=sum(task.events * task.mvms for task in tasks),
        row_group_activations=sum(task.events * task.row_groups for task in tasks),
        dac_conversions=sum(task.events * task.dac_conversions for task in tasks),
        adc_conversions=sum(task.events * task.adc_conversions for task in tasks),
        bits_moved=sum(task.events * task.bits for task in moves),
        bit_hops=sum(task.events * task.bits * len(task.uses) for task in moves),
    )


def energy_by_component(program: Program) -> dict[str, float]:
    """Joules a sample of every component."""
    return {component: _energy(program.tasks, component) for component in COMPONENTS}


def _energy(tasks: Iterable[Task], component: str) -> float:
    return fsum(task.events * energy for task in tasks for name, energy in task.energy_j if name == component)


def _energy_by_op(program: Program) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for task in program.tasks:
        parts.setdefault(task.op, []).extend(task.events * energy for _, energy in task.energy_j)
    return {op: fsum(energies) for op, energies in parts.items()}


def _seconds(ticks: int, program: Program) -> float:
    return float(ticks * exact(program.tick_s))
