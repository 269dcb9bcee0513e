"""Bounds of output converters that each piece has for itself (``adc.out_bound: calibrated``).

A piece is what one setting of converters serves: a converter's bound is its gain, set for a tile and the columns of a
matrix that stand there. All columns of a piece have one bound, as normalised columns are alike; row blocks and column
blocks may differ, and do, by their inputs. The slices of a weight count differently and so have bounds of their own.
"""

from collections.abc import Mapping
from math import isfinite

from aimc_compiler.errors import CalibrationError
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record

#: group, row block, column block, slice
Place = tuple[int, int, int, int]


def place_of(piece: Piece, index: int = 0) -> Place:
    """Where a bound of a piece belongs; index: of the slice. Replicas of a piece share it."""
    return piece.group, piece.row_block, piece.column_block, index


@record
class PieceBounds:
    """The bounds of one operation, in normalised w times x."""

    values: Mapping[Place, float]

    def of(self, piece: Piece, index: int = 0) -> float:
        """Of a slice of a piece. Raises CalibrationError where there is none, or where it is no bound."""
        bound = self.values.get(place_of(piece, index))
        if bound is None:
            raise CalibrationError(
                f"{_named(piece, index)} has no output bound, which adc.out_bound: calibrated takes from data: "
                "calibrate again, or give out_bound a number"
            )
        if not (isfinite(bound) and bound > 0):
            raise CalibrationError(
                f"the output bound of {_named(piece, index)} is {bound:g}, which is no positive number: calibrate again"
            )
        return bound


#: Of a chip whose bounds are fixed, or of one that was not calibrated.
NO_BOUNDS = PieceBounds(values={})


def _named(piece: Piece, index: int) -> str:
    return f"piece {piece.name!r}" + (f", slice {index}," if index else "")
