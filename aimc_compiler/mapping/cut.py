"""How a weight matrix is cut into blocks that fit a tile.

Near-equal blocks in the smallest number, on whole input channels of a convolution where that costs no extra block
(Rasch et al., Nat. Commun. 14, 5282 (2023), Methods: layers larger than a tile are spread over several). Column scales
and input ranges belong to blocks, so the cut is part of the numerics: it follows from the shape of the matrix and
the size of the tile alone, and training cuts with the same functions.
"""

from aimc_compiler.workload.ir import Workload


def near_equal(size: int, maximum: int, unit: int = 1) -> tuple[int, ...]:
    """Sizes, the larger ones first, of the fewest near-equal blocks of at most ``maximum``.

    unit: every size is a multiple of it; it must divide ``size`` and be at most ``maximum`` (ValueError).

    >>> near_equal(640, 256)
    (214, 213, 213)
    """
    if size < 1 or not 1 <= unit <= maximum or size % unit:
        raise ValueError(f"cannot cut {size} in multiples of {unit} of at most {maximum}")
    units = size // unit
    blocks = -(-units // (maximum // unit))
    small, larger = divmod(units, blocks)
    return tuple((small + (block < larger)) * unit for block in range(blocks))


def cut_rows(rows: int, kernel: int, maximum: int) -> tuple[int, ...]:
    """Rows of each row block of a matrix of ``rows`` inputs on tiles of ``maximum`` rows of weights.

    kernel: rows per input channel (1 for linear). Blocks hold whole channels where that takes no more blocks than
    cutting anywhere; else they are near-equal in rows.

    >>> cut_rows(576, 9, 256), cut_rows(1152, 9, 128)[:2]
    ((198, 189, 189), (128, 128))
    """
    anywhere = near_equal(rows, maximum)
    if kernel > maximum or rows % kernel:
        return anywhere
    on_channels = near_equal(rows, maximum, kernel)
    return on_channels if len(on_channels) == len(anywhere) else anywhere


def cut_columns(columns: int, maximum: int) -> tuple[int, ...]:
    """Columns of each column block of a matrix of ``columns`` outputs on tiles of ``maximum`` columns of weights."""
    return near_equal(columns, maximum)


def row_group_activations(workload: Workload, maximum_rows: int) -> int:
    """Input vectors into row blocks a sample, whatever the number of column blocks: sum of windows times row blocks.

    maximum_rows: rows of weights of a tile. Counts the analog operations.
    """
    total = 0
    for op in workload.analog_ops:
        matrix = workload.matrix(op.matrix)
        total += op.windows * matrix.groups * len(cut_rows(matrix.rows, matrix.kernel, maximum_rows))
    return total
