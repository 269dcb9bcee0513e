"""Digital operations on global digital units: the longest busy time first, each on the unit with least to do.

(Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 416 (1969): at most 4/3 of the best.)
Ties go to the earlier operation and the lower unit.
"""

from fractions import Fraction

from aimc_compiler.chip.costs import FREE
from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping.cut import cut_columns
from aimc_compiler.mapping.ir import UnitAssignment
from aimc_compiler.mapping.pack import groups_on_tiles
from aimc_compiler.mapping.periphery import STEP_CLASS, local_ops, split_steps, step_elements
from aimc_compiler.mapping.ticks import class_price, round_up, unit_ticks
from aimc_compiler.workload.ir import DigitalOp, MatrixOp, Workload

#: Price class of a matrix that stays digital, in multiply-accumulates.
MATRIX_CLASS = "activation_product"


def assign_units(workload: Workload, chip: ChipSpec, row_blocks: dict[str, int]) -> tuple[UnitAssignment, ...]:
    """A unit for every operation that needs one, in execution order; free operations need none.

    row_blocks: of each analog matrix. Raises SpecError where the chip has no price for an operation.
    """
    local = set(local_ops(workload, chip, row_blocks))
    busy = {op.name: _busy_ticks(op, workload, chip, row_blocks) for op in workload.ops if op.name not in local}
    jobs = sorted((name for name, ticks in busy.items() if ticks is not None), key=lambda name: -(busy[name] or 0))
    loads = [0] * chip.digital_units.count
    units: dict[str, int] = {}
    for name in jobs:
        units[name] = min(range(len(loads)), key=loads.__getitem__)
        loads[units[name]] += busy[name] or 0
    return tuple(
        UnitAssignment(op=op.name, unit=units.get(op.name, 0), local=op.name in local)
        for op in workload.ops
        if op.name in local or op.name in units
    )


def _busy_ticks(op: MatrixOp | DigitalOp, workload: Workload, chip: ChipSpec, row_blocks: dict[str, int]) -> int | None:
    """Ticks a sample on a unit; None where the operation needs none."""
    if isinstance(op, DigitalOp):
        if op.cost_class == FREE:
            return None
        windows = workload.tensor(op.output).windows
        price = class_price(chip, op.cost_class, op.name, op.source)
        return windows * round_up(unit_ticks(price, Fraction(op.work, windows), chip))
    matrix = workload.matrix(op.matrix)
    if not op.analog:
        price = class_price(chip, MATRIX_CLASS, op.name, op.source)
        return op.windows * round_up(unit_ticks(price, Fraction(matrix.cells), chip))
    steps = split_steps(chip.local_digital.ops, row_blocks[op.matrix])[1]
    if not steps:
        return None
    price = class_price(chip, STEP_CLASS, f"{op.name} ({', '.join(steps)} of its outputs)", op.source)
    tile, ticks = chip.tile_types[op.tile_type], 0
    shares = groups_on_tiles(matrix, tile.weight_rows, tile.weight_columns, op.groups_per_tile)
    for columns in cut_columns(matrix.columns, tile.weight_columns):
        elements = sum(step_elements(step, columns, row_blocks[op.matrix]) for step in steps)
        ticks += sum(round_up(unit_ticks(price, Fraction(groups * elements), chip)) for groups in shares)
    return op.windows * ticks
