"""`mvm_error`: how far one full tile is off, effect by effect and all together, over times after programming.

The figure of merit of Rasch et al., Nat. Commun. 14, 5282 (2023), "AIMC MVM error": the mean over input vectors of
``||y - y_ideal|| / ||y_ideal||`` with y the tile's outputs and y_ideal the product in floating point. Weights are
normal with a deviation of 0.246, clipped to 1 and scaled by column; inputs are uniform between -1 and 1.
"""

import statistics
from collections.abc import Sequence
from math import hypot

import torch

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.piece_bounds import NO_BOUNDS, PieceBounds
from aimc_compiler.calibration import OUTPUT_METHOD, OutputObserver, RangeMethod
from aimc_compiler.chip import EFFECTS, ChipSpec, active, only, override
from aimc_compiler.errors import DataError
from aimc_compiler.executor import BoundRow, OutputBounds
from aimc_compiler.mapping import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import cell_normals, stream_key, uniforms
from aimc_compiler.study.recalibration import Recalibration
from aimc_compiler.study.times import require_times

WEIGHT_SD = 0.246


@record
class ErrorRow:
    """The error under some effects. effects: their names in ``EFFECTS``; errors: mean over chips at each time, as a
    fraction; spread: its standard deviation over chips at each time, None for one chip."""

    title: str
    effects: tuple[str, ...]
    errors: tuple[float, ...]
    spread: tuple[float, ...] | None


@record
class MvmErrors:
    """The error of one tile. alone: a row for each effect that is on; together: the chip as it is; uncompensated: the
    same without drift compensation, None where there is none; rows, columns: of the weights on the tile; out_bounds: of
    its output converters where they are calibrated, each slice's, by ``out_method`` on these inputs."""

    chip: str
    tile_type: str
    rows: int
    columns: int
    vectors: int
    n_chips: int
    seed: int
    recalibration: str
    times_s: tuple[float, ...]
    alone: tuple[ErrorRow, ...]
    together: ErrorRow
    uncompensated: ErrorRow | None
    out_method: str | None = None
    out_bounds: tuple[float, ...] = ()

    @property
    def in_quadrature(self) -> tuple[float, ...]:
        """Root of the summed squares of the effects alone, at each time: what independent effects would give."""
        return tuple(hypot(*(row.errors[place] for row in self.alone)) for place in range(len(self.times_s)))


def mvm_error(
    chip: ChipSpec,
    times_s: Sequence[float] | None = None,
    *,
    tile_type: str | None = None,
    n_chips: int = 1,
    vectors: int = 256,
    seed: int = 0,
    recalibration: str | Recalibration = "always",
) -> MvmErrors:
    """Measure a full tile of ``chip``.

    times_s: seconds after programming, the spec's by default; tile_type: of a chip that has several (default: its
    first); n_chips: programmed tiles to average over; vectors: inputs a tile and time; recalibration: when the tile
    is read for drift compensation, see ``Recalibration``. Output bounds that are calibrated are set once,
    by these inputs, and stay for each effect alone. Raises DataError on bad arguments, NotBuiltError where the tile
    asks for what is not modelled.

    Example:
        >>> from aimc_compiler import load_chip
        >>> errors = mvm_error(load_chip("analog-fabric"), times_s=(86_400.0,), vectors=64)
        >>> 0.14 < errors.together.errors[0] < 0.16
        True
    """
    times = require_times(chip.evaluation.times_s if times_s is None else times_s)
    name = _tile_type(chip, tile_type)
    if n_chips < 1 or vectors < 1:
        raise DataError(f"n_chips is {n_chips} and vectors {vectors}: give at least one of each")
    policy = Recalibration.of(recalibration)
    bench = FullTile(chip, name, vectors, n_chips, seed, times, policy)
    on = active(chip)
    kind = chip.nonidealities.drift_compensation
    stale = override(chip, {"nonidealities.drift_compensation": "off"})
    return MvmErrors(
        chip=chip.name,
        tile_type=name,
        rows=bench.weight.shape[1],
        columns=bench.weight.shape[0],
        vectors=vectors,
        n_chips=n_chips,
        seed=seed,
        recalibration=str(policy),
        times_s=times,
        alone=tuple(bench.row(only(chip, [effect]), EFFECTS[effect].title, (effect,)) for effect in on),
        together=bench.row(chip, "all together", on),
        uncompensated=None if kind == "off" else bench.row(stale, "all, without drift compensation", on),
        out_method=OUTPUT_METHOD if bench.bounds else None,
        out_bounds=tuple(row.bound for row in bench.bounds),
    )


class FullTile:
    """One weight matrix that fills the tile, one set of inputs, and what they should give.

    chip: by which output bounds are calibrated, where they are; the rest as of ``mvm_error``.
    """

    def __init__(
        self,
        chip: ChipSpec,
        tile_type: str,
        vectors: int,
        n_chips: int,
        seed: int,
        times_s: tuple[float, ...],
        policy: Recalibration,
    ) -> None:
        tile = chip.tile_types[tile_type]
        rows, columns = tile.weight_rows, tile.weight_columns
        self.tile_type, self.seed, self.n_chips = tile_type, seed, n_chips
        self.times_s, self.policy = times_s, policy
        normals = torch.from_numpy(cell_normals(stream_key(seed, "mvm error", "weights"), columns * rows))
        weight = (normals.reshape(columns, rows) * WEIGHT_SD).clamp(-1, 1)
        self.weight = weight / weight.abs().amax(dim=1, keepdim=True)
        drawn = torch.from_numpy(uniforms(stream_key(seed, "mvm error", "inputs"), vectors * rows))
        self.x = (2 * drawn - 1).to(torch.float32).reshape(vectors, rows)
        self.ideal = self.x.double() @ self.weight.double().T
        self.piece = Piece(
            matrix="mvm_error",
            group=0,
            row_block=0,
            column_block=0,
            first_row=0,
            rows=rows,
            first_column=0,
            columns=columns,
            tile=0,
            tile_type=tile_type,
        )
        self.bounds = self._calibrated(chip)

    def row(self, chip: ChipSpec, title: str, effects: tuple[str, ...]) -> ErrorRow:
        """The error of this tile with the nonidealities of ``chip``."""
        found = list(zip(*(self._errors(chip, index) for index in range(self.n_chips)), strict=True))
        spread = None if self.n_chips == 1 else tuple(statistics.stdev(values) for values in found)
        return ErrorRow(
            title=title, effects=effects, errors=tuple(statistics.fmean(values) for values in found), spread=spread
        )

    def error(self, chip: ChipSpec) -> float:
        """The mean over chips at the first time, with the nonidealities of ``chip``, as a fraction."""
        return self.row(chip, "", ()).errors[0]

    def _errors(self, chip: ChipSpec, index: int) -> tuple[float, ...]:
        """At each time, of one programmed tile."""
        bounds = OutputBounds(method=OUTPUT_METHOD, rows=self.bounds).of("mvm_error")
        on_tile = self._on_tile(chip, index, bounds)
        errors = []
        for time_s in self.times_s:
            y = on_tile.forward(self.x, torch.ones(1, 1), time_s, recalibrated_s=self.policy.last_s(time_s)).double()
            errors.append(float(((y - self.ideal).norm(dim=1) / self.ideal.norm(dim=1)).mean()))
        return tuple(errors)

    def _on_tile(self, chip: ChipSpec, index: int, bounds: PieceBounds = NO_BOUNDS) -> MatrixOnTiles:
        tile, contraction = chip.tile_types[self.tile_type], Contraction(kind="linear")
        return MatrixOnTiles(
            self.weight[None],
            contraction,
            (self.piece,),
            tile,
            chip.nonidealities,
            seed=self.seed,
            chip=index,
            bounds=bounds,
        )

    def _calibrated(self, chip: ChipSpec) -> tuple[BoundRow, ...]:
        """Output bounds by these inputs, one a slice; none where they are fixed."""
        adc = chip.tile_types[self.tile_type].adc
        if adc.out_bound != "calibrated":
            return ()
        observer = OutputObserver(self._on_tile(chip, 0), adc)
        observer.update(self.x, torch.ones(1, 1))
        return tuple(observer.bound_rows("mvm_error", RangeMethod.parse(OUTPUT_METHOD)))


def _tile_type(chip: ChipSpec, name: str | None) -> str:
    names = tuple(chip.tile_types)
    if name is not None and name not in names:
        raise DataError(f"chip {chip.name!r} has no tile type {name!r}: it has {', '.join(names)}")
    return names[0] if name is None else name
