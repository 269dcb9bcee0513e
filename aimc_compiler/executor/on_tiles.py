"""Operations of the graph on their tiles: what stands in the place of a matrix operation when a chip runs."""

import torch
from torch import Tensor, fx, nn

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast import Precision
from aimc_compiler.analog.piece_bounds import NO_BOUNDS, PieceBounds
from aimc_compiler.analog.recurrence import lstm_on_tiles
from aimc_compiler.analog.tile_readings import TileReadings
from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import NotBuiltError
from aimc_compiler.executor.correction import Fit, OutputScaling
from aimc_compiler.graph import Graph, MatrixModule
from aimc_compiler.graph.entries import same_values
from aimc_compiler.graph.recurrent import RecurrentMode, RecurrentModule, Stepped
from aimc_compiler.graph.values import tensor_of
from aimc_compiler.mapping import Mapping as PieceMapping
from aimc_compiler.workload import MatrixOp


class Clock:
    """What changes from run to run, shared by all operations of a device. first_sample: number of the first sample of
    this run, by which its noise is drawn."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.recalibrated_s: float | None = None
        self.first_sample = 0
        self.count = 1


class Programmed:
    """The tiles of a matrix operation with its input ranges and the digital scaling of its outputs.

    Entries that share the operation share all of this: what is corrected through one is corrected in the others.
    """

    def __init__(self, tiles: MatrixOnTiles, ranges: Tensor | None, module: MatrixModule) -> None:
        self.tiles, self.ranges, self.module = tiles, ranges, module
        self.scaling = OutputScaling(module)

    def serves(self, module: MatrixModule) -> bool:
        """Whether an operation of another entry that has this one's name and matrix is this very one."""
        mine = self.module
        same = contraction_of(mine) == contraction_of(module)
        pairs = ((mine.factor, module.factor), (mine.bias, module.bias), (mine.own_bias, module.own_bias))
        same &= (mine.norm is None) == (module.norm is None)
        return same and all(one is other or _alike(one, other) for one, other in pairs)


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and same_values(one, other)


class OnTiles(nn.Module):
    """A matrix operation of the graph of one entry, run on its tiles."""

    def __init__(
        self, programmed: Programmed, clock: Clock, first_call: int, batch_axis: int, inner: int | None = None
    ) -> None:
        super().__init__()
        self.programmed, self.clock = programmed, clock
        self.tiles, self.ranges = programmed.tiles, programmed.ranges
        self.first_call, self.batch_axis, self.inner = first_call, batch_axis, inner
        self._fit: Fit | None = None

    @property
    def scaling(self) -> OutputScaling:
        """In force now."""
        return self.programmed.scaling

    def forward(self, x: Tensor) -> Tensor:
        """x: the operation's input; returns its output in the same dtype."""
        return self._multiply(x, self.first_call)

    def _multiply(self, x: Tensor, first_call: int) -> Tensor:
        inputs = self._by_sample(x.movedim(self.batch_axis, 0))
        y = self.tiles.forward(
            inputs,
            self.ranges,
            self.clock.time_s,
            recalibrated_s=self.clock.recalibrated_s,
            first_sample=self.clock.first_sample,
            first_call=first_call,
            samples=self.clock.count,
        )
        if self._fit is not None:
            self._fit.observe(y)
            y = self._fit.scaling.apply(y)
        return self._in_turns(y).movedim(0, self.batch_axis).to(x.dtype)

    def _by_sample(self, x: Tensor) -> Tensor:
        """Entries in which samples take turns, sample by sample. x: (entries, ...)."""
        if self.inner is None or not len(x):
            return x
        return torch.unflatten(x, 0, (-1, self.clock.count, self.inner)).transpose(0, 1).flatten(0, 2)

    def _in_turns(self, y: Tensor) -> Tensor:
        """As they came, what ``_by_sample`` has sorted."""
        if self.inner is None or not len(y):
            return y
        return torch.unflatten(y, 0, (self.clock.count, -1, self.inner)).transpose(0, 1).flatten(0, 2)

    def fit(self, fit: Fit) -> None:
        """Until ``rescale``: give ``fit`` the raw products, and outputs as it has them by then."""
        self._fit = fit
        self.tiles.rescale_outputs(None, None)

    def rescale(self, scaling: OutputScaling) -> None:
        """Use this scaling from now on."""
        self._fit, self.programmed.scaling = None, scaling
        self.tiles.rescale_outputs(*scaling.digital())


class StepsOnTiles(OnTiles, Stepped):
    """A matrix of a recurrent layer on its tiles: step t of a sample is MVM ``first_call + t`` of the matrix.

    Where a sample holds several sequences, their MVMs of one step stand side by side.
    """

    def at_step(self, x: Tensor, step: int) -> Tensor:
        """The output of one step. x: (batch, inputs); step: from 0."""
        sequences = x.shape[0] // max(1, self.clock.count)
        return self._multiply(x, self.first_call + step * sequences)

    def run_all(self, mode: RecurrentMode, gates: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, ...] | None:
        """All steps of an LSTM at once; None where the matrix is in ``exact``, is being fitted, or a sample has many
        sequences."""
        if mode != "lstm" or c is None or self._fit is not None or h.shape[0] != self.clock.count:
            return None
        return lstm_on_tiles(
            self.tiles,
            gates,
            h,
            c,
            self.ranges,
            self.clock.time_s,
            recalibrated_s=self.clock.recalibrated_s,
            first_sample=self.clock.first_sample,
            first_call=self.first_call,
        )


def on_tiles_type(graph: Graph, node: fx.Node) -> type[OnTiles]:
    """What stands in the place of an operation of this node."""
    return StepsOnTiles if isinstance(graph.called(node), RecurrentModule) else OnTiles


def matrix_on_tiles(
    op: MatrixOp,
    module: MatrixModule,
    mapping: PieceMapping,
    chip: ChipSpec,
    *,
    seed: int = 0,
    chip_index: int = 0,
    precision: Precision = "exact",
    bounds: PieceBounds = NO_BOUNDS,
    readings: TileReadings | None = None,
) -> MatrixOnTiles:
    """The matrix of an operation on the tiles that ``mapping`` gives it; the rest as of ``MatrixOnTiles``."""
    return MatrixOnTiles(
        module.blocks(),
        contraction_of(module),
        mapping.pieces_of(op.matrix),
        chip.tile_types[op.tile_type],
        chip.nonidealities,
        factor=module.factor,
        bias=module.bias,
        seed=seed,
        chip=chip_index,
        dtype=module.weight.dtype,
        precision=precision,
        bounds=bounds,
        readings=readings,
    )


def contraction_of(module: MatrixModule) -> Contraction:
    """How the matrix of a module meets its inputs."""
    return Contraction(
        kind=module.kind,
        kernel=module.kernel,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
    )


def entries_together(node: fx.Node) -> int | None:
    """``TensorValue.inner`` of the operation's input."""
    operand = node.args[0]
    value = tensor_of(operand) if isinstance(operand, fx.Node) else None
    return None if value is None else value.inner


def batch_axis(graph: Graph, op: str, node: fx.Node) -> int:
    """The axis of the operation's input that counts samples, or into which they are folded; 0 for steps of a loop.

    Raises NotBuiltError where the input is one for all samples of a batch.
    """
    operand = node.args[0]
    value = tensor_of(operand) if isinstance(operand, fx.Node) else None
    if not graph.batch.dynamic:
        return 0
    if value is None or value.batch is None:
        raise NotBuiltError(
            f"the input of {op!r} has no batch dimension, so all samples of a batch share it, while a chip multiplies "
            "it anew for every sample. Give that input a batch dimension, compute the operation before the network, "
            f"keep it digital (a rule for {op!r}), or compile with batch_dim=None"
        )
    return 0 if isinstance(graph.called(node), RecurrentModule) else value.batch
