"""The commands. Each reads its arguments, calls the library, and prints a report or ``--json``."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import aimc_compiler as aimc
from aimc_compiler.analog.fast import parse_precision
from aimc_compiler.cli.compare import compare
from aimc_compiler.cli.demo import demo
from aimc_compiler.cli.options import (
    RANGES,
    RANGES_HELP,
    Artifact,
    Batch,
    EntryName,
    Json,
    Limit,
    NamedRules,
    OutputRanges,
    Plot,
    PrecisionName,
    Recalibrate,
    RuleOption,
    Seed,
    Set,
    read_rule_options,
)
from aimc_compiler.cli.reference import (
    DATA_FORMS,
    MODEL_FORMS,
    find_calibration,
    find_data,
    find_inputs,
    find_model,
    limit_samples,
)
from aimc_compiler.cli.sensitivity import sensitivity
from aimc_compiler.cli.support import support
from aimc_compiler.cli.sweep import sweep
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.cli.train import rescaled, train
from aimc_compiler.compiler.artifact import require_place
from aimc_compiler.errors import DataError
from aimc_compiler.units import parse_times

if TYPE_CHECKING:
    from aimc_compiler.study import Evaluation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compile a trained PyTorch network for an analog in-memory chip, and run it on the virtual chip.",
)
app.command()(demo)
app.command()(support)
app.command()(compare)
app.command()(sweep)
app.command()(sensitivity)
app.command()(train)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"aimc_compiler {aimc.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Compile a trained PyTorch network for an analog in-memory chip, and run it on the virtual chip."""


@app.command()
def chips(
    name: Annotated[
        str | None, typer.Argument(help="A built-in chip or a spec file, to print with its sources.")
    ] = None,
    sets: Set = None,
    as_json: Json = False,
) -> None:
    """List the built-in chips, or print one with all its sources."""
    from aimc_compiler.chip import builtin_names, load_chip
    from aimc_compiler.report.chips import chip_json, chip_sheet, chips_table

    if name is not None:
        spec = load_chip(name, overrides=tuple(sets or ()))
        _emit(chip_json(spec) if as_json else chip_sheet(spec), as_json=as_json)
        return
    if sets:
        raise DataError("--set changes one chip: name it, as in `aimc chips hermes --set tile.mvm.mode=four_phase`")
    specs = [load_chip(each) for each in builtin_names()]
    _emit([chip_json(spec) for spec in specs] if as_json else chips_table(specs), as_json=as_json)


@app.command("compile")
def compile_command(
    model: Annotated[str, typer.Argument(help=f"The network: {MODEL_FORMS}.")],
    chip: Annotated[str, typer.Option(help="A built-in chip or a spec file.")] = "analog-fabric",
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the compiled network.")] = Path("out.aimc"),
    calibrate: Annotated[
        str | None, typer.Option(metavar="DATA", help=f"Data that sets input ranges: {DATA_FORMS}.")
    ] = None,
    ranges: Annotated[str | None, typer.Option(help=f"{RANGES_HELP}  [default: {RANGES}]")] = None,
    output_ranges: OutputRanges = None,
    rescale: Annotated[
        str | None, typer.Option(metavar="DATA", help="First balance channels between layers by the first batch of it.")
    ] = None,
    rule: RuleOption = None,
    named_rules: NamedRules = None,
    batch: Batch = 100,
    seed: Seed = 0,
    sets: Set = None,
    as_json: Json = False,
) -> None:
    """Compile a network for a chip and write the artifact."""
    for option, method in (("--ranges", ranges), ("--output-ranges", output_ranges)):
        if method is not None and calibrate is None:
            raise DataError(f"{option} {method} sets nothing without data: add --calibrate DATA")
    require_place(out)
    spec = aimc.load_chip(chip, overrides=tuple(sets or ()))
    rules = read_rule_options(rule or [], named_rules)
    network, example = find_model(model)
    data = None if calibrate is None else find_calibration(calibrate, batch)
    if rescale is not None:
        network = rescaled(network, rescale, batch)
    compiled = aimc.compile(
        network,
        spec,
        example if isinstance(example, tuple) else None,
        data,
        entries=None if isinstance(example, tuple) else example,
        rules=rules,
        range_method=ranges or RANGES,
        output_ranges=output_ranges,
        seed=seed,
    )
    compiled.save(out)
    _inspect(compiled, as_json=as_json, wrote=out)


@app.command()
def calibrate(
    artifact: Artifact,
    data: Annotated[str, typer.Option(help=f"Data whose inputs set the ranges: {DATA_FORMS}.")],
    ranges: Annotated[str, typer.Option(help=RANGES_HELP)] = RANGES,
    output_ranges: OutputRanges = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write (default: in place).")] = None,
    batch: Batch = 100,
    entry: EntryName = None,
    as_json: Json = False,
) -> None:
    """Set the input ranges of a compiled network from data, and its output bounds where the chip calibrates them."""
    require_place(out or artifact)
    loaded = aimc.load(artifact)
    name = None if entry is None else loaded.entry(entry).name
    compiled = loaded.calibrate(find_calibration(data, batch, name), ranges, output_ranges)
    compiled.save(out or artifact)
    _inspect(compiled, entry, as_json=as_json, wrote=out or artifact)


@app.command()
def inspect(artifact: Artifact, entry: EntryName = None, as_json: Json = False) -> None:
    """Show layers, tiles, utilisation, timing and energy."""
    _inspect(aimc.load(artifact), entry, as_json=as_json)


@app.command()
def disasm(artifact: Artifact, entry: EntryName = None, as_json: Json = False) -> None:
    """Print the program: what each resource does, in order."""
    from aimc_compiler.program import print_program

    program = aimc.load(artifact).entry(entry).program
    if as_json:
        _emit(dataclasses.asdict(program), as_json=True)
    else:
        print(print_program(program), end="")  # noqa: T201


@app.command()
def run(
    artifact: Artifact,
    data: Annotated[str, typer.Option(help=f"Labelled data: {DATA_FORMS}.")],
    times: Annotated[str | None, typer.Option(help="Times after programming (default: the chip's).")] = None,
    chips: Annotated[int, typer.Option(min=1, help="Programmed chips to average over.")] = 10,
    seed: Seed = 0,
    recalibrate: Recalibrate = "always",
    columns: Annotated[
        str | None, typer.Option(metavar="DATA", help="Correct each chip's columns at each time by these inputs.")
    ] = None,
    norms: Annotated[
        str | None, typer.Option(metavar="DATA", help="Measure batch norms on each chip at each time by these inputs.")
    ] = None,
    precision: PrecisionName = "auto",
    batch: Batch = 100,
    limit: Limit = None,
    entry: EntryName = None,
    as_json: Json = False,
) -> None:
    """Run a compiled network on the virtual chip, score it over time."""
    from aimc_compiler.report import evaluation_json, timing_json

    compiled = aimc.load(artifact)
    ran = compiled.entry(entry)
    batches = limit_samples(find_data(data, batch, ran.name), limit)
    result = aimc.evaluate(
        compiled,
        batches,
        times_s=None if times is None else parse_times(times),
        n_chips=chips,
        seed=seed,
        recalibration=recalibrate,
        columns=None if columns is None else find_inputs(columns, batch, ran.name),
        norms=None if norms is None else find_inputs(norms, batch, ran.name),
        precision=parse_precision(precision),
        entry=ran.name,
    )
    if as_json:
        _emit({**evaluation_json(result), "timing": timing_json(ran.timing)}, as_json=True)
    else:
        _print_evaluation(compiled, result)


def _print_evaluation(compiled: aimc.CompiledModel, result: "Evaluation") -> None:
    from aimc_compiler.report import (
        counted,
        evaluation_table,
        mixtures_note,
        precision_line,
        repeats_line,
        timing_table,
    )

    console = terminal()
    console.print(
        f"{counted(result.n_samples, 'sample')} on {counted(result.n_chips, 'programmed chip')} of "
        f"{compiled.chip.name}{_which(compiled, result.entry)}, seed {result.seed}; "
        f"drift compensation: {compiled.chip.nonidealities.drift_compensation}, "
        f"recalibrated: {result.recalibration}; corrected: {' and '.join(result.corrections) or 'nothing'}; "
        f"precision: {precision_line(result)}\n"
    )
    console.print(evaluation_table(result))
    console.print()
    console.print(timing_table(compiled.entry(result.entry).timing))
    for line in filter(None, (mixtures_note(compiled.entry(result.entry)), repeats_line(result))):
        console.print(f"\n{line}", markup=False)


@app.command("mvm-error")
def mvm_error_command(
    chip: Annotated[str, typer.Option(help="A built-in chip or a spec file.")] = "analog-fabric",
    times: Annotated[str | None, typer.Option(help="Times after programming (default: the chip's).")] = None,
    chips: Annotated[int, typer.Option(min=1, help="Programmed tiles to average over.")] = 1,
    vectors: Annotated[int, typer.Option(min=1, help="Input vectors a tile and time.")] = 256,
    tile_type: Annotated[str | None, typer.Option(help="Which of the chip's tile types (default: the first).")] = None,
    recalibrate: Recalibrate = "always",
    plot: Plot = None,
    seed: Seed = 0,
    sets: Set = None,
    as_json: Json = False,
) -> None:
    """How far one full tile is off, effect by effect and all together, over time."""
    from aimc_compiler.report import mvm_error_json, mvm_error_lines, mvm_error_table, plot_mvm_error
    from aimc_compiler.study import mvm_error

    spec = aimc.load_chip(chip, overrides=tuple(sets or ()))
    chosen = None if times is None else parse_times(times)
    found = mvm_error(
        spec, chosen, tile_type=tile_type, n_chips=chips, vectors=vectors, seed=seed, recalibration=recalibrate
    )
    if plot is not None:
        plot_mvm_error(found, plot)
    if as_json:
        _emit(mvm_error_json(found), as_json=True)
        return
    console = terminal()
    console.print(mvm_error_table(found))
    console.print(*mvm_error_lines(found), sep="\n", style="dim")
    if plot is not None:
        console.print(f"\nwrote {plot}")


def _inspect(
    compiled: aimc.CompiledModel, entry: str | None = None, *, as_json: bool, wrote: Path | None = None
) -> None:
    """entry: whose layers and timing are shown; of several without one, a line each in the place of the timing."""
    from aimc_compiler.report import (
        chip_map,
        entries_table,
        find_timing,
        inspect_json,
        layers_table,
        summary_table,
        timing_table,
    )

    if as_json:
        _emit(inspect_json(compiled, entry), as_json=True)
        return
    console = terminal()
    console.print(summary_table(compiled))
    shown = compiled.entry(entry).name
    parts: list[Any] = [layers_table(compiled, shown), chip_map(compiled, console.width)]
    if len(compiled.entries) > 1:
        console.print(f"\nlayers of entry {shown!r} (the others: aimc inspect FILE --entry NAME)")
        parts.append(entries_table(compiled))
    if len(compiled.entries) == 1 or entry is not None:
        timing = find_timing(compiled, shown)
        parts.append(f"no timing: {timing}" if isinstance(timing, str) else timing_table(timing))
    for part in parts:
        console.print()
        console.print(part)
    if wrote is not None:
        console.print(f"\nwrote {wrote}")


def _which(compiled: aimc.CompiledModel, entry: str) -> str:
    """The entry, where there are several."""
    return f", entry {entry}" if len(compiled.entries) > 1 else ""


def _emit(value: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(value, indent=2))  # noqa: T201
    else:
        terminal().print(value)
