"""A matrix in the cells of a manufactured chip: what its devices hold at a time, and what their outputs count."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor

from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.compensation import Compensation, PieceReading, read_piece
from aimc_compiler.analog.defects import piece_defects
from aimc_compiler.analog.fast import Ageing, age_pieces, ages_fast
from aimc_compiler.analog.fast.pages import empty_pages
from aimc_compiler.analog.grid import RowBlock
from aimc_compiler.analog.piece_bounds import NO_BOUNDS, PieceBounds
from aimc_compiler.analog.row_block import Stored
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.slices import Slices, signs, stored_states
from aimc_compiler.analog.state import PieceDevices, Streams, devices_figures, tile_drift_factor
from aimc_compiler.analog.tile_readings import TileReadings
from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.chip.stored import DeviceNonidealities
from aimc_compiler.errors import AimcError
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

    def stored_of(self, block: RowBlock, *, plain: bool) -> Stored:
        """The cells of a row block; plain: whether a cell holds the weight itself."""
        rows = slice(block.first_row, block.first_row + block.rows)
        if plain:
            return Stored(slices=self.weights[None, :, :, rows])
        return Stored(
            slices=self.stored[..., rows], factors=self.factors[:, block.index], shift=self.shift[block.index]
        )


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

    def at(self, time_s: float, recalibrated_s: float, readings: TileReadings) -> MatrixState:
        """The state at ``time_s`` seconds after programming, with the drift compensation of ``recalibrated_s``.

        readings: those of its chip, where it finds the readings of its neighbours and leaves its own.
        """
        state = self._at_fast(time_s, recalibrated_s, readings)
        if state is None:
            plain = self.slices.plain
            stored = self.target.new_empty((self.slices.count, *self.target.shape))
            weights = stored[0] if plain else torch.zeros_like(self.target)
            state = self._uncompensated(time_s, recalibrated_s, weights, stored)
            for block in self.blocks:
                for piece in block.pieces:
                    self._fill(state, block, piece, readings)
        if self._compensation != "off":
            self._compensate(state, readings)
        return state

    def read(
        self, pieces: Sequence[Piece], recalibrated_s: float, readings: TileReadings
    ) -> list[tuple[PieceReading, ...]]:
        """Readings of pieces for drift compensation, without their weights; see ``tile_readings.Reader``."""
        if self._fast_devices() is not None:
            wanted = [
                Ageing(
                    devices=self._devices_of(piece)[0],
                    tile_row=piece.tile_row,
                    weights=None,
                    reads=True,
                    settings=self.settings_of(piece),
                )
                for piece in pieces
            ]
            found = age_pieces(wanted, self._compensation, recalibrated_s, recalibrated_s)
            return [(reading,) for reading in found if reading is not None]
        return [self._read(piece, self._devices_of(piece), None, recalibrated_s, readings) for piece in pieces]

    @property
    def _compensation(self) -> Compensation:
        """Ideal devices do not change between two readings, which would differ in their noise alone: none then."""
        figures = devices_figures(self.tile.device, self.nonidealities.device)
        return self.nonidealities.drift_compensation if figures else "off"

    def _uncompensated(self, time_s: float, recalibrated_s: float, weights: Tensor, stored: Tensor) -> MatrixState:
        alpha = self.target.new_ones((len(self.blocks), *self.target.shape[:2]))
        return MatrixState(
            time_s=time_s,
            recalibrated_s=recalibrated_s,
            weights=weights,
            alpha=alpha,
            stored=stored,
            factors=alpha.new_tensor(self.slices.factors).reshape(-1, 1, 1, 1) * alpha,
            shift=torch.full_like(alpha, -self.slices.offset),
        )

    def bound_of(self, piece: Piece, index: int = 0) -> float:
        """The bound of a slice's output converters where each piece has its own; else 1. Raises CalibrationError."""
        return self.bounds.of(piece, index) if self.settings.own_bounds else 1.0

    def settings_of(self, piece: Piece, index: int = 0) -> MvmSettings:
        """Of a slice of a piece by itself: with its own bound."""
        return self.settings.at_bound(self.bound_of(piece, index))

    def _compensate(self, state: MatrixState, readings: TileReadings) -> None:
        """Put the factors of the tiles into ``state``."""
        places = [(block, piece) for block in self.blocks for piece in block.pieces]
        readings.complete([piece for _, piece in places], state.recalibrated_s)
        for block, piece in places:
            here = (block.index, *_cells(block, piece)[:2])
            for index in range(self.slices.count):
                factor = readings.factor(piece, index).to(state.alpha)
                if self.slices.plain:
                    state.alpha[here] = factor
                else:
                    state.factors[(index, *here)] *= factor

    def _fast_devices(self) -> list[PieceDevices] | None:
        """The devices of all pieces for the fused pass; None where one of them asks for more than that pass models."""
        if not (self.fast and self.slices.plain):
            return None
        devices = [self._devices_of(piece)[0] for block in self.blocks for piece in block.pieces]
        return devices if all(map(ages_fast, devices)) else None

    def _at_fast(self, time_s: float, recalibrated_s: float, readings: TileReadings) -> MatrixState | None:
        """Weights and readings of all pieces in one pass, without their factors; None where that is not modelled."""
        devices = self._fast_devices()
        if devices is None:
            return None
        places = [(block, piece) for block in self.blocks for piece in block.pieces]
        weights = empty_pages(tuple(self.target.shape), self.target.dtype)
        kind = self._compensation
        asked = [
            Ageing(
                devices=held,
                tile_row=piece.tile_row,
                weights=weights[_cells(block, piece)],
                reads=kind != "off" and readings.asks(piece, recalibrated_s, self),
                settings=self.settings_of(piece),
            )
            for held, (block, piece) in zip(devices, places, strict=True)
        ]
        found = age_pieces(asked, kind, time_s, recalibrated_s)
        for (_, piece), reading in zip(places, found, strict=True):
            if reading is not None:
                readings.keep(piece, recalibrated_s, (reading,))
        return self._uncompensated(time_s, recalibrated_s, weights, weights[None])

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
                pulses = torch.stack([devices.pulses() for devices in self._devices_of(piece)])
                total, steps = counts.get(piece.tile, (0, 0))
                in_turn = int(pulses.amax(dim=(0, 1, 2, 3)).sum())
                counts[piece.tile] = (total + int(pulses.sum()), steps + in_turn)
        return counts

    def _fill(self, state: MatrixState, block: RowBlock, piece: Piece, readings: TileReadings) -> None:
        """Put the cells of a piece into the tensors of ``state``, and read it if it has not been read."""
        cells = _cells(block, piece)
        here = (block.index, *cells[:2])
        slices, read_s = self.slices, state.recalibrated_s
        targets, flipped = self._targets(piece)
        devices = [self._devices(piece, target, index) for index, target in enumerate(targets)]
        held = [each.at(state.time_s) for each in devices]
        if self._compensation != "off" and readings.asks(piece, read_s, self):
            known = held if state.time_s == read_s else None
            readings.keep(piece, read_s, self._read(piece, devices, known, read_s, readings))
        for index, values in enumerate(held):
            state.stored[(index, *cells)] = values
            if slices.plain:
                return
            counts = slices.factors[index] * signs(flipped[index]).to(values)
            state.weights[cells] += counts.unsqueeze(-1) * values
            state.shift[here] += slices.factors[index] * flipped[index].to(values)
            state.factors[(index, *here)] = counts
        state.weights[cells] += state.shift[here].unsqueeze(-1)

    def _read(
        self,
        piece: Piece,
        devices: list[PieceDevices],
        held: list[Tensor] | None,
        read_s: float,
        readings: TileReadings,
    ) -> tuple[PieceReading, ...]:
        """Readings of the slices of a piece in ``exact``. held: the weights at ``read_s``, where they are known."""
        return tuple(
            read_piece(
                self._compensation,
                each,
                read_s,
                piece.tile_row,
                self.settings_of(piece, index),
                self._figures_at_bound(piece, index),
                held=None if held is None else held[index],
                reference=readings.reference(piece, index),
            )
            for index, each in enumerate(devices)
        )

    def _devices_of(self, piece: Piece) -> list[PieceDevices]:
        """The devices of each slice of a piece."""
        return [self._devices(piece, target, index) for index, target in enumerate(self._targets(piece)[0])]

    def _targets(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """(slices, columns, rows), what the cells of a piece are programmed to, and (slices, columns), which columns
        are flipped."""
        states = self.slices.states(self.target[_cells(self.blocks[piece.row_block], piece)])
        flipped = self.slices.flipped(states)
        return stored_states(states, flipped), flipped

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


def checked_times(time_s: float, recalibrated_s: float | None) -> tuple[float, float]:
    """Time and time of recalibration, ``time_s`` where that is None. Raises AimcError as ``MatrixOnTiles.state``."""
    read_s = time_s if recalibrated_s is None else recalibrated_s
    if not (isfinite(time_s) and 0 <= read_s <= time_s):
        raise AimcError(
            f"time {time_s} s with recalibration at {read_s} s: times count from programming, are finite and not "
            "negative, and recalibration comes before the time asked for"
        )
    return time_s, read_s
