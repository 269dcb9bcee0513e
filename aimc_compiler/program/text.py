"""The text form of a Program, which parses back to the same value, and a listing for people."""

from aimc_compiler.program.ir import Program, Resource, Task
from aimc_compiler.records import parse_headed, print_records, record
from aimc_compiler.workload.ir import Routing


@record
class Header:
    """The first line."""

    workload: str
    chip: str
    tick_s: float
    macs: int
    tiles: int
    tiles_bound: int
    energy_per_bit_j: float
    routings: tuple[Routing, ...] = ()


_KINDS: dict[str, type] = {"program": Header, "resource": Resource, "task": Task}


def print_program(program: Program) -> str:
    """Text that ``parse_program`` reads back: a ``program`` line, a line a resource, a line a task."""
    header = Header(
        workload=program.workload,
        chip=program.chip,
        tick_s=program.tick_s,
        macs=program.macs,
        tiles=program.tiles,
        tiles_bound=program.tiles_bound,
        energy_per_bit_j=program.energy_per_bit_j,
        routings=program.routings,
    )
    resources = [("resource", resource) for resource in program.resources]
    return print_records([("program", header), *resources, *(("task", task) for task in program.tasks)])


def parse_program(text: str) -> Program:
    """The Program of a text. Raises TextFormError with the line, or where the header is not the one first record."""
    header, records = parse_headed(text, _KINDS, "program")
    return Program(
        workload=header.workload,
        chip=header.chip,
        tick_s=header.tick_s,
        macs=header.macs,
        tiles=header.tiles,
        tiles_bound=header.tiles_bound,
        energy_per_bit_j=header.energy_per_bit_j,
        routings=header.routings,
        resources=tuple(item for item in records if isinstance(item, Resource)),
        tasks=tuple(item for item in records if isinstance(item, Task)),
    )


def disassemble(program: Program) -> str:
    """A line a task: number, what, how often, where, how long, after which tasks."""
    head = (
        f"# {program.workload} on {program.chip}: {len(program.tasks)} tasks, {program.events} events a sample, "
        f"tick {program.tick_s:g} s\n"
    )
    head += "".join(f"# {routing.mixture}: {routing.assumption}\n" for routing in program.routings)
    return head + "".join(_line(program, index, task) for index, task in enumerate(program.tasks))


def _line(program: Program, index: int, task: Task) -> str:
    names = [program.resources[resource].name for resource, _ in task.uses[:4]]
    where = ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(task.uses) - 1} more links"
    after = ", ".join(
        f"{need.task}{'' if need.access.kind == 'same' else ':' + need.access.kind}" for need in task.needs
    )
    time = f"{task.latency_ticks} ticks, next after {task.service_ticks}"
    parts = [f"{index:5d} {task.kind:8s} {task.name}", f"x{task.events}", time]
    parts[2] += f" for {task.mvms} MVMs" * (task.mvms > 1)
    parts += [f"on {where}"] * bool(where) + [f"after {after}"] * bool(after)
    return " | ".join(parts) + "\n"
