"""A compiled network at a glance, and everything about it as plain data."""

from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from aimc_compiler.compiler import CompiledModel
from aimc_compiler.program import count
from aimc_compiler.report.entries import entries_json
from aimc_compiler.report.experts import mixtures_json, mixtures_note
from aimc_compiler.report.layers import counted, layer_json, layer_rows, percent
from aimc_compiler.report.timing import find_timing, timing_json
from aimc_compiler.workload import MatrixOp
from aimc_compiler.workload.joint import join_matrices


def summary_table(compiled: CompiledModel, *more: tuple[str, str]) -> Table:
    """What it is, where it stands, what it can do: a line each. more: further (label, text) lines."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in (*_summary(compiled), *more):
        table.add_row(label, text)
    return table


def _summary(compiled: CompiledModel) -> tuple[tuple[str, str], ...]:
    use, ops = compiled.utilization, _matrix_ops(compiled)
    analog = sum(op.analog for op in ops)
    available = "as many as needed" if use.tiles_available is None else f"{use.tiles_available:,}"
    ranges = compiled.ranges
    if not compiled.needs_calibration:
        calibrated = "this chip takes inputs as they are"
    elif ranges is None:
        calibrated = "none yet: running needs them (aimc calibrate FILE --data DATA)"
    else:
        worst = max(ranges.rows, key=lambda row: row.clipped)
        calibrated = (
            f"{ranges.method} of {counted(ranges.samples, 'sample')}; at most {percent(worst.clipped)} of the inputs "
            f"of a row block are clipped (in {worst.op})"
        )
    types = ", ".join(f"{tile.rows} x {tile.columns}" for tile in compiled.chip.tile_types.values())
    uses = join_matrices([compiled.entry(name).workload for name in compiled.entries])
    weights = sum(matrix.cells for matrix in uses.matrices)
    return (
        (
            "network",
            f"{compiled.network}: {counted(len(ops), 'matrix operation')}, {analog:,} of them analog; "
            f"{weights:,} weights",
        ),
        *((("entries", ", ".join(compiled.entries)),) if len(compiled.entries) > 1 else ()),
        ("chip", f"{compiled.chip.name}: tiles of {types}; tiles on the chip: {available}"),
        (
            "placed on",
            f"{counted(use.tiles_used, 'tile')}, {percent(use.utilization)} of their cells used "
            f"({use.matrix_cells_used:,} weights)",
        ),
        *((("kept digital", _digital(ops)),) if analog < len(ops) else ()),
        *((("mixtures", escape(mixtures)),) if (mixtures := mixtures_note(compiled)) else ()),
        ("input ranges", calibrated),
        *((("output bounds", _bounds(compiled)),) if compiled.needs_bounds else ()),
    )


def _matrix_ops(compiled: CompiledModel) -> tuple[MatrixOp, ...]:
    """The matrix operations of all entries, those that several share once."""
    workloads = [compiled.entry(name).workload for name in compiled.entries]
    return tuple({op.name: op for workload in workloads for op in workload.matrix_ops}.values())


def _digital(ops: tuple[MatrixOp, ...], most: int = 3) -> str:
    """Matrix operations that stay digital, reason by reason; the first names of each."""
    names: dict[str, list[str]] = {}
    for op in ops:
        if not op.analog:
            names.setdefault(op.reason, []).append(op.name)
    parts = [f"{', '.join(held[:most])}{_more(len(held) - most)} ({reason})" for reason, held in names.items()]
    return escape("; ".join(parts[:most])) + _more(len(parts) - most, " reasons: see the layers")


def _more(count: int, what: str = "") -> str:
    return f" and {count:,} more{what}" if count > 0 else ""


def _bounds(compiled: CompiledModel) -> str:
    outputs = None if compiled.ranges is None else compiled.ranges.outputs
    if outputs is None:
        return "none yet: running needs them (aimc calibrate FILE --data DATA)"
    bounds = [row.bound for row in outputs.rows]
    worst = max(outputs.rows, key=lambda row: row.clipped)
    found = f"{counted(len(bounds), 'bound')}, {min(bounds):.3g} to {max(bounds):.3g}"
    clipped = f"at most {percent(worst.clipped)} of the outputs of a piece are clipped (in {worst.op})"
    return f"{outputs.method} of the same samples: {found}; {clipped}"


def inspect_json(compiled: CompiledModel, entry: str | None = None) -> dict[str, Any]:
    """Keys of ``inspect --json``: fractions, seconds, joules and counts.

    Layers, row-group activations and timing are those of one entry (default: the first), tiles those of all. Where the
    program is too large to be timed, ``timing`` holds ``refused`` alone: why.
    """
    use, timing, shown = compiled.utilization, find_timing(compiled, entry), compiled.entry(entry)
    return {
        "network": compiled.network,
        "entry": shown.name,
        "entries": entries_json(compiled),
        "chip": compiled.chip.name,
        "tiles_used": use.tiles_used,
        "tiles_available": use.tiles_available,
        "utilization": use.utilization,
        "row_group_activations": count(shown.program).row_group_activations,
        "matrix_cells_used": use.matrix_cells_used,
        "layers": [layer_json(row) for row in layer_rows(compiled, entry)],
        "tiles": [
            {
                "tile": tile.tile,
                "tile_type": tile.tile_type,
                "pieces": list(tile.pieces),
                "utilization": tile.utilization,
            }
            for tile in use.tiles
        ],
        "mixtures": mixtures_json(compiled),
        "ranges": _ranges_json(compiled),
        "timing": {"refused": timing} if isinstance(timing, str) else timing_json(timing),
    }


def _ranges_json(compiled: CompiledModel) -> dict[str, Any] | None:
    if compiled.ranges is None:
        return None
    outputs = compiled.ranges.outputs
    return {
        "method": compiled.ranges.method,
        "samples": compiled.ranges.samples,
        "rows": [
            {
                "op": row.op,
                "group": row.group,
                "row_block": row.row_block,
                "range": row.range,
                "largest": row.largest,
                "clipped": row.clipped,
                "note": row.note,
            }
            for row in compiled.ranges.rows
        ],
        "outputs": None
        if outputs is None
        else {"method": outputs.method, "rows": [asdict(row) for row in outputs.rows]},
    }
