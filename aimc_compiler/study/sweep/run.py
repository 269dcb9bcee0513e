"""`run_sweep`: whatever of a sweep is not done yet, then its table. Results do not depend on who computed them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from aimc_compiler.errors import SweepError
from aimc_compiler.records import record
from aimc_compiler.study.sweep.cell import Task, one_thread
from aimc_compiler.study.sweep.definition import Sweep
from aimc_compiler.study.sweep.files import locked, write_whole
from aimc_compiler.study.sweep.folder import SweepFolder
from aimc_compiler.study.sweep.on_dask import run_on_dask
from aimc_compiler.study.sweep.prepare import Preparation, Sources, Tell
from aimc_compiler.study.sweep.processes import Processes
from aimc_compiler.study.sweep.runners import Outcome, run_here
from aimc_compiler.study.sweep.table import SweepResult, csv_text, gather, json_text

#: (finished cells, all cells, seconds since the first began, how many were finished by then).
Progress = Callable[[int, int, float, int], None]


@record
class SweepState:
    """What a folder holds of a sweep. cells: names in order; done: of those; damaged: what is wrong, by name."""

    cells: tuple[str, ...]
    done: tuple[str, ...]
    damaged: dict[str, str]


def sweep_state(sweep: Sweep, folder: str | Path) -> SweepState:
    """Look without changing anything. Raises SweepError where the folder holds another sweep."""
    held = SweepFolder(Path(folder))
    cells = list(sweep.cells())
    held.open(sweep, write=False)
    done, damaged = held.read_cells(cells)
    return SweepState(cells=tuple(cell.name for cell in cells), done=tuple(done), damaged=damaged)


def run_sweep(
    sweep: Sweep,
    folder: str | Path,
    sources: Sources,
    *,
    workers: int = 1,
    dask: str | None = None,
    retries: int = 2,
    tell: Tell = lambda text: None,
    progress: Progress = lambda done, total, seconds, before: None,
) -> SweepResult:
    """Compute the cells that ``folder`` lacks, write results.json and results.csv there, and return them.

    sources: what references stand for. workers: processes; 1 computes in this one. dask: "local" or a scheduler's
    address, in their place. retries: how often a cell is tried again whose worker died. tell: takes a line at a time.
    Raises SweepError on a folder that is in use or of another sweep, on settings that do not compile or calibrate, and
    on cells that failed, once all others are done.

    Example:
        >>> run_sweep(read_sweep(Path("sweep.yaml")), "out", sources, workers=2).rows[0].mean  # doctest: +SKIP
        0.906
    """
    if workers < 1 or retries < 0:
        raise SweepError(f"{workers} workers and {retries} retries: give 1 or more, and 0 or more")
    held = SweepFolder(Path(folder))
    held.make()
    with locked(held.lock) as before, one_thread():
        if before:
            tell(f"{before} ended without finishing; going on from its cells")
        held.open(sweep)
        cells = list(sweep.cells())
        with Processes(workers, retries) as processes:
            if workers > 1 and dask is None:
                processes.begin(sum(not held.cell_path(cell.name).exists() for cell in cells))
            preparation = Preparation(sweep, held, sources, tell)
            reference = preparation.reference()
            results, damaged = held.read_cells(cells, reference)
            for text in damaged.values():
                tell(f"{text}: it is computed again")
            programs = preparation.programs()
            tasks = [preparation.task(cell) for cell in cells if cell.name not in results]
            if tasks:
                runner = _runner(tasks, workers, dask, processes)
                _compute(_keep(runner, held, reference), sweep, results, tell, progress)
        result = gather(sweep, results, reference, programs)
        write_whole(held.path / "results.json", json_text(result).encode())
        write_whole(held.path / "results.csv", csv_text(result).encode())
    return result


def _runner(tasks: Sequence[Task], workers: int, dask: str | None, processes: Processes) -> Iterator[Outcome]:
    if dask is not None:
        return run_on_dask(tasks, dask, workers, processes.retries)
    return run_here(tasks) if workers == 1 else processes.run(tasks)


def _keep(runner: Iterator[Outcome], held: SweepFolder, reference: dict[str, Any]) -> Iterator[Outcome]:
    """The same outcomes, each finished one written to the folder before it counts."""
    with closing(runner) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            if outcome.result is not None:
                held.write_cell(outcome.cell, outcome.result, reference)
            yield outcome


def _compute(
    runner: Iterator[Outcome],
    sweep: Sweep,
    results: dict[str, dict[str, Any]],
    tell: Tell,
    progress: Progress,
) -> None:
    """Add what the runner finds to ``results``. Raises SweepError once all have ended."""
    titles = {
        cell.name: f"{cell.name} (chip {cell.chip_index}, {_title(sweep, cell.setting)})" for cell in sweep.cells()
    }
    failed: list[str] = []
    before, start = len(results), time.monotonic()
    with closing(runner) as outcomes:  # type: ignore[type-var]
        for outcome in outcomes:
            title = titles[outcome.cell]
            if outcome.died:
                tell(f"the worker of {title} died: {outcome.died}; the cell is tried again")
            elif outcome.result is None:
                failed.append(f"{title}: {outcome.error}")
                tell(f"failed: {failed[-1]}")
            else:
                results[outcome.cell] = outcome.result
                progress(len(results), len(titles), time.monotonic() - start, before)
    if failed:
        raise SweepError(
            f"{len(failed)} of {len(titles)} cells failed, the others are kept; first {failed[0]}. Mend it and run the "
            "same command again"
        )


def _title(sweep: Sweep, setting: int) -> str:
    return sweep.settings[setting].title
