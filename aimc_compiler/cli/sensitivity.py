"""`aimc sensitivity`: what of a chip costs a network most, and what deserves protection."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from aimc_compiler.cli.reference import DATA_FORMS, find_data, limit_samples
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.compiler.artifact import require_place
from aimc_compiler.study.sensitivity import PARTS

if TYPE_CHECKING:
    from aimc_compiler.study import Sensitivity


EffectNames = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Effects, separated by commas (default: the chip's and more).")
]
MvmError = Annotated[
    float | None, typer.Option(metavar="%", help="MVM error to which each effect is scaled (default: 20).")
]
Baseline = Annotated[
    float | None,
    typer.Option(metavar="%", help="Accuracy that A* takes for 100 % (default: the network's own in float)."),
]


def sensitivity(
    artifact: Artifact,
    data: Annotated[str, typer.Option(help=f"Labelled data: {DATA_FORMS}.")],
    time: Annotated[str, typer.Option(help="Time after programming.")] = "1day",
    chips: Annotated[int, typer.Option(min=1, help="Programmed chips: the same for everything.")] = 10,
    parts: Annotated[str, typer.Option(metavar="PARTS", help="What to study, separated by commas.")] = ",".join(PARTS),
    effects: EffectNames = None,
    mvm_error: MvmError = None,
    baseline: Baseline = None,
    threshold: Annotated[float, typer.Option(metavar="%", help="A* down to which an effect is tolerated.")] = 99.0,
    plot: Plot = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write result and settings as JSON.")] = None,
    recalibrate: Recalibrate = "always",
    precision: PrecisionName = "auto",
    batch: Batch = 100,
    limit: Limit = None,
    seed: Seed = 0,
    entry: EntryName = None,
    as_json: Json = False,
) -> None:
    """Find what costs a network most: effects, layers, columns, figures of the chip."""
    from aimc_compiler.report.plot_sensitivity import plot_sensitivity, require_figure
    from aimc_compiler.report.sensitivity import save_sensitivity, sensitivity_json

    time_s = read_time(time)
    for place in (plot, out):
        if place is not None:
            require_place(place)
    if plot is not None:
        require_figure(plot)
    compiled = aimc.load(artifact)
    ran = compiled.entry(entry).name
    found = aimc.sensitivity(
        compiled,
        limit_samples(find_data(data, batch, ran), limit),
        time_s=time_s,
        n_chips=chips,
        seed=seed,
        parts=_names(parts),
        effects=None if effects is None else _names(effects),
        baseline=None if baseline is None else baseline / 100,
        mvm_error=None if mvm_error is None else mvm_error / 100,
        threshold=threshold / 100,
        recalibration=recalibrate,
        precision=parse_precision(precision),
        entry=ran,
    )
    if out is not None:
        save_sensitivity(found, out)
    if plot is not None:
        plot_sensitivity(found, plot)
    if as_json:
        print(json.dumps(sensitivity_json(found), indent=2))  # noqa: T201
        return
    print_study(found)
    for written in (out, plot):
        if written is not None:
            terminal().print(f"\nwrote {written}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def print_study(found: "Sensitivity") -> None:
    """All tables, then what was studied in words."""
    from aimc_compiler.report.sensitivity import (
        effects_table,
        layers_table,
        protection_table,
        sensitivity_lines,
        sweep_table,
        sweep_title,
    )

    console = terminal()
    tables = [effects_table(found)] if found.effects else []
    tables += [layers_table(found)] if found.layers else []
    tables += [protection_table(found)] if found.layers_protected or found.columns else []
    for table in tables:
        console.print(table)
        console.print()
    for swept in found.sweeps:
        console.print(sweep_title(swept), style="bold", markup=False)
        console.print(sweep_table(swept))
        console.print()
    console.print(*sensitivity_lines(found), sep="\n", markup=False)
