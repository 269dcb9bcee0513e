"""A matrix in the cells of a manufactured chip: what its devices hold at a time, and what their outputs count."""

import torch
from torch import Tensor

from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.compensation import compensation_factor
from aimc_compiler.analog.defects import piece_defects
from aimc_compiler.analog.fast import age_pieces, ages_fast
from aimc_compiler.analog.fast.pages import empty_pages
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.piece_bounds import NO_BOUNDS, PieceBounds
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.slices import Slices, signs, stored_states
from aimc_compiler.analog.state import PieceDevices, Streams, devices_figures, tile_drift_factor
from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.chip.stored import DeviceNonidealities
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record


@record
class MatrixState:
    """A matrix at one time. weights: (groups, columns, rows), normalised; alpha: (row blocks, groups, columns).

    stored: (slices, groups, columns, rows), what the cells hold; factors: (slices, row blocks, groups, columns), what
    their outputs count, drift compensation included where there are slices (alpha is 1 then); shift: (row blocks,
    groups, columns), what the sum of inputs counts. ``weights`` is what all of it amounts to, without compensation:
    ``stored[0]`` itself where a cell holds the weight.
    """

    time_s: float
    recalibrated_s: float
    weights: Tensor
    alpha: Tensor
    stored: Tensor
    factors: Tensor
    shift: Tensor


@record
class MatrixCells:
    """The cells of one matrix.

    target: (groups, columns, rows) normalised weights; seed, chip: name the chip; fast: take the fused pass over
    devices where it models them; bounds: of the output converters of pieces, where each has its own.
    """

    target: Tensor
    blocks: tuple[RowBlock, ...]
    tile: Tile
    nonidealities: Nonidealities
    settings: MvmSettings
    seed: int
    chip: int
    fast: bool = False
    bounds: PieceBounds = NO_BOUNDS

    @property
    def slices(self) -> Slices:
        """How weights lie in cells."""
        return Slices.of(self.tile.device)

    def at(self, time_s: float, recalibrated_s: float) -> MatrixState:
        """The state at ``time_s`` seconds after programming, with the drift compensation of ``recalibrated_s``."""
        slices, target = self.slices, self.target
        if self.fast and slices.plain:
            aged = self._at_fast(time_s, recalibrated_s)
            if aged is not None:
                return aged
        stored = target.new_empty((len(slices.factors), *target.shape))
        alpha = target.new_ones((len(self.blocks), *target.shape[:2]))
        factors = alpha.new_tensor(slices.factors).reshape(-1, 1, 1, 1) * alpha
        state = MatrixState(
            time_s=time_s,
            recalibrated_s=recalibrated_s,
            weights=stored[0] if slices.plain else torch.zeros_like(target),
            alpha=alpha,
            stored=stored,
            factors=factors,
            shift=torch.full_like(alpha, -slices.offset),
        )
        for block in self.blocks:
            for piece in block.pieces:
                self._fill(state, block, piece)
        return state

    def _at_fast(self, time_s: float, recalibrated_s: float) -> MatrixState | None:
        """``at``, all pieces in one pass; None where one of them asks for more than that pass models."""
        places = [(block, piece) for block in self.blocks for piece in block.pieces]
        cells = [_cells(block, piece) for block, piece in places]
        devices = [self._devices(piece, self.target[here], 0) for (_, piece), here in zip(places, cells, strict=True)]
        if not all(map(ages_fast, devices)):
            return None
        weights = empty_pages(tuple(self.target.shape), self.target.dtype)
        alpha = self.target.new_ones((len(self.blocks), *self.target.shape[:2]))
        kind = self.nonidealities.drift_compensation
        listed = [
            (held, piece.tile_row, weights[here]) for held, (_, piece), here in zip(devices, places, cells, strict=True)
        ]
        settings = [self.settings_of(piece) for _, piece in places]
        found = age_pieces(listed, kind, time_s, recalibrated_s, settings)
        for (block, _), here, factor in zip(places, cells, found, strict=True):
            alpha[(block.index, *here[:2])] = factor
        return MatrixState(
            time_s=time_s,
            recalibrated_s=recalibrated_s,
            weights=weights,
            alpha=alpha,
            stored=weights[None],
            factors=torch.ones_like(alpha)[None],
            shift=torch.full_like(alpha, -self.slices.offset),
        )

    def bound_of(self, piece: Piece, index: int = 0) -> float:
        """The bound of a slice's output converters where each piece has its own; else 1. Raises CalibrationError."""
        return self.bounds.of(piece, index) if self.settings.own_bounds else 1.0

    def settings_of(self, piece: Piece, index: int = 0) -> MvmSettings:
        """Of a slice of a piece by itself: with its own bound."""
        return self.settings.at_bound(self.bound_of(piece, index))

    def column_figures(self, piece: Piece, index: int = 0) -> ColumnFigures:
        """What is fixed for the columns of a slice of a piece, its own bound included."""
        figures = self._figures_at_bound(piece, index)
        return figures.at_bound(self.bound_of(piece, index), piece.columns) if self.settings.own_bounds else figures

    def _figures_at_bound(self, piece: Piece, index: int) -> ColumnFigures:
        """To go with ``settings_of``."""
        settings, slices = self.settings_of(piece, index), self.tile.device.slices
        return ColumnFigures.of_piece(piece, settings, self.seed, self.chip, index=index, slices=slices)

    def programming(self) -> dict[int, tuple[int, int]]:
        """Of each tile: pulses of all its devices, and pulses one after another (a row's devices are pulsed together).

        Rows are written one by one; a row takes as many pulses as its slowest device.
        """
        counts: dict[int, tuple[int, int]] = {}
        for block in self.blocks:
            for piece in block.pieces:
                states = self.slices.states(self.target[_cells(block, piece)])
                targets = stored_states(states, self.slices.flipped(states))
                pulses = torch.stack([self._devices(piece, held, index).pulses() for index, held in enumerate(targets)])
                total, steps = counts.get(piece.tile, (0, 0))
                in_turn = int(pulses.amax(dim=(0, 1, 2, 3)).sum())
                counts[piece.tile] = (total + int(pulses.sum()), steps + in_turn)
        return counts

    def _fill(self, state: MatrixState, block: RowBlock, piece: Piece) -> None:
        """Put the cells of a piece into the tensors of ``state``."""
        cells = _cells(block, piece)
        here = (block.index, *cells[:2])
        slices, figures = self.slices, devices_figures(self.tile.device, self.nonidealities.device)
        # Ideal devices do not change between two readings, which would differ in their noise alone: nothing to scale.
        kind = self.nonidealities.drift_compensation if figures else "off"
        states = slices.states(self.target[cells])
        flipped = slices.flipped(states)
        for index, target in enumerate(stored_states(states, flipped)):
            devices = self._devices(piece, target, index)
            held = devices.at(state.time_s)
            state.stored[(index, *cells)] = held
            settings, columns_of = self.settings_of(piece, index), self._figures_at_bound(piece, index)
            factor = compensation_factor(kind, devices, state.recalibrated_s, piece.tile_row, settings, columns_of)
            if slices.plain:
                state.alpha[here] = factor
                return
            counts = slices.factors[index] * signs(flipped[index]).to(held)
            state.weights[cells] += counts.unsqueeze(-1) * held
            state.shift[here] += slices.factors[index] * flipped[index].to(held)
            state.factors[(index, *here)] = counts * factor
        state.weights[cells] += state.shift[here].unsqueeze(-1)

    def _devices(self, piece: Piece, target: Tensor, index: int) -> PieceDevices:
        name = f"{piece.name}/slice {index}" if index else piece.name
        device = self.tile.device
        return PieceDevices(
            target=target,
            streams=Streams(seed=self.seed, chip=self.chip, piece=name),
            effects=self._device_effects(piece),
            figures=devices_figures(device, self.nonidealities.device),
            significance=device.significance or (1.0,) * device.pairs,
            defects=piece_defects(self.nonidealities.defects, self.seed, self.chip, piece, self.tile, index),
            single=self.slices.offset_column,
        )

    def _device_effects(self, piece: Piece) -> DeviceNonidealities:
        effects = self.nonidealities.device
        if not effects.drift_tile_spread:
            return effects
        factor = tile_drift_factor(effects.drift_tile_spread, self.seed, self.chip, piece.tile)
        return effects.model_copy(update={"drift": effects.drift * factor})


def _cells(block: RowBlock, piece: Piece) -> tuple[int, slice, slice]:
    """Where a piece stands in (groups, columns, rows)."""
    columns = slice(piece.first_column, piece.first_column + piece.columns)
    return piece.group, columns, slice(block.first_row, block.first_row + block.rows)
