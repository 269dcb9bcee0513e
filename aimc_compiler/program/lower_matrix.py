"""Lowering of matrix operations: vectors in, MVMs, scaled partial sums together, bias, on tiles or digital units.

Groups of a matrix that share a tile are one run: their inputs, neighbouring channels, come in one multicast, an event
multiplies group after group, and the tile's digital unit takes their outputs together.
"""

from dataclasses import replace
from fractions import Fraction

from aimc_compiler.chip.spec import ChipSpec, Tile
from aimc_compiler.errors import NotBuiltError
from aimc_compiler.mapping.assign import MATRIX_CLASS
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.mapping.pack import Run, find_runs
from aimc_compiler.mapping.periphery import STEP_CLASS, split_steps, step_elements
from aimc_compiler.mapping.place import Site
from aimc_compiler.mapping.ticks import class_price, exact, in_ticks, round_up, unit_ticks
from aimc_compiler.program.build import SAME, Part, ProgramBuilder, overlap
from aimc_compiler.program.ir import Need, Task
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access, DigitalOp, Matrix, MatrixOp, TensorShape


@record
class _Output:
    """The outputs of a run in every window: the task that makes them and what stands for them on the network."""

    run: Run
    part: Part


@record
class Given:
    """An input of an operation whose parts are known: which one, and how its windows are needed."""

    tensor: TensorShape
    access: Access
    parts: tuple[Part, ...]
    label: str = ""


def lower_analog(
    builder: ProgramBuilder,
    op: MatrixOp,
    matrix: Matrix,
    inputs: tuple[Given, ...],
    unit: int | None,
    pieces: tuple[Piece, ...],
) -> tuple[Part, ...]:
    """Tasks of an analog matrix operation; returns the parts of its output, one a column block and run of groups.

    inputs: those that are made in front; ``feed_analog`` adds the others. unit: the global unit that does what the
    tiles' own units cannot, if any is needed.
    """
    if any(piece.replica for piece in pieces):
        raise NotBuiltError(f"matrix {matrix.name!r} is replicated: programs for replicas are not built yet")
    runs = find_runs(pieces)
    arrivals = [_send_inputs(builder, op, matrix, given, runs) for given in inputs]
    row_blocks = 1 + max(piece.row_block for piece in pieces)
    local, remote = split_steps(builder.chip.local_digital.ops, row_blocks)
    columns: dict[tuple[int, int], list[_Output]] = {}
    for run in runs:
        piece, site = run[0], builder.tile_site(run[0].tile)
        needs = tuple(need for waits in arrivals for need in waits[piece.group, piece.row_block][site])
        task = _mvm(builder, op, run, needs)
        output = Part(site=site, first=0, width=len(run) * piece.columns, task=task)
        columns.setdefault((piece.group, piece.column_block), []).append(_Output(run=run, part=output))
    result = []
    for outputs in columns.values():
        part = _gather(builder, op, outputs, local, remote, unit)
        first = outputs[0].run[0].group * matrix.columns + outputs[0].run[0].first_column
        result.append(Part(site=part.site, first=first, width=part.width, task=part.task))
    return tuple(result)


def feed_analog(builder: ProgramBuilder, op: MatrixOp, matrix: Matrix, given: Given, pieces: tuple[Piece, ...]) -> None:
    """Lets the MVMs of a lowered operation wait for an input that is made behind it."""
    runs = find_runs(pieces)
    arrivals = _send_inputs(builder, op, matrix, given, runs)
    tasks = {task.name: index for index, task in enumerate(builder.tasks)}
    for run in runs:
        waits = arrivals[run[0].group, run[0].row_block][builder.tile_site(run[0].tile)]
        builder.add_needs(tasks[_mvm_name(op.name, run)], tuple(waits))


def lower_digital_matrix(
    builder: ProgramBuilder, op: MatrixOp, matrix: Matrix, inputs: tuple[Given, ...], unit: int
) -> tuple[Part, ...]:
    """Tasks of a matrix operation that a rule keeps digital: multiply-accumulates on one global unit."""
    price = class_price(builder.chip, MATRIX_CLASS, op.name, op.source)
    site = builder.unit_site(unit)
    task = builder.add_work(
        digital_name(op),
        "digital",
        op.name,
        op.windows,
        builder.resource(f"unit {unit}", "unit"),
        unit_ticks(price, Fraction(matrix.cells), builder.chip),
        tuple(need for given in inputs for need in collect(builder, op.name, given, site)),
        (("digital", matrix.cells * price.energy_j),),
    )
    return (Part(site=site, first=0, width=matrix.groups * matrix.columns, task=task),)


def digital_name(op: MatrixOp | DigitalOp) -> str:
    """The task of an operation on a global unit."""
    return f"{op.name}.digital"


def collect(builder: ProgramBuilder, op: str, given: Given, site: Site) -> tuple[Need, ...]:
    """Brings every part of a tensor to one site; returns what to wait for there."""
    bits = builder.chip.network.activation_bits
    needs = []
    for index, part in enumerate(given.parts):
        arrival = builder.move(f"{op}.fetch{given.label}[{index}]", op, part, part.width * bits, (site,))
        needs.append(arrival[site].need(given.access))
    return tuple(needs)


def _send_inputs(
    builder: ProgramBuilder,
    op: MatrixOp,
    matrix: Matrix,
    given: Given,
    runs: tuple[Run, ...],
) -> dict[tuple[int, int], dict[Site, list[Need]]]:
    """Multicasts to each row block, or run of groups, the channels it multiplies.

    Returns, by (first group, row block) and site of a tile, what an MVM there waits for.
    """
    channels = matrix.rows // matrix.kernel
    bits = builder.chip.network.activation_bits
    blocks: dict[tuple[int, int], list[Run]] = {}
    for run in runs:
        blocks.setdefault((run[0].group, run[0].row_block), []).append(run)
    arrivals: dict[tuple[int, int], dict[Site, list[Need]]] = {}
    for (group, row_block), members in blocks.items():
        first_piece, last_piece = members[0][0], members[0][-1]
        low = group * channels + first_piece.first_row // matrix.kernel
        high = last_piece.group * channels - (-(last_piece.first_row + last_piece.rows) // matrix.kernel)
        # A view may have folded channels into windows or back: the share of a window stays the same.
        total = matrix.groups * channels
        first, last = low * given.tensor.width // total, -(-high * given.tensor.width // total)
        targets = tuple(dict.fromkeys(builder.tile_site(run[0].tile) for run in members))
        waits: dict[Site, list[Need]] = {target: [] for target in targets}
        for index, part in enumerate(given.parts):
            elements = overlap(part, first, last)
            if elements:
                name = f"{op.name}.send{given.label}[{_groups(members[0])},r{row_block},{index}]"
                for site, arrival in builder.move(name, op.name, part, elements * bits, targets).items():
                    waits[site].append(arrival.need(given.access))
        arrivals[group, row_block] = waits
    return arrivals


def mvm_names(op: str, pieces: tuple[Piece, ...]) -> dict[Piece, str]:
    """Name of the task that makes the MVMs of each piece of a matrix for an operation."""
    return {piece: _mvm_name(op, run) for run in find_runs(pieces) for piece in run}


def _mvm_name(op: str, run: Run) -> str:
    return f"{op}.mvm[{_label(run)}]"


def _label(run: Run) -> str:
    return f"{_groups(run)},r{run[0].row_block},c{run[0].column_block}"


def _groups(run: Run) -> str:
    first, last = run[0].group, run[-1].group
    return f"g{first}" if first == last else f"g{first}-{last}"


def _mvm(builder: ProgramBuilder, op: MatrixOp, run: Run, needs: tuple[Need, ...]) -> int:
    """The MVMs of a run: an event is one of each group, one after another, all of equal size."""
    piece, groups = run[0], len(run)
    key = (piece.tile_type, piece.rows, piece.columns, groups)
    if key not in builder.mvms:
        builder.mvms[key] = _one_event(builder, piece, groups)
    task = replace(
        builder.mvms[key],
        name=_mvm_name(op.name, run),
        op=op.name,
        events=op.windows,
        uses=((builder.resource(f"tile {piece.tile}", "tile"), -1),),
        needs=needs,
        row_groups=groups * int(piece.column_block == 0),
    )
    return builder.add(task)


def _one_event(builder: ProgramBuilder, piece: Piece, groups: int) -> Task:
    """What runs of as many pieces of this size on tiles of this type have in common."""
    tile = builder.chip.tile_types[piece.tile_type]
    mode = tile.mvm.active
    latency, interval = in_ticks(mode.time_s, builder.chip), in_ticks(mode.initiation_interval_s, builder.chip)
    # Each starts on a tick, as it would in an event of its own.
    before = (groups - 1) * round_up(interval)
    return Task(
        name="",
        kind="mvm",
        op="",
        events=1,
        service_ticks=groups * round_up(interval),
        latency_ticks=before + round_up(latency),
        rounding_ticks=float(before - (groups - 1) * interval + round_up(latency) - latency),
        energy_j=tuple((component, groups * energy_j) for component, energy_j in _mvm_energy(tile, piece)),
        mvms=groups,
        dac_conversions=groups * piece.rows * tile.device.rows_per_weight * max(1, tile.dac.planes),
        adc_conversions=groups * output_conversions(builder.chip, piece),
    )


def output_conversions(chip: ChipSpec, piece: Piece) -> int:
    """Conversions of a piece's outputs in one MVM."""
    passes = 2 if chip.nonidealities.mvm.passes == "digital" else 1
    return piece.columns * chip.tile_types[piece.tile_type].adc_conversions_per_column * passes


def _mvm_energy(tile: Tile, piece: Piece) -> tuple[tuple[str, float], ...]:
    """Energy of one MVM by component; with ``energy_scaling: used`` the shares scale with what the piece takes."""
    mode = tile.mvm.active
    rows = columns = 1.0
    if tile.mvm.energy_scaling == "used":
        rows, columns = piece.rows / tile.weight_rows, piece.columns / tile.weight_columns
    return (
        ("dac", mode.energy_j * mode.split.dac * rows),
        ("array", mode.energy_j * mode.split.array * rows * columns),
        ("adc", mode.energy_j * mode.split.adc * columns),
    )


def _gather(
    builder: ProgramBuilder,
    op: MatrixOp,
    outputs: list[_Output],
    local: tuple[str, ...],
    remote: tuple[str, ...],
    unit: int | None,
) -> Part:
    """Scales, adds and biases the outputs of one column block; returns where they stand then."""
    label = f"{_groups(outputs[0].run)},c{outputs[0].run[0].column_block}"
    width = outputs[0].part.width
    if "scale" in local:
        # The middle tile adds: its partial sums come from both sides.
        adds = outputs[len(outputs) // 2]
        rest = [output for output in outputs if output is not adds]
        scaled = [_local_work(builder, op, output, "scale", width, (Need(task=output.part.task),)) for output in rest]
        if "accumulate" not in local and rest:
            scaled.append(_local_work(builder, op, adds, "scale", width, (Need(task=adds.part.task),)))
        else:
            scaled = [_sum_on_tile(builder, op, adds, scaled, local, len(outputs))]
    else:
        scaled = [output.part for output in outputs]
    if not remote:
        return scaled[0]
    assert unit is not None  # verify_mapping: an operation with work for a global unit has one
    return _finish_on_unit(builder, op, scaled, remote, unit, label, len(outputs))


def _sum_on_tile(
    builder: ProgramBuilder, op: MatrixOp, adds: _Output, scaled: list[Part], local: tuple[str, ...], row_blocks: int
) -> Part:
    site, width = adds.part.site, adds.part.width
    needs = [Need(task=adds.part.task)]
    for part in scaled:
        name = f"{builder.tasks[part.task].name}.sum"
        bits = width * builder.chip.network.partial_sum_bits
        needs.append(builder.move(name, op.name, part, bits, (site,))[site].need(SAME))
    elements = width  # its own scaling
    elements += sum(step_elements(step, width, row_blocks) for step in local if step != "scale")
    return _local_work(builder, op, adds, "finish", elements, tuple(needs))


def _local_work(
    builder: ProgramBuilder, op: MatrixOp, output: _Output, step: str, elements: int, needs: tuple[Need, ...]
) -> Part:
    """A loop on the digital unit of the output's tile."""
    task = add_local(
        builder,
        f"{op.name}.{step}[{_label(output.run)}]",
        op.name,
        op.windows,
        output.run[0].tile,
        elements,
        needs,
    )
    return Part(site=output.part.site, first=0, width=output.part.width, task=task)


def add_local(
    builder: ProgramBuilder, name: str, op: str, windows: int, tile: int, elements: int, needs: tuple[Need, ...]
) -> int:
    """A loop of ``elements`` a window on the local digital unit of a tile."""
    local = builder.chip.local_digital
    return builder.add_work(
        name,
        "local",
        op,
        windows,
        builder.resource(f"local {tile}", "local"),
        Fraction(elements) / exact(local.rate),
        needs,
        (("local_digital", elements * local.energy_j),),
    )


def _finish_on_unit(
    builder: ProgramBuilder,
    op: MatrixOp,
    parts: list[Part],
    steps: tuple[str, ...],
    unit: int,
    label: str,
    row_blocks: int,
) -> Part:
    """The steps that the tiles' units lack, on a global unit, from partial sums sent there."""
    site, width = builder.unit_site(unit), parts[0].width
    price = class_price(builder.chip, STEP_CLASS, f"{op.name} ({', '.join(steps)} of its outputs)", op.source)
    bits = width * builder.chip.network.partial_sum_bits
    needs = []
    for index, part in enumerate(parts):
        arrival = builder.move(f"{op.name}.sum[{label},{index}]", op.name, part, bits, (site,))
        needs.append(arrival[site].need(SAME))
    elements = sum(step_elements(step, width, row_blocks) for step in steps)
    task = builder.add_work(
        f"{op.name}.finish[{label}]",
        "digital",
        op.name,
        op.windows,
        builder.resource(f"unit {unit}", "unit"),
        unit_ticks(price, Fraction(elements), builder.chip),
        tuple(needs),
        (("digital", elements * price.energy_j),),
    )
    return Part(site=site, first=0, width=width, task=task)
