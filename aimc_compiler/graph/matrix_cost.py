"""What a matrix operation costs, from shapes alone: its cells, its multiply-accumulates a sample, its tiles."""

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from torch import fx

from aimc_compiler.chip.spec import Tile
from aimc_compiler.errors import InternalError
from aimc_compiler.graph.ir import EXPERT, Graph
from aimc_compiler.graph.matrix import MatrixModule
from aimc_compiler.graph.values import TensorValue, value_of
from aimc_compiler.mapping.pack import tiles_needed
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Matrix


@record
class MatrixCost:
    """One use of a matrix. path: the module path that rules match; matrix: its shape, ``matrix.parameter`` its
    identity; kind: "linear" or "conv1d" to "conv3d"; macs: multiply-accumulates of this use, of one sample; chosen:
    whether it is one of a stack of which an index chooses for each vector."""

    op: str
    path: str
    kind: str
    matrix: Matrix
    macs: int
    chosen: bool = False

    def tiles(self, tile: Tile, groups_per_tile: int | None = None) -> int:
        """Tiles of this type that the matrix takes; groups_per_tile: as in rules, None: as many as fit."""
        return tiles_needed(self.matrix, tile.weight_rows, tile.weight_columns, groups_per_tile)


def matrix_costs(graph: Graph) -> dict[str, MatrixCost]:
    """The cost of every matrix operation by name, in execution order."""
    modules = graph.matrix_modules()
    nodes = graph.matrix_nodes()
    return {name: _cost(name, module, nodes[name]) for name, module in modules.items()}


def joint_costs(graphs: Iterable[Graph]) -> dict[str, MatrixCost]:
    """The cost of every matrix operation of several entries by name; one that several have adds up its work."""
    joint: dict[str, MatrixCost] = {}
    for graph in graphs:
        for name, cost in matrix_costs(graph).items():
            known = joint.get(name)
            joint[name] = cost if known is None else replace(known, macs=known.macs + cost.macs)
    return joint


def rule_path(op: str) -> str:
    """The module path of an operation, which rules match: its name without the number of the use."""
    return op.partition("@")[0]


def _cost(name: str, module: MatrixModule, node: fx.Node) -> MatrixCost:
    matrix = Matrix(
        name=name,
        parameter=module.parameter,
        rows=module.rows,
        columns=module.columns,
        groups=module.groups,
        kernel=prod(module.kernel),
    )
    return MatrixCost(
        op=name,
        path=rule_path(name),
        kind=module.kind,
        matrix=matrix,
        macs=_elements(node, name, module) * module.rows,
        chosen=EXPERT in node.meta,
    )


def _elements(node: fx.Node, name: str, module: MatrixModule) -> int:
    """Outputs of a matrix operation of one sample, each a sum over the rows."""
    value = value_of(node)
    if isinstance(value, TensorValue):
        return prod(value.shape)
    if not isinstance(value, tuple):
        raise InternalError(f"{name!r} has no recorded output")
    # Inside a loop, whose first result holds the states of all steps.
    return prod(value[0].shape[:-1]) * module.groups * module.columns
