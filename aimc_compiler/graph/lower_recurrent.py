"""The loop of a recurrent layer in the Workload: a matrix on the state of the step before, and a cell that makes it.

Windows are the steps. Where a sample holds several sequences, they are windows of one loop too and pass one after
another, which is later than they could, never earlier.
"""

from aimc_compiler.chip.costs import FREE
from aimc_compiler.graph.access import ALL, SAME
from aimc_compiler.graph.matrix import MatrixModule
from aimc_compiler.graph.partition import Assignment
from aimc_compiler.graph.recurrent import RecurrentModule
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access, DigitalOp, MatrixOp, TensorShape

_PREVIOUS = Access(kind="previous")
#: Cost class of a cell, and how many nonlinear functions it computes a unit and step. Sums and products between them
#: are part of their pipeline.
CELL_COSTS: dict[str, tuple[str, int]] = {
    "lstm": ("transcendental", 5),
    "gru": ("transcendental", 3),
    "rnn_tanh": ("transcendental", 1),
    "rnn_relu": ("elementwise", 1),
}


@record
class LoopMatrix:
    """A matrix of the loop: its operation's name, the Matrix's, and where it runs."""

    op: str
    matrix: str
    module: MatrixModule
    where: Assignment


@record
class Loop:
    """What is known of a loop. name: of its cell; output: the tensor of its outputs, ``windows`` of them; gates,
    initial_h, initial_c: tensors, "" where they are constants."""

    name: str
    output: str
    windows: int
    itemsize: int
    gates: str
    initial_h: str
    initial_c: str
    recurrent: LoopMatrix
    projection: LoopMatrix | None
    source: str


@record
class LoopParts:
    """cell: the tensor that the cell writes, the outputs themselves where there is no projection."""

    tensors: tuple[TensorShape, ...]
    ops: tuple[MatrixOp | DigitalOp, ...]
    cell: str


def lower_loop(loop: Loop, module: RecurrentModule) -> LoopParts:
    """Operations and tensors of a loop, in execution order: W_hh, the cell, W_hr.

    The cell of an LSTM keeps its c where it runs; that of a GRU reads the state before, which it mixes with the new.
    """
    fed = TensorShape(
        name=f"{loop.output}.fed",
        windows=loop.windows,
        width=loop.recurrent.module.columns,
        itemsize=loop.itemsize,
    )
    cell = loop.output if loop.projection is None else f"{loop.output}.cell"
    made = TensorShape(name=cell, windows=loop.windows, width=module.units, itemsize=loop.itemsize)
    outputs = TensorShape(name=loop.output, windows=loop.windows, width=module.state, itemsize=loop.itemsize)
    ops: list[MatrixOp | DigitalOp] = [
        _matrix_op(loop, loop.recurrent, loop.output, fed.name, _PREVIOUS, loop.initial_h),
        _cell(loop, module, fed.name, cell),
    ]
    if loop.projection is None:
        return LoopParts(tensors=(fed, outputs), ops=tuple(ops), cell=cell)
    ops.append(_matrix_op(loop, loop.projection, cell, loop.output, SAME, ""))
    return LoopParts(tensors=(fed, made, outputs), ops=tuple(ops), cell=cell)


def one_window(name: str, of: TensorShape, source: str) -> tuple[TensorShape, DigitalOp]:
    """A free operation that waits for all windows of a tensor and stands for them with one."""
    first = TensorShape(name=f"{of.name}.first", windows=1, width=of.width, itemsize=of.itemsize)
    op = DigitalOp(
        name=f"{name}.{first.name}",
        op="layout",
        cost_class=FREE,
        inputs=(of.name,),
        accesses=(ALL,),
        output=first.name,
        work=0,
        source=source,
    )
    return first, op


def _cell(loop: Loop, module: RecurrentModule, fed: str, output: str) -> DigitalOp:
    reads = [(loop.gates, SAME), (fed, SAME)]
    if module.mode == "gru":
        reads += [(output, _PREVIOUS), (loop.initial_h, ALL)]
    reads.append((loop.initial_c, ALL))
    given = [(name, access) for name, access in reads if name]
    cost_class, functions = CELL_COSTS[module.mode]
    return DigitalOp(
        name=loop.name,
        op=f"{module.mode}_cell",
        cost_class=cost_class,
        inputs=tuple(name for name, _ in given),
        accesses=tuple(access for _, access in given),
        output=output,
        work=functions * module.units * loop.windows,
        source=loop.source,
    )


def _matrix_op(loop: Loop, matrix: LoopMatrix, given: str, output: str, access: Access, initial: str) -> MatrixOp:
    return MatrixOp(
        name=matrix.op,
        matrix=matrix.matrix,
        kind=matrix.module.kind,
        windows=loop.windows,
        input=given,
        output=output,
        access=access,
        analog=matrix.where.analog,
        reason=matrix.where.reason,
        tile_type=matrix.where.tile_type,
        source=loop.source,
        initial=initial,
        routing=matrix.where.routing,
    )
