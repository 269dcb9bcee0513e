"""What training leaves beside the weights, as data that ``compile`` takes over."""

from typing import Any

from aimc_compiler.records import record


@record
class LearnedMatrix:
    """Of one use of a matrix. op: the operation; parameter: the path of its weight; ranges: input ranges, (groups, row
    blocks); rows, columns: of the row and column blocks that it was cut into; trained: mini-batches that its ranges
    have seen."""

    op: str
    parameter: str
    ranges: tuple[tuple[float, ...], ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    trained: int


@record
class Learned:
    """Of a network. chip: which it was trained for; rules: what its matrices were chosen by."""

    chip: str
    rules: Any
    matrices: tuple[LearnedMatrix, ...]
