"""`aimc sweep`: one network over chips, times and settings, resumed after any interruption."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from aimc_compiler.cli.options import Json, Plot
from aimc_compiler.cli.reference import Examples, find_calibration, find_data, find_inputs, find_model, limit_samples
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.errors import DataError

_INTERRUPTED = 130


def sweep(
    definition: Annotated[Path, typer.Argument(help="What is varied, a YAML file: docs/sweeps.md has its keys.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The sweep's folder (default: the definition's name, ending in .sweep)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that compute; one is this one.")] = 1,
    dask: Annotated[
        str | None,
        typer.Option(metavar="local|ADDRESS", help="Compute on Dask: a cluster of --workers here, or a scheduler's."),
    ] = None,
    retries: Annotated[int, typer.Option(min=0, help="Tries more of a cell whose worker died.")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and which are done; compute none.")
    ] = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Run a network over chips, times and settings; the same command again goes on where it ended."""
    from aimc_compiler.report.sweep import plot_sweep, require_figure, state_json, state_table, sweep_lines, sweep_table
    from aimc_compiler.study.sweep import read_sweep, result_json, run_sweep, sweep_state

    asked = read_sweep(definition)
    folder = out or Path(f"{definition.stem}.sweep")
    if dry_run:
        state = sweep_state(asked, folder)
        if as_json:
            print(json.dumps(state_json(asked, state), indent=2))  # noqa: T201
        else:
            terminal().print(state_table(asked, state))
        return
    if plot is not None:
        require_figure(plot, asked)
    try:
        result = run_sweep(
            asked, folder, Named(), workers=workers, dask=dask, retries=retries, tell=_tell, progress=_progress
        )
    except KeyboardInterrupt:
        _tell("interrupted: finished cells are kept, and the same command goes on from them")
        raise typer.Exit(_INTERRUPTED) from None
    if plot is not None:
        plot_sweep(result, plot)
    if as_json:
        print(json.dumps(result_json(result), indent=2))  # noqa: T201
        return
    console = terminal()
    console.print(sweep_table(result))
    console.print(*sweep_lines(result), sep="\n", style="dim", markup=False)
    console.print(f"\nwrote {folder}/results.json, {folder}/results.csv{f', {plot}' if plot else ''}", markup=False)


class Named:
    """References as every command takes them."""

    def network(self, reference: str) -> tuple[nn.Module, Examples]:
        """(the network, example inputs)."""
        return find_model(reference)

    def data(self, reference: str, batch: int, limit: int | None, entry: str | None) -> list[tuple[Any, Any]]:
        """Batches of (inputs, targets)."""
        return limit_samples(find_data(reference, batch, entry), limit)

    def inputs(self, reference: str, batch: int, entry: str | None) -> list[Any]:
        """Batches of inputs. Raises DataError where there are none."""
        found = find_inputs(reference, batch, entry)
        if not found:
            raise DataError(f"{reference} holds no batches: give at least one")
        return found

    def calibration(self, reference: str, batch: int) -> list[Any] | dict[str, list[Any]]:
        """Batches of inputs, by entry where the data is."""
        return find_calibration(reference, batch)


def _tell(text: str) -> None:
    print(f"aimc sweep: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _progress(done: int, total: int, seconds: float, before: int) -> None:
    """One line that is written over on a terminal, one for each tenth elsewhere."""
    left = seconds / (done - before) * (total - done)
    line = f"{done} of {total} cells, {left:.0f} s to go"
    if sys.stderr.isatty():
        print(f"\r{line:<50}", end="" if done < total else "\n", file=sys.stderr, flush=True)  # noqa: T201
    elif done == total or done * 10 // total > (done - 1) * 10 // total:
        _tell(line)
