"""A matrix operation on its tiles: ranges, converters, crossbars, digital scales and partial sums.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods. Of each row block: ``x <- clip(x, -r, r) / r``, the MVM of
``aimc_compiler.analog.mvm`` with the normalised weights ``w = W / s`` in their state at time t, then
``y_i <- y_i r s_i alpha``. Partial sums of row blocks, the output factor and the bias are digital, in floating point.
"""

from math import isfinite, prod

import torch
from torch import Tensor

from aimc_compiler.analog.compensation import compensation_factor
from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.converter import dac
from aimc_compiler.analog.defects import piece_defects
from aimc_compiler.analog.grid import RowBlock, row_blocks
from aimc_compiler.analog.noise import Draw
from aimc_compiler.analog.passes import SlicedBlock, multiply_passes
from aimc_compiler.analog.row_block import block_products, windows_of
from aimc_compiler.analog.settings import MvmSettings, require_built
from aimc_compiler.analog.slices import Slices, signs, stored_states
from aimc_compiler.analog.state import PieceDevices, Streams, devices_figures, tile_drift_factor
from aimc_compiler.analog.traced_drop import require_traceable
from aimc_compiler.chip.spec import DeviceNonidealities, Nonidealities, Tile
from aimc_compiler.errors import AimcError, CalibrationError, DataError
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import Key

_CHUNK_ELEMENTS = 1 << 17


@record
class MatrixState:
    """A matrix at one time. weights: (groups, columns, rows), normalised; alpha: (row blocks, groups, columns).

    stored: (slices, groups, columns, rows), what the cells hold; factors: (slices, row blocks, groups, columns), what
    their outputs count, drift compensation included where there are slices (alpha is 1 then); shift: (row blocks,
    groups, columns), what the sum of inputs counts. ``weights`` is what all of it amounts to, without compensation.
    """

    time_s: float
    recalibrated_s: float
    weights: Tensor
    alpha: Tensor
    stored: Tensor
    factors: Tensor
    shift: Tensor


class MatrixOnTiles:
    """One matrix on the pieces that hold it, on one manufactured chip.

    weight: (groups, columns, rows), row ``channel * places + place`` for convolutions; factor, bias: (groups *
    columns,) or None, digital; pieces: of this matrix alone; seed, chip: name the manufactured chip; dtype: of the
    network; the chip computes in float32, or in float64 to compare with a reference. Raises NotBuiltError where the
    tile asks for what is not modelled, DataError on weights that are not finite.

    ``mvms`` counts the MVMs executed so far: windows times pieces; ``adc_conversions`` their output conversions.
    """

    def __init__(
        self,
        weight: Tensor,
        contraction: Contraction,
        pieces: tuple[Piece, ...],
        tile: Tile,
        nonidealities: Nonidealities,
        *,
        factor: Tensor | None = None,
        bias: Tensor | None = None,
        seed: int = 0,
        chip: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        require_built(tile, nonidealities, pieces[0].tile_type)
        self.name = pieces[0].matrix
        self.contraction = contraction
        self.blocks = row_blocks(pieces, *weight.shape)
        self.settings = MvmSettings.of(tile, nonidealities)
        dtype = torch.promote_types(dtype, torch.float32)
        self.nonidealities = nonidealities
        self.normalised = tile.normalisation == "column"
        self.factor = None if factor is None else factor.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.seed, self.chip = seed, chip
        self.mvms = self.adc_conversions = 0
        weight = weight.detach().to(dtype)
        _require_finite(weight, f"a weight of {self.name!r} is not finite: train or load the network again")
        self.scales = torch.stack([self._scales(weight, block) for block in self.blocks])
        self.target = torch.cat(
            [_rows(weight, block) / scale.unsqueeze(-1) for block, scale in zip(self.blocks, self.scales, strict=True)],
            dim=2,
        )
        self._figures = devices_figures(tile.device, nonidealities.device)
        self._tile = tile
        self._slices = Slices.of(tile.device)
        self._significance = tile.device.significance or (1.0,) * tile.device.pairs
        self._keys: dict[tuple[str, str], Key] = {}
        self._kept: MatrixState | None = None
        self._products: tuple[SlicedBlock, ...] = ()

    def state(self, time_s: float, recalibrated_s: float | None = None) -> MatrixState:
        """The devices and drift compensation at ``time_s`` seconds after programming.

        recalibrated_s: when the tiles were last read for drift compensation; None: at ``time_s``. Raises AimcError on
        a negative or infinite time or a recalibration after ``time_s``. The last state asked for is kept.
        """
        read_s = time_s if recalibrated_s is None else recalibrated_s
        if not (isfinite(time_s) and 0 <= read_s <= time_s):
            raise AimcError(
                f"time {time_s} s with recalibration at {read_s} s: times count from programming, are finite and not "
                "negative, and recalibration comes before the time asked for"
            )
        if self._kept is None or (self._kept.time_s, self._kept.recalibrated_s) != (time_s, read_s):
            self._kept = self._state(time_s, read_s)
            self._products = tuple(self._sliced(block, self._kept) for block in self.blocks)
        return self._kept

    def forward(
        self,
        x: Tensor,
        ranges: Tensor | None = None,
        time_s: float = 0.0,
        *,
        recalibrated_s: float | None = None,
        first_sample: int = 0,
        first_call: int = 0,
        samples: int | None = None,
    ) -> Tensor:
        """The operation's output on the chip at ``time_s``.

        x: (batch, ..., features), or (batch, channels, *spatial), or one entry without batch. ranges: (groups, row
        blocks) input ranges; None only where the tile has normalisation none. samples: how many samples the batch
        entries make up, evenly (default: one each); first_sample: running index of the first; first_call: MVMs of this
        matrix already made for a sample (where several operations share it). Windows count in raster order. Raises
        CalibrationError without ranges, DataError on inputs that are not finite.
        """
        state = self.state(time_s, recalibrated_s)
        used = self._ranges(ranges)
        scales = self.scales * state.alpha * used.T.unsqueeze(-1)
        x = x.to(self.target.dtype)
        _require_finite(x, f"an input of {self.name!r} is not finite, which no converter takes: check the data")
        if x.dim() == self.contraction.sample_axes:
            return self._batched(x[None], used, scales, first_sample, first_call, samples)[0]
        return self._batched(x, used, scales, first_sample, first_call, samples)

    def programming(self) -> dict[int, tuple[int, int]]:
        """Of each tile: pulses of all its devices, and pulses one after another (a row's devices are pulsed together).

        Rows are written one by one; a row takes as many pulses as its slowest device.
        """
        counts: dict[int, tuple[int, int]] = {}
        for block in self.blocks:
            for piece in block.pieces:
                states, _ = self._states(piece)
                pulses = torch.stack([self._devices(piece, s, index).pulses() for index, s in enumerate(states)])
                total, steps = counts.get(piece.tile, (0, 0))
                in_turn = int(pulses.amax(dim=(0, 1, 2, 3)).sum())
                counts[piece.tile] = (total + int(pulses.sum()), steps + in_turn)
        return counts

    @property
    def outputs(self) -> int:
        """Outputs of all groups together."""
        return self.target.shape[0] * self.target.shape[1]

    def to(self, device: torch.device | str) -> "MatrixOnTiles":
        """Move to a device of torch; the state is made again there when it is next asked for."""
        self.target, self.scales = self.target.to(device), self.scales.to(device)
        self.factor = None if self.factor is None else self.factor.to(device)
        self.bias = None if self.bias is None else self.bias.to(device)
        self._kept, self._products = None, ()
        return self

    def _batched(
        self, x: Tensor, ranges: Tensor, scales: Tensor, first_sample: int, first_call: int, samples: int | None
    ) -> Tensor:
        """Outputs of a batch, some entries at a time, so that what an MVM leaves behind stays in the cache."""
        batch = x.shape[0]
        shape = self.contraction.output_shape(tuple(x.shape), self.outputs)
        if not batch:
            return x.new_empty(shape)
        if samples is not None and (samples < 1 or batch % samples):
            raise AimcError(f"{batch} batch entries of {self.name!r} do not make up {samples} samples evenly")
        if self.settings.traces_wires:
            windows = batch * prod(shape[1:]) // self.outputs
            require_traceable(windows, self.target.numel(), x.numel(), self.settings, self.name)
        entries = 1 if samples is None else batch // samples
        chunk = entries * max(1, _CHUNK_ELEMENTS // max(1, entries * prod(shape[1:])))
        parts = []
        for start in range(0, batch, chunk):
            sample = first_sample + start // entries
            draw = Draw(keys=(), columns=(), first_sample=sample, first_call=first_call, entries=entries)
            parts.append(self._chunk(x[start : start + chunk], ranges, scales, draw))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(shape)

    def _chunk(self, x: Tensor, ranges: Tensor, scales: Tensor, draw: Draw) -> Tensor:
        """Outputs of some batch entries. scales: (row blocks, groups, columns), all digital factors of a row block."""
        contraction, settings, groups = self.contraction, self.settings, self.target.shape[0]
        total: Tensor | None = None
        for block, sliced in zip(self.blocks, self._products, strict=True):
            inputs = contraction.inputs_of(x, groups, block.first_row, block.rows)
            if self.normalised:
                inputs = inputs / contraction.along_inputs(ranges[:, block.index])
            codes = dac(inputs, settings)
            u, conversions = multiply_passes(codes, block, sliced, contraction, settings, self._key, draw)
            self.adc_conversions += conversions
            self.mvms += windows_of(u, self.outputs) * len(block.pieces)
            scale = contraction.along_columns(scales[block.index])
            total = u * scale if total is None else torch.addcmul(total, u, scale)
        assert total is not None
        if self.factor is not None:
            total = total * contraction.along_columns(self.factor.reshape(groups, -1))
        return total if self.bias is None else total + contraction.along_columns(self.bias.reshape(groups, -1))

    def _scales(self, weight: Tensor, block: RowBlock) -> Tensor:
        """(groups, columns): the largest |W| of each column of the block, 1 where that is 0."""
        if not self.normalised:
            return weight.new_ones(weight.shape[:2])
        largest = _rows(weight, block).abs().amax(dim=2)
        return torch.where(largest > 0, largest, torch.ones_like(largest))

    def _ranges(self, ranges: Tensor | None) -> Tensor:
        """(groups, row blocks), checked; ones where the tile does not normalise."""
        shape = (self.target.shape[0], len(self.blocks))
        if not self.normalised:
            return self.target.new_ones(shape)
        if ranges is None:
            raise CalibrationError(
                f"operation {self.name!r} has no input ranges, which this chip's converters need: calibrate with data"
            )
        if tuple(ranges.shape) != shape or not bool((torch.isfinite(ranges) & (ranges > 0)).all()):
            raise CalibrationError(
                f"the input ranges of {self.name!r} must be {shape[0]} x {shape[1]} (groups x row blocks) positive "
                f"numbers, not {tuple(ranges.shape)} from {ranges.min():g}: calibrate again"
            )
        return ranges.to(self.target)

    def _state(self, time_s: float, read_s: float) -> MatrixState:
        slices = self._slices
        stored = self.target.new_empty((len(slices.factors), *self.target.shape))
        alpha = torch.ones_like(self.scales)
        factors = alpha.new_tensor(slices.factors).reshape(-1, 1, 1, 1) * alpha
        shift = torch.full_like(alpha, -slices.offset)
        # Ideal devices do not change between two readings, which would differ in their noise alone: nothing to scale.
        kind = self.nonidealities.drift_compensation if self._figures else "off"
        weights = torch.zeros_like(self.target)
        for block in self.blocks:
            for piece in block.pieces:
                columns = slice(piece.first_column, piece.first_column + piece.columns)
                here = (block.index, piece.group, columns)
                states, flipped = self._states(piece)
                for index in range(len(states)):
                    devices = self._devices(piece, states[index], index)
                    held = devices.at(time_s)
                    _rows(stored[index], block)[piece.group, columns] = held
                    factor = compensation_factor(kind, devices, read_s, piece.tile_row, self.settings)
                    counts = slices.factors[index] * signs(flipped[index]).to(held)
                    _rows(weights, block)[piece.group, columns] += counts.unsqueeze(-1) * held
                    shift[here] += slices.factors[index] * flipped[index].to(held)
                    if slices.plain:
                        alpha[here] = factor
                    else:
                        factors[(index, *here)] = counts * factor
                _rows(weights, block)[piece.group, columns] += shift[here].unsqueeze(-1)
        return MatrixState(
            time_s=time_s,
            recalibrated_s=read_s,
            weights=weights,
            alpha=alpha,
            stored=stored,
            factors=factors,
            shift=shift,
        )

    def _sliced(self, block: RowBlock, state: MatrixState) -> SlicedBlock:
        made = tuple(
            block_products(block, _rows(held, block), self.contraction, self.settings) for held in state.stored
        )
        shift, sums = state.shift[block.index], None
        if bool(shift.any()):
            ones = self.target.new_ones((self.target.shape[0], 1, block.rows))
            sums = self.contraction.kernel_of(ones, block.first_row)
        return SlicedBlock(products=made, factors=state.factors[:, block.index], shift=shift, sums=sums)

    def _states(self, piece: Piece) -> tuple[Tensor, Tensor]:
        """(slices, columns, rows) targets of a piece's cells, and (slices, columns): which columns are flipped."""
        columns = slice(piece.first_column, piece.first_column + piece.columns)
        rows = slice(piece.first_row, piece.first_row + piece.rows)
        states = self._slices.states(self.target[piece.group, columns, rows])
        flipped = self._slices.flipped(states)
        return stored_states(states, flipped), flipped

    def _devices(self, piece: Piece, target: Tensor, index: int) -> PieceDevices:
        name = f"{piece.name}/slice {index}" if index else piece.name
        return PieceDevices(
            target=target,
            streams=Streams(seed=self.seed, chip=self.chip, piece=name),
            effects=self._device_effects(piece),
            figures=self._figures,
            significance=self._significance,
            defects=piece_defects(self.nonidealities.defects, self.seed, self.chip, piece, self._tile, index),
            single=self._slices.offset_column,
        )

    def _device_effects(self, piece: Piece) -> DeviceNonidealities:
        effects = self.nonidealities.device
        if not effects.drift_tile_spread:
            return effects
        factor = tile_drift_factor(effects.drift_tile_spread, self.seed, self.chip, piece.tile)
        return effects.model_copy(update={"drift": effects.drift * factor})

    def _key(self, piece: Piece, purpose: str) -> Key:
        name = (piece.name, purpose)
        if name not in self._keys:
            self._keys[name] = Streams(seed=self.seed, chip=self.chip, piece=piece.name).key(purpose)
        return self._keys[name]


def _require_finite(values: Tensor, message: str) -> None:
    """One pass and no copy. Raises DataError; a NaN is both the least and the largest value."""
    if values.numel() and not all(isfinite(end) for end in torch.aminmax(values.detach())):
        raise DataError(message)


def _rows(weight: Tensor, block: RowBlock) -> Tensor:
    """The rows of a block, of (groups, columns, rows)."""
    return weight[:, :, block.first_row : block.first_row + block.rows]
