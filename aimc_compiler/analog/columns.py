"""What is fixed for each column of a manufactured chip: voltage offsets, converters that differ from one another.

A column and a converter are places on a physical tile, so their figures are drawn for the tile's columns whatever
stands there: stream (seed, chip, tile, purpose), indexed by the tile's column, or by its converter where
``columns_per_adc`` columns share one. The slices of a weight lie side by side. Offsets v are those of columns; S-shape,
output noise, gain and offset those of converters.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import normals, stream_key


@record
class ColumnFigures:
    """Figures of each column, numbers where all columns are alike, tensors in broadcasting shape where they differ.

    voltage_offset: v, a share; bend: n, of the S-shape, per unit of output; slope: F, its calibration; sigma_out:
    output noise; gain, offset: of the converter, its offset in units of the output; gain_measured, offset_measured:
    what its calibration found and the digital side takes off; bound: of the converter, where each piece has its own, in
    units of the output (a tensor then), else 1.
    """

    voltage_offset: Tensor | float
    bend: Tensor | float
    slope: Tensor | float
    sigma_out: Tensor | float
    gain: Tensor | float = 1.0
    offset: Tensor | float = 0.0
    gain_measured: Tensor | float = 1.0
    offset_measured: Tensor | float = 0.0
    bound: Tensor | float = 1.0

    def at_bound(self, bound: float, columns: int) -> "ColumnFigures":
        """Of ``columns`` columns with this bound, made with settings that have it; what goes by it as tensors, since
        other pieces have other bounds."""
        full = torch.full((columns,), bound, dtype=torch.float64)
        return replace(
            self, bound=full, bend=torch.ones_like(full) * self.bend, slope=torch.ones_like(full) * self.slope
        )

    @classmethod
    def nominal(cls, settings: MvmSettings) -> "ColumnFigures":
        """Columns without any spread."""
        return _figures(settings, _alike)

    @classmethod
    def of_piece(
        cls, piece: Piece, settings: MvmSettings, seed: int, chip: int, *, index: int = 0, slices: int = 1
    ) -> "ColumnFigures":
        """Tensors (columns,) in float64 where columns differ; numbers elsewhere. index: of the slice, of ``slices``."""
        places = torch.arange(piece.tile_column, piece.tile_column + piece.columns) * slices + index
        converters = places // settings.columns_per_adc

        def draw(purpose: str) -> Tensor:
            indices = places if purpose == "voltage offset" else converters
            first = int(indices[0])
            key = stream_key(seed, "chip", chip, "tile", piece.tile, "column", purpose)
            values = normals(key, 1, 1, int(indices[-1]) - first + 1, first_column=first)
            return torch.from_numpy(values[0, 0]).to(torch.float64)[indices - first]

        return _figures(settings, draw)

    @staticmethod
    def combine(parts: "list[ColumnFigures]", function: Callable[[list[Tensor]], Tensor]) -> "ColumnFigures":
        """One of several pieces of one tile type: numbers are those of all, tensors are put together."""
        merged: dict[str, Tensor | float] = {}
        for name in ColumnFigures.__dataclass_fields__:
            values: list[Tensor | float] = [getattr(part, name) for part in parts]
            tensors = [value for value in values if isinstance(value, Tensor)]
            merged[name] = function(tensors) if tensors else values[0]
        return ColumnFigures(**merged)


def _magnitude(values: Tensor | float) -> Tensor | float:
    return values.abs() if isinstance(values, Tensor) else abs(values)


def _alike(purpose: str) -> float:
    return 0.0


def _figures(settings: MvmSettings, draw: Callable[[str], Tensor | float]) -> ColumnFigures:
    """draw: standard normals of a purpose, one a column."""

    def spread(deviation: float, purpose: str) -> Tensor | float:
        return deviation * draw(purpose) if deviation else 0.0

    offset = spread(settings.v_offset_std, "voltage offset")
    bend = settings.s_shape * _magnitude(1 + spread(settings.s_shape_std if settings.s_shape else 0.0, "s-shape"))
    mean = float(bend.mean()) if isinstance(bend, Tensor) else bend
    sigma_out = settings.sigma_out * _magnitude(
        1 + spread(settings.sigma_out_spread if settings.sigma_out else 0.0, "output noise spread")
    )
    gain = 1 + spread(settings.gain_std, "gain")
    shift = spread(settings.offset_std, "offset")
    measured: dict[str, Tensor | float] = {}
    if settings.mismatch_calibrated:
        measured["gain_measured"] = gain * (1 + spread(settings.gain_std and settings.gain_residual, "gain residual"))
        measured["offset_measured"] = shift + spread(
            settings.offset_std and settings.offset_residual, "offset residual"
        )
    slope = (1 + (mean + settings.r_series) * settings.slope_span) ** 2
    return ColumnFigures(
        voltage_offset=offset.clamp(min=0) if isinstance(offset, Tensor) else offset,
        bend=bend,
        slope=torch.full_like(bend, slope) if isinstance(bend, Tensor) else slope,
        sigma_out=sigma_out,
        gain=gain,
        offset=shift,
        **measured,
    )
