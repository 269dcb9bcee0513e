"""What hardware-aware training learned, taken over by the compiler."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from aimc_compiler.errors import CalibrationError, CaptureError
from aimc_compiler.executor import CompiledEntry, InputRanges, RangeRow
from aimc_compiler.mapping import Mapping
from aimc_compiler.training.learned import Learned, LearnedMatrix
from aimc_compiler.workload import MatrixOp

METHOD = "learned"


def exported(model: Any) -> tuple[nn.Module, Learned | None]:
    """The plain network of one that was prepared for training, and what it learned; another network as it is.

    A network says that it was prepared by a method ``__aimc_export__``, which gives both.
    """
    export = getattr(model, "__aimc_export__", None)
    if export is None:
        return model, None
    plain, learned = export()
    if not isinstance(plain, nn.Module) or not isinstance(learned, Learned):
        raise CaptureError(
            f"__aimc_export__ of {type(model).__name__} gives {type(plain).__name__} and {type(learned).__name__}: it "
            "must return the plain torch.nn.Module and an aimc_compiler.training.Learned"
        )
    return plain, learned


def learned_ranges(learned: Learned, entries: Sequence[CompiledEntry]) -> InputRanges | None:
    """The ranges that every operation on tiles was trained with; None where some have none, as before any training.

    Raises CalibrationError where a matrix is cut otherwise than it was trained for: ranges belong to row blocks.
    """
    of_op = {matrix.op: matrix for matrix in learned.matrices}
    of_weight = {matrix.parameter: matrix for matrix in reversed(learned.matrices)}
    rows: dict[str, list[RangeRow]] = {}
    for entry in entries:
        for op in entry.workload.analog_ops:
            of_name = of_op.get(op.name) or of_op.get(op.name.partition("@")[0])
            of_matrix = of_weight.get(entry.workload.matrix(op.matrix).parameter)
            matrix = of_name if op.name in of_op or of_matrix is None else of_matrix
            if matrix is None or not matrix.trained:
                return None
            _require_cut(op, matrix, learned, entry.mapping)
            rows[op.name] = [
                RangeRow(op=op.name, group=group, row_block=block, range=r, largest=0.0, clipped=0.0, note="learned")
                for group, ranges in enumerate(matrix.ranges)
                for block, r in enumerate(ranges)
            ]
    flat = tuple(row for found in rows.values() for row in found)
    return InputRanges(method=METHOD, samples=0, rows=flat) if flat else None


def _require_cut(op: MatrixOp, matrix: LearnedMatrix, learned: Learned, mapping: Mapping) -> None:
    pieces = [piece for piece in mapping.pieces_of(op.matrix) if piece.group == 0]
    rows = tuple(piece.rows for piece in pieces if piece.column_block == 0)
    columns = tuple(piece.columns for piece in pieces if piece.row_block == 0)
    if (rows, columns) != (matrix.rows, matrix.columns):
        raise CalibrationError(
            f"{op.name!r} was trained for tiles of {learned.chip}, which cut it into rows {list(matrix.rows)} and "
            f"columns {list(matrix.columns)}; {mapping.chip} cuts it into rows {list(rows)} and columns "
            f"{list(columns)}. Prepare the network for this chip, or calibrate: compile(..., calibration=batches)"
        )
