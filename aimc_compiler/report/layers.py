"""One row a matrix operation: its shape, where it stands, how full, how often it multiplies, and why it is there."""

from typing import Any

from aimc_compiler.compiler import CompiledModel
from aimc_compiler.mapping import Piece
from aimc_compiler.records import record


@record
class LayerRow:
    """rows, columns: of one group's matrix; windows: MVMs of each piece a sample; tiles: indices; mvms: of all its
    pieces a sample; utilization: of its tiles, None where it is digital; computed_windows: those that its values take,
    more than ``windows`` for an expert that is timed by an assumed routing."""

    name: str
    kind: str
    analog: bool
    reason: str
    rows: int
    columns: int
    groups: int
    windows: int
    pieces: int
    tiles: tuple[int, ...]
    utilization: float | None
    mvms: int
    computed_windows: int


def layer_rows(compiled: CompiledModel, entry: str | None = None) -> tuple[LayerRow, ...]:
    """Every matrix operation of an entry (default: the first) in execution order."""
    workload, mapping = compiled.entry(entry).workload, compiled.mapping
    fill = {layer.name: layer.utilization for layer in compiled.utilization.layers}
    pieces: dict[str, list[Piece]] = {}
    for piece in mapping.pieces:
        pieces.setdefault(piece.matrix, []).append(piece)
    matrices = {matrix.name: matrix for matrix in workload.matrices}
    rows = []
    for op in workload.matrix_ops:
        matrix = matrices[op.matrix]
        held = pieces.get(op.matrix, []) if op.analog else []
        copies = len({piece.replica for piece in held}) or 1
        rows.append(
            LayerRow(
                name=op.name,
                kind=op.kind,
                analog=op.analog,
                reason=op.reason,
                rows=matrix.rows,
                columns=matrix.columns,
                groups=matrix.groups,
                windows=op.windows,
                pieces=len(held),
                tiles=tuple(dict.fromkeys(piece.tile for piece in held)),
                utilization=fill[op.matrix] if op.analog else None,
                mvms=op.windows * len(held) // copies,
                computed_windows=op.computed_windows,
            )
        )
    return tuple(rows)


def layer_json(row: LayerRow) -> dict[str, Any]:
    """Keys of ``--json``: counts and fractions."""
    return {
        "name": row.name,
        "kind": row.kind,
        "analog": row.analog,
        "reason": row.reason,
        "rows": row.rows,
        "columns": row.columns,
        "groups": row.groups,
        "windows": row.windows,
        "computed_windows": row.computed_windows,
        "pieces": row.pieces,
        "tiles": len(row.tiles),
        "tile_indices": list(row.tiles),
        "utilization": row.utilization,
        "mvms": row.mvms,
    }


def index_ranges(indices: tuple[int, ...]) -> str:
    """(0, 1, 2, 7) as "0-2, 7"."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def percent(share: float) -> str:
    """0.981 as "98.1 %"; what is not nothing does not read as nothing."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def counted(count: int, noun: str) -> str:
    """(1, "tile") as "1 tile", (1200, "tile") as "1,200 tiles"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
