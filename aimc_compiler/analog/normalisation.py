"""The digital side of a matrix on its tiles: column scales, input ranges, and what may not be among them.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods: ``w = W / s`` with ``s_i = max_j |W_ij|`` of each block, and one
input range for each row block.
"""

from math import isfinite

import torch
from torch import Tensor

from aimc_compiler.analog.digital import integer_scales
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.errors import CalibrationError, DataError


def column_scales(weight: Tensor, block: RowBlock, bits: int | str = "off") -> Tensor:
    """(groups, columns): the largest |W| of each column of the block, 1 where that is 0; or the integers above.

    weight: (groups, columns, rows); bits: of integers that share one scale in each piece, "off" for none.
    """
    largest = rows_of(weight, block).abs().amax(dim=2)
    scales = torch.where(largest > 0, largest, torch.ones_like(largest))
    if isinstance(bits, int):
        for piece in block.pieces:
            columns = slice(piece.first_column, piece.first_column + piece.columns)
            scales[piece.group, columns] = integer_scales(scales[piece.group, columns], bits)
    return scales


def normalised(weight: Tensor, blocks: tuple[RowBlock, ...], scales: Tensor) -> Tensor:
    """``w = W / s``, (groups, columns, rows); scales: (row blocks, groups, columns)."""
    parts = [rows_of(weight, block) / scale.unsqueeze(-1) for block, scale in zip(blocks, scales, strict=True)]
    return torch.cat(parts, dim=2)


def checked_ranges(ranges: Tensor | None, shape: tuple[int, int], name: str) -> Tensor:
    """``ranges`` if they are (groups, row blocks) positive numbers. Raises CalibrationError naming the operation."""
    if ranges is None:
        raise CalibrationError(
            f"operation {name!r} has no input ranges, which this chip's converters need: calibrate with data"
        )
    if tuple(ranges.shape) != shape or not bool((torch.isfinite(ranges) & (ranges > 0)).all()):
        raise CalibrationError(
            f"the input ranges of {name!r} must be {shape[0]} x {shape[1]} (groups x row blocks) positive "
            f"numbers, not {tuple(ranges.shape)} from {ranges.min():g}: calibrate again"
        )
    return ranges


def same_values(values: Tensor | None, kept: Tensor | None) -> bool:
    """Whether ``values`` are those of ``kept``, a copy. Values alone tell: neither a tensor's identity nor its count
    of changes does, as changes through ``.data`` or NumPy are not counted."""
    if values is None or kept is None:
        return values is kept
    return values.dtype == kept.dtype and values.device == kept.device and torch.equal(values, kept)


def copied(values: Tensor | None) -> Tensor | None:
    """Values to keep for ``same_values``, and for gradients: not those of inference mode."""
    with torch.inference_mode(False):
        return None if values is None else values.detach().clone()


def require_finite(values: Tensor, message: str) -> None:
    """One pass and no copy. Raises DataError; a NaN is both the least and the largest value."""
    if values.numel() and not all(isfinite(end) for end in torch.aminmax(values.detach())):
        raise DataError(message)


def rows_of(weight: Tensor, block: RowBlock) -> Tensor:
    """The rows of a block, of (groups, columns, rows)."""
    return weight[:, :, block.first_row : block.first_row + block.rows]
