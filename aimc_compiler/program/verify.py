"""Invariants of a Program: needs point backwards, in time at least, and inside; resources, energies, times are sane."""

from functools import lru_cache
from math import isfinite

import numpy as np

from aimc_compiler.errors import VerificationError
from aimc_compiler.program.events import last_needed, task_loops
from aimc_compiler.program.ir import COMPONENTS, Need, Program, Task
from aimc_compiler.program.links import Links
from aimc_compiler.workload.ir import Access


def verify_program(program: Program) -> None:
    """Raises VerificationError with the task that breaks an invariant."""
    names: dict[str, int] = {}
    for index, task in enumerate(program.tasks):
        if names.setdefault(task.name, index) != index:
            raise VerificationError(f"two tasks are called {task.name!r}")
        _verify_task(program, index, task)
    for routing in program.routings:
        if not 1 <= routing.active <= routing.experts:
            raise VerificationError(f"mixture {routing.mixture!r} takes {routing.assumption}")
    for loop in task_loops(program):
        _verify_loop(program, loop)


def _verify_task(program: Program, index: int, task: Task) -> None:
    if task.events < 1:
        raise VerificationError(f"task {task.name!r} has {task.events} events")
    if min(task.service_ticks, task.latency_ticks, task.hop_ticks, task.bits, task.mvms) < 0:
        raise VerificationError(f"task {task.name!r} has a negative time or count")
    if task.uses:
        _verify_uses(program, task)
    for component, energy_j in task.energy_j:
        if component not in COMPONENTS or not isfinite(energy_j) or energy_j < 0:
            raise VerificationError(f"task {task.name!r} books {energy_j} J under {component!r}")
    for need in task.needs:
        _verify_need(program, index, task, need)


def _verify_uses(program: Program, task: Task) -> None:
    if not isinstance(task.uses, Links):
        for use, (resource, before) in enumerate(task.uses):
            if not 0 <= resource < len(program.resources) or not -1 <= before < use:
                raise VerificationError(
                    f"use {use} of task {task.name!r} is of resource {resource} behind use {before}"
                )
        return
    resources, follows = task.uses.resources, task.uses.before
    wrong = (resources < 0) | (resources >= len(program.resources)) | (follows < -1)
    wrong |= follows >= np.arange(len(follows))
    for use in np.flatnonzero(wrong).tolist():
        raise VerificationError(
            f"use {use} of task {task.name!r} is of resource {resources[use]} behind use {follows[use]}"
        )


def _verify_need(program: Program, index: int, task: Task, need: Need) -> None:
    feedback = need.access.kind == "previous"
    if not 0 <= need.task < (len(program.tasks) if feedback else index):
        raise VerificationError(f"task {task.name!r} needs task {need.task}, which does not stand before it")
    producer = program.tasks[need.task]
    if not 0 <= need.use < max(1, len(producer.uses)):
        raise VerificationError(f"task {task.name!r} needs use {need.use} of {producer.name!r}: there is none")
    least, most = _needed(need.access, task.events, producer.events)
    if least < (-1 if feedback else 0) or most >= producer.events:
        raise VerificationError(
            f"task {task.name!r} needs window {most} of {producer.name!r}, which has {producer.events}"
        )


@lru_cache(maxsize=256)
def _needed(access: Access, windows: int, input_windows: int) -> tuple[int, int]:
    """The least and the greatest window that is needed."""
    if access.kind == "same":
        return 0, min(windows, input_windows) - 1
    if access.kind == "all":
        return input_windows - 1, input_windows - 1
    table = last_needed(access, windows, input_windows)
    return int(table.min()), int(table.max())


def _verify_loop(program: Program, loop: list[int]) -> None:
    """No event of a loop needs a later one of another task of it: step by step, all of them can happen."""
    members = set(loop)
    for task in (program.tasks[index] for index in loop):
        for need in task.needs:
            maker = program.tasks[need.task]
            table = last_needed(need.access, task.events, maker.events)
            late = np.flatnonzero(table > np.arange(task.events))
            if need.task in members and len(late):
                raise VerificationError(
                    f"task {task.name!r} is in a loop with {maker.name!r}, but its window {late[0]} needs window "
                    f"{table[late[0]]} of it"
                )
