"""The digital work behind an analog matrix: what the tiles' own units do, and what is left to a global one.

An output of a block is scaled (column scale, input range, drift compensation), partial sums of the row blocks are
added, then the bias. A chip whose local units lack one of these steps does it, and all that follow, on a global
digital unit, at the price of the class "elementwise".
"""

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.workload.ir import DigitalOp, MatrixOp, Workload

#: Price class of a periphery step that runs on a global unit.
STEP_CLASS = "elementwise"


def split_steps(local_ops: tuple[str, ...], row_blocks: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(steps on the tiles' units, steps on a global unit) of a matrix of ``row_blocks`` row blocks, in order."""
    steps = ("scale", "accumulate", "bias") if row_blocks > 1 else ("scale", "bias")
    local = 0
    while local < len(steps) and steps[local] in local_ops:
        local += 1
    return steps[:local], steps[local:]


def step_elements(step: str, columns: int, row_blocks: int) -> int:
    """Elements that a step processes a window for one column block of ``columns`` outputs."""
    return columns * {"scale": row_blocks, "accumulate": row_blocks - 1, "bias": 1}[step]


def aten_name(op: DigitalOp) -> str:
    """``relu`` of ``aten.relu_.default``."""
    parts = op.op.removeprefix("aten.").removeprefix("aten::").split(".")
    return parts[0].rstrip("_")


def local_ops(workload: Workload, chip: ChipSpec, row_blocks: dict[str, int]) -> tuple[str, ...]:
    """Names of the digital operations that run on the local units of the tiles whose outputs they take.

    Those are activations (relu) directly behind an analog matrix whose whole periphery is local, where nothing else
    reads the matrix's output. row_blocks: of each matrix.
    """
    readers: dict[str, int] = dict.fromkeys(workload.outputs, 1)
    for op in workload.ops:
        for name in op.inputs:
            readers[name] = readers.get(name, 0) + 1
    local_outputs = {op.output: op for op in workload.analog_ops if _all_local(op, chip, row_blocks)}
    return tuple(
        op.name
        for op in workload.ops
        if isinstance(op, DigitalOp)
        and aten_name(op) == "relu"
        and "relu" in chip.local_digital.ops
        and len(op.inputs) == 1
        and op.inputs[0] in local_outputs
        and readers[op.inputs[0]] == 1
        and op.accesses[0].kind == "same"
    )


def _all_local(op: MatrixOp, chip: ChipSpec, row_blocks: dict[str, int]) -> bool:
    return not split_steps(chip.local_digital.ops, row_blocks[op.matrix])[1]
