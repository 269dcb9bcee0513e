"""`aimc compare`: where along the network the chip's values leave those of the float network."""

import json
from typing import Annotated

import typer

import aimc_compiler as aimc
from aimc_compiler.analog.fast import parse_precision
from aimc_compiler.cli.options import (
    Artifact,
    Batch,
    EntryName,
    Json,
    Limit,
    Plot,
    PrecisionName,
    Recalibrate,
    Seed,
    read_time,
)
from aimc_compiler.cli.reference import DATA_FORMS, find_inputs, limit_samples
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.study.comparison import THRESHOLD_DB


def compare(
    artifact: Artifact,
    data: Annotated[str, typer.Option(help=f"Data whose inputs are run: {DATA_FORMS}.")],
    time: Annotated[str, typer.Option(help="Time after programming.")] = "1day",
    chips: Annotated[int, typer.Option(min=1, help="Programmed chips to average over.")] = 1,
    threshold: Annotated[float, typer.Option(metavar="DB", help="Below it an operation is broken.")] = THRESHOLD_DB,
    every: Annotated[bool, typer.Option("--all", help="Show every operation, views included.")] = False,
    plot: Plot = None,
    recalibrate: Recalibrate = "always",
    precision: PrecisionName = "auto",
    batch: Batch = 100,
    limit: Limit = None,
    seed: Seed = 0,
    entry: EntryName = None,
    as_json: Json = False,
) -> None:
    """Compare the chip with the float network, operation by operation, on the same samples."""
    from aimc_compiler.report import comparison_json, comparison_lines, comparison_table, plot_comparison

    time_s = read_time(time)
    compiled = aimc.load(artifact)
    ran = compiled.entry(entry).name
    inputs = find_inputs(data, batch, ran)
    if limit is not None:
        inputs = [first for first, _ in limit_samples([(each, each) for each in inputs], limit)]
    found = aimc.compare(
        compiled,
        inputs,
        time_s,
        n_chips=chips,
        seed=seed,
        threshold_db=threshold,
        recalibration=recalibrate,
        precision=parse_precision(precision),
        entry=ran,
    )
    if plot is not None:
        plot_comparison(found, plot)
    if as_json:
        print(json.dumps(comparison_json(found), indent=2))  # noqa: T201
        return
    console = terminal()
    console.print(comparison_table(found, every=every))
    console.print()
    console.print(*comparison_lines(found, every=every), sep="\n", markup=False)
    if plot is not None:
        console.print(f"\nwrote {plot}")
