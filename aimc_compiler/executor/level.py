"""Running the levels above the chip: the Graph as it is, and the Mapping with each piece as an exact product.

Both must give the float network's outputs; that is how every pass is checked.
"""

from typing import Any

import torch
from torch import Tensor, nn

from aimc_compiler.errors import VerificationError
from aimc_compiler.graph import Graph, MatrixModule
from aimc_compiler.mapping import Mapping, Piece
from aimc_compiler.workload import Workload


def run_graph(graph: Graph, *args: Any, **kwargs: Any) -> Any:
    """Outputs of the Graph, structured like the model's own."""
    with torch.no_grad():
        return graph(*args, **kwargs)


def run_mapping(graph: Graph, workload: Workload, mapping: Mapping, *args: Any, **kwargs: Any) -> Any:
    """Outputs with every analog matrix multiplied row block by row block, from the cells that the Mapping names.

    Raises VerificationError where a matrix element is held by no cell or by two cells of a replica.
    """
    modules = graph.matrix_modules()
    cut: dict[str, nn.Module] = {
        op.name: RowBlocks(modules[op.name], mapping.pieces_of(op.matrix)) for op in workload.analog_ops
    }
    with torch.no_grad():
        return graph.with_modules(cut)(*args, **kwargs)


class RowBlocks(nn.Module):
    """A matrix as the sum of its row blocks, each rebuilt from its pieces (replica 0); the bias is added once."""

    def __init__(self, module: MatrixModule, pieces: tuple[Piece, ...]) -> None:
        super().__init__()
        blocks = module.blocks()
        held = torch.zeros(blocks.shape, dtype=torch.int32)
        parts: dict[int, Tensor] = {}
        for piece in (piece for piece in pieces if piece.replica == 0):
            columns = slice(piece.first_column, piece.first_column + piece.columns)
            rows = slice(piece.first_row, piece.first_row + piece.rows)
            part = parts.setdefault(piece.row_block, torch.zeros_like(blocks))
            part[piece.group, columns, rows] = blocks[piece.group, columns, rows]
            held[piece.group, columns, rows] += 1
        if not bool((held == 1).all()):
            raise VerificationError(f"the pieces of {pieces[0].matrix!r} do not hold every element exactly once")
        self.parts = nn.ModuleList(
            module.with_blocks(part, with_bias=index == 0) for index, (_, part) in enumerate(sorted(parts.items()))
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output."""
        first, *rest = self.parts
        y: Tensor = first(x)
        for part in rest:
            y = y + part(x)
        return y
