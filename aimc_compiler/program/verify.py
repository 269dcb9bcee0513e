"""Invariants of a Program: needs point backwards and inside, resources exist, energies and times are sane."""

from math import isfinite

from aimc_compiler.errors import VerificationError
from aimc_compiler.program.events import last_needed
from aimc_compiler.program.ir import COMPONENTS, Need, Program, Task


def verify_program(program: Program) -> None:
    """Raises VerificationError with the task that breaks an invariant."""
    names: dict[str, int] = {}
    for index, task in enumerate(program.tasks):
        if names.setdefault(task.name, index) != index:
            raise VerificationError(f"two tasks are called {task.name!r}")
        _verify_task(program, index, task)


def _verify_task(program: Program, index: int, task: Task) -> None:
    if task.events < 1:
        raise VerificationError(f"task {task.name!r} has {task.events} events")
    if min(task.service_ticks, task.latency_ticks, task.hop_ticks, task.bits, task.mvms) < 0:
        raise VerificationError(f"task {task.name!r} has a negative time or count")
    for use, (resource, before) in enumerate(task.uses):
        if not 0 <= resource < len(program.resources) or not -1 <= before < use:
            raise VerificationError(f"use {use} of task {task.name!r} is of resource {resource} behind use {before}")
    for component, energy_j in task.energy_j:
        if component not in COMPONENTS or not isfinite(energy_j) or energy_j < 0:
            raise VerificationError(f"task {task.name!r} books {energy_j} J under {component!r}")
    for need in task.needs:
        _verify_need(program, index, task, need)


def _verify_need(program: Program, index: int, task: Task, need: Need) -> None:
    if not 0 <= need.task < index:
        raise VerificationError(f"task {task.name!r} needs task {need.task}, which does not stand before it")
    producer = program.tasks[need.task]
    if not 0 <= need.use < max(1, len(producer.uses)):
        raise VerificationError(f"task {task.name!r} needs use {need.use} of {producer.name!r}: there is none")
    table = last_needed(need.access, task.events, producer.events)
    if table.min() < 0 or table.max() >= producer.events:
        raise VerificationError(
            f"task {task.name!r} needs window {table.max()} of {producer.name!r}, which has {producer.events}"
        )
