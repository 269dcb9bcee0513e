"""A matrix operation on its tiles: ranges, converters, crossbars, digital scales and partial sums.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods. Of each row block: ``x <- clip(x, -r, r) / r``, the MVM of
``aimc_compiler.analog.mvm`` with the normalised weights ``w = W / s`` in their state at time t, then
``y_i <- y_i r s_i alpha``. Partial sums of row blocks, the output factor and the bias are digital, in floating point.
"""

from collections import Counter
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.digital import in_format, send
from aimc_compiler.analog.fast import (
    Choice,
    FastMatrix,
    FastPart,
    NotFiniteError,
    Numbering,
    Precision,
    choose,
)
from aimc_compiler.analog.fast.plan import LARGEST_DEVIATION
from aimc_compiler.analog.full_precision import full_precision
from aimc_compiler.analog.grid import row_blocks
from aimc_compiler.analog.matrix_state import MatrixCells, MatrixState, checked_times
from aimc_compiler.analog.noise import Draw
from aimc_compiler.analog.normalisation import (
    checked_ranges,
    column_scales,
    copied,
    normalised,
    require_finite,
    same_values,
)
from aimc_compiler.analog.piece_bounds import NO_BOUNDS, PieceBounds
from aimc_compiler.analog.row_block import (
    BlockProduct,
    block_products,
    conversions_of,
    multiply_block,
    windows_of,
)
from aimc_compiler.analog.settings import MvmSettings, require_built
from aimc_compiler.analog.slices import Slices
from aimc_compiler.analog.state import Streams
from aimc_compiler.analog.straight_through import tracks
from aimc_compiler.analog.tile_readings import TileReadings
from aimc_compiler.analog.traced_drop import require_traceable
from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.errors import AimcError, DataError
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.rng import Key

_CHUNK_ELEMENTS = 1 << 17
_NOT_FINITE = "an input of {!r} is not finite, which no converter takes: check the data"


class MatrixOnTiles:
    """One matrix on the pieces that hold it, on one manufactured chip.

    weight: (groups, columns, rows), row ``channel * places + place`` for convolutions; factor, bias: (groups *
    columns,) or None, digital; pieces: of this matrix alone; seed, chip: name the manufactured chip; dtype: of the
    network; the chip computes in float32, or in float64 to compare with a reference. Raises NotBuiltError where the
    tile asks for what is not modelled, DataError on weights that are not finite. precision: see ``analog/fast``;
    bounds: of the pieces' output converters, needed to run where ``adc.out_bound`` is calibrated.
    readings: those of its chip, None where no other matrix has pieces on its tiles.

    ``mvms`` counts the MVMs executed so far: windows times pieces; ``adc_conversions`` their output conversions;
    ``repeats``, of each piece, those that bound management repeated beside them.
    ``choice`` is the precision it runs in, and why that is not fast. What it keeps of the last time is for one thread
    at a time.
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
        precision: Precision = "exact",
        bounds: PieceBounds = NO_BOUNDS,
        readings: TileReadings | None = None,
    ) -> None:
        require_built(tile, nonidealities, pieces[0].tile_type)
        self.name = pieces[0].matrix
        self.contraction = contraction
        self.blocks = row_blocks(pieces, *weight.shape)
        self.settings = MvmSettings.of(tile, nonidealities)
        dtype = torch.promote_types(dtype, torch.float32)
        self.nonidealities = nonidealities
        self.normalised = tile.normalisation == "column"
        self.seed, self.chip = seed, chip
        self.mvms = self.adc_conversions = 0
        self.repeats: Counter[Piece] = Counter()
        weight = weight.detach().to(dtype)
        require_finite(weight, f"a weight of {self.name!r} is not finite: train or load the network again")
        self.scales = self._scales(weight)
        self.target = normalised(weight, self.blocks, self.scales)
        self.rescale_outputs(factor, bias)
        self._tile, self._bounds = tile, bounds
        self.slices = Slices.of(tile.device)
        self._keys: dict[tuple[str, str], Key] = {}
        self._kept: MatrixState | None = None
        self._products: tuple[tuple[BlockProduct, ...], ...] = ()
        self._scaled: tuple[Tensor | None, MatrixState, tuple[Tensor, Tensor]] | None = None
        self._asked: Precision = precision
        self.choice = self._choice()
        self._fast: FastMatrix | None = None
        self._fast_at: tuple[float, float] | None = None
        self._alpha = torch.ones_like(self.scales)
        self._readings = TileReadings(pieces) if readings is None else readings
        self._reader = self._new_cells()
        self._readings.add(self.name, self._reader)

    @full_precision
    def state(self, time_s: float, recalibrated_s: float | None = None) -> MatrixState:
        """The devices and drift compensation at ``time_s`` seconds after programming.

        recalibrated_s: when the tiles were last read for drift compensation; None: at ``time_s``. Raises AimcError on
        a negative or infinite time or a recalibration after ``time_s``. The last state asked for is kept.
        """
        times = checked_times(time_s, recalibrated_s)
        if self._kept is None or (self._kept.time_s, self._kept.recalibrated_s) != times:
            with torch.inference_mode(False):  # what is kept may be asked for gradients later
                self._kept = self._cells.at(*times, self._readings)
            self._products, self._scaled = (), None
        return self._kept

    @full_precision
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

        In ``exact``, gradients reach x and ranges: those of the outputs before rounding, noise a constant. ``fast`` has
        none, and raises AimcError where one is asked for. Autocast does not reach in here.
        """
        fast = self._prepare_fast(time_s, recalibrated_s) if self.choice.precision == "fast" else None
        if fast is not None:
            self._require_no_gradient(x, ranges)
            parts = self._fast_parts(fast, ranges)
            return self._forward_fast(fast, x, parts, first_sample, first_call, samples)
        used, scales = self._scaling(ranges, self._prepare(time_s, recalibrated_s))
        x = x.to(self.target.dtype)
        require_finite(x, _NOT_FINITE.format(self.name))
        if x.dim() == self.contraction.sample_axes:
            return self._batched(x[None], used, scales, first_sample, first_call, samples)[0]
        return self._batched(x, used, scales, first_sample, first_call, samples)

    def _require_no_gradient(self, x: Tensor, ranges: Tensor | None) -> None:
        if tracks(x) or (ranges is not None and tracks(ranges)):
            raise AimcError(
                f"a gradient is asked of {self.name!r}, but precision fast computes none: use precision exact, or call "
                "it under torch.no_grad()"
            )

    def _prepare(self, time_s: float, recalibrated_s: float | None) -> MatrixState:
        """The state, its products ready in ``exact``."""
        state = self.state(time_s, recalibrated_s)
        if not self._products:
            figures_of, plain = self._cells.column_figures, self.slices.plain
            with torch.inference_mode(False):
                stored = [state.stored_of(block, plain=plain) for block in self.blocks]
                self._products = tuple(
                    block_products(block, held, self.contraction, self.settings, figures_of)
                    for block, held in zip(self.blocks, stored, strict=True)
                )
        return state

    def _prepare_fast(self, time_s: float, recalibrated_s: float | None) -> FastMatrix | None:
        """The state's digits, which are kept instead of its weights; None where they would not be exact enough."""
        times = checked_times(time_s, recalibrated_s)
        if self._fast_at != times:
            self._fast = self._fast_at = None  # let its memory go first
            state = self._kept if self._products else None
            if state is None or (state.time_s, state.recalibrated_s) != times:
                state = self._cells.at(*times, self._readings)
            bound_of = self._cells.bound_of
            self._fast = FastMatrix(state.weights, self.blocks, self.contraction, self.settings, self._key, bound_of)
            self._fast_at, self._alpha = times, state.alpha
            self._kept, self._products, self._scaled = None, (), None
        assert self._fast is not None
        if self._fast.deviation >= LARGEST_DEVIATION:
            reason = f"rounding weights to digits could move outputs by {self._fast.deviation:.2f} converter steps"
            self.choice = Choice(precision="exact", reason=reason)
            self._fast, self._fast_at = None, None
        return self._fast

    def _forward_fast(
        self,
        fast: FastMatrix,
        x: Tensor,
        parts: tuple[FastPart, ...],
        first_sample: int,
        first_call: int,
        samples: int | None,
    ) -> Tensor:
        single = x.dim() == self.contraction.sample_axes
        batch = (x[None] if single else x).detach().to(self.target.dtype)
        entries = self._entries(batch.shape[0], samples)
        if not batch.shape[0]:
            return x.new_empty(self.contraction.output_shape(tuple(x.shape), self.outputs))
        numbering = Numbering(first_sample=first_sample, first_call=first_call, entries=entries)
        try:
            y = fast.forward(batch, parts, numbering)
        except NotFiniteError:
            raise DataError(_NOT_FINITE.format(self.name)) from None
        self.mvms += y.numel() // self.outputs * sum(len(block.pieces) for block in self.blocks)
        self.adc_conversions += y.numel() * len(self.blocks)
        return y[0] if single else y

    def fast_parts(
        self, ranges: Tensor | None, time_s: float, recalibrated_s: float | None = None
    ) -> tuple[FastPart, ...] | None:
        """Row blocks with their digits and digital factors, for kernels that fuse several matrices; None where this
        matrix runs in ``exact``."""
        fast = self._prepare_fast(time_s, recalibrated_s) if self.choice.precision == "fast" else None
        return None if fast is None else self._fast_parts(fast, ranges)

    def _fast_parts(self, fast: FastMatrix, ranges: Tensor | None) -> tuple[FastPart, ...]:
        """Those of the last ranges are kept: making and checking them takes longer than a small product."""
        kept = fast.kept(ranges, self.factor, self.bias)
        if kept is not None:
            return kept
        used = self._ranges(ranges)
        scales = self.scales * self._alpha * used.T.unsqueeze(-1)
        return fast.scaled(used, scales, self.factor, self.bias, named=ranges)

    def _entries(self, batch: int, samples: int | None) -> int:
        """Batch entries that make up one sample."""
        if samples is None or not batch:
            return 1
        if samples < 1 or batch % samples:
            raise AimcError(f"{batch} batch entries of {self.name!r} do not make up {samples} samples evenly")
        return batch // samples

    def _choice(self) -> Choice:
        if self._asked != "exact" and not self.slices.plain:
            return Choice(precision="exact", reason="weights in slices or offset columns: not built in fast")
        digital = self.nonidealities.digital
        if self._asked != "exact" and (digital.activation_bits, digital.partial_sums) != ("off", "off"):
            return Choice(precision="exact", reason="digital numbers of few bits: not built in fast")
        target, rows = self.target, tuple(block.rows for block in self.blocks)
        shape = (target.shape[0], target.shape[1], rows)
        return choose(self._asked, self.settings, self.contraction, shape, target.dtype, target.device)

    def rescale_outputs(self, factor: Tensor | None, bias: Tensor | None) -> None:
        """Put another digital factor and bias, each (groups * columns,) or None, in place of those in force."""
        with torch.inference_mode(False):  # gradients may pass them later
            own = (None if values is None else values.detach().clone().to(self.target) for values in (factor, bias))
            self.factor, self.bias = own

    def programming(self) -> dict[int, tuple[int, int]]:
        """Of each tile: pulses of all devices, and pulses one after another; see ``MatrixCells``."""
        return self._cells.programming()

    @property
    def outputs(self) -> int:
        """Outputs of all groups together."""
        return self.target.shape[0] * self.target.shape[1]

    def to(self, device: torch.device | str) -> "MatrixOnTiles":
        """Move to a device of torch; the state is made again there when it is next asked for."""
        self.target, self.scales = self.target.to(device), self.scales.to(device)
        self.rescale_outputs(self.factor, self.bias)
        self._kept, self._products, self._fast, self._fast_at, self._scaled = None, (), None, None, None
        self.choice = self._choice()
        former, self._reader = self._reader, self._new_cells()
        self._readings.add(self.name, self._reader, former)
        return self

    def _batched(
        self, x: Tensor, ranges: Tensor, scales: Tensor, first_sample: int, first_call: int, samples: int | None
    ) -> Tensor:
        """Outputs of a batch, some entries at a time, so that what an MVM leaves behind stays in the cache."""
        batch = x.shape[0]
        shape = self.contraction.output_shape(tuple(x.shape), self.outputs)
        if not batch:
            return x.new_empty(shape)
        entries = self._entries(batch, samples)
        if self.settings.traces_wires:
            windows = batch * prod(shape[1:]) // self.outputs
            require_traceable(windows, self.slices.count * self.target.numel(), x.numel(), self.settings, self.name)
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
        digital = self.nonidealities.digital
        for block, products in zip(self.blocks, self._products, strict=True):
            inputs = contraction.inputs_of(x, groups, block.first_row, block.rows)
            if self.normalised:
                inputs = inputs / contraction.along_inputs(ranges[:, block.index])
            if digital.activation_bits != "off":
                inputs = send(inputs, digital.activation_bits)
            u, repeats = multiply_block(inputs, block, products, contraction, settings, self._key, draw)
            # Repeats are made by single pieces alone.
            self.repeats.update({part.pieces[0]: count for part, count in zip(products, repeats, strict=True) if count})
            self.mvms += windows_of(u, self.outputs) * len(block.pieces)
            self.adc_conversions += conversions_of(u, products, settings)
            scale = contraction.along_columns(scales[block.index])
            if digital.partial_sums == "off" or len(self.blocks) == 1:
                total = u * scale if total is None else torch.addcmul(total, u, scale)
            else:
                part = in_format(u * scale, digital.partial_sums)
                total = part if total is None else in_format(total + part, digital.partial_sums)
        assert total is not None
        if self.factor is not None:
            total = total * contraction.along_columns(self.factor.reshape(groups, -1))
        return total if self.bias is None else total + contraction.along_columns(self.bias.reshape(groups, -1))

    def _scales(self, weight: Tensor) -> Tensor:
        """(row blocks, groups, columns); ones where the tile does not normalise."""
        if not self.normalised:
            return weight.new_ones((len(self.blocks), *weight.shape[:2]))
        bits = self.nonidealities.digital.column_scale_bits
        return torch.stack([column_scales(weight, block, bits) for block in self.blocks])

    def _scaling(self, ranges: Tensor | None, state: MatrixState) -> tuple[Tensor, Tensor]:
        """Input ranges, checked, and all digital factors of a row block: (row blocks, groups, columns).

        Those of the last ranges and state are kept: making and checking them takes as long as a small product.
        """
        if ranges is not None and tracks(ranges):
            used = self._ranges(ranges)
            return used, self.scales * state.alpha * used.T.unsqueeze(-1)
        kept = self._scaled
        if kept is not None and kept[1] is state and same_values(ranges, kept[0]):
            return kept[2]
        with torch.inference_mode(False), torch.no_grad():  # what is kept may be asked for gradients later
            own = copied(ranges)
            used = self._ranges(own)
            made = used, self.scales * state.alpha * used.T.unsqueeze(-1)
        self._scaled = own, state, made
        return made

    def _ranges(self, ranges: Tensor | None) -> Tensor:
        """(groups, row blocks), checked; ones where the tile does not normalise."""
        shape = (self.target.shape[0], len(self.blocks))
        if not self.normalised:
            return self.target.new_ones(shape)
        return checked_ranges(ranges, shape, self.name).to(self.target)

    @property
    def _cells(self) -> MatrixCells:
        """Those that read, but for their precision, which may have changed since."""
        fast = self.choice.precision == "fast"
        return self._reader if self._reader.fast == fast else replace(self._reader, fast=fast)

    def _new_cells(self) -> MatrixCells:
        return MatrixCells(
            target=self.target,
            blocks=self.blocks,
            tile=self._tile,
            nonidealities=self.nonidealities,
            settings=self.settings,
            seed=self.seed,
            chip=self.chip,
            fast=self.choice.precision == "fast",
            bounds=self._bounds,
        )

    def _key(self, piece: Piece, purpose: str) -> Key:
        name = (piece.name, purpose)
        if name not in self._keys:
            self._keys[name] = Streams(seed=self.seed, chip=self.chip, piece=piece.name).key(purpose)
        return self._keys[name]
