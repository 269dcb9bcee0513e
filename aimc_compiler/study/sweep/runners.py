"""How cells get done: here one after another, on processes (``processes.py``) or on Dask (``on_dask.py``).

A runner yields an outcome for each cell, in the order in which they end.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from aimc_compiler.records import record
from aimc_compiler.study.sweep.cell import Task, answer


@record
class Outcome:
    """Of one cell. result: where it is done; error: why it is not, and will not be; died: its worker did, how, and the
    cell is tried again."""

    cell: str
    result: dict[str, Any] | None = None
    error: str = ""
    died: str = ""


def run_here(tasks: Sequence[Task]) -> Iterator[Outcome]:
    """In this process."""
    for task in tasks:
        yield as_outcome(answer(task.plain()))


def as_outcome(said: dict[str, Any]) -> Outcome:
    """From what ``answer`` gave."""
    return Outcome(cell=said["cell"], result=said.get("result"), error=said.get("error", ""))
