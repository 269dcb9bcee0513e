"""Drift compensation: reading a tile again and scaling its outputs by how much they have shrunk. Here, one piece of it.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "Drift compensation" (after Joshi et al., Nat. Commun. 11, 2473
(2020)). Right after programming the tile is read with one-hot inputs through the full MVM model,
``ref = mean |y_ij|``; at the time of recalibration again, ``alpha = ref / now``. Both are at least 1e-4.

What is read of the pieces that share a tile is put together in ``tile_readings.py``.

With a one-hot input the MVM has a closed form in each weight, so no product is made: ``u_ij = w_ij``, the IR drop sees
``A = |w_ij|``, the read noise ``|w_ij|``. Input noise reaches all rows, and other effects are not linear: with those
the reading is made as MVMs.
"""

from typing import Literal

import torch
from torch import Tensor

from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.contraction import WindowProduct
from aimc_compiler.analog.converter import adc, dac
from aimc_compiler.analog.ir_drop import drop, positions
from aimc_compiler.analog.models import time_name
from aimc_compiler.analog.mvm import block_weights
from aimc_compiler.analog.noise import Draw, add_output_noise, needs_draw
from aimc_compiler.analog.row_block import read_windows
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.state import PieceDevices, Streams
from aimc_compiler.analog.traced_drop import attenuated, one_hot_loss
from aimc_compiler.records import record
from aimc_compiler.rng import Key

Compensation = Literal["off", "tile", "column", "exact"]

REFERENCE_MIN = 1e-4


@record
class PieceReading:
    """Mean magnitudes of what a piece gave, (columns,) where each column counts alone, else () over all its weights.

    reference: right after programming, or of the ideal weights for "exact"; now: when it was read again.
    """

    reference: Tensor
    now: Tensor


def compensation_factor(
    kind: Compensation,
    devices: PieceDevices,
    recalibrated_s: float,
    tile_row: int,
    settings: MvmSettings,
    figures: ColumnFigures | None = None,
) -> Tensor:
    """alpha of a piece that has its tile for itself: (columns,).

    kind: "tile", one factor; "column", one each; "exact", one factor against the ideal target weights instead of the
    first reading; "off", ones. recalibrated_s: when it was read again, in seconds after programming; tile_row: the
    piece's first row on its tile; figures: what is fixed for its columns, None where they are alike.
    """
    columns = devices.target.shape[0]
    if kind == "off":
        return devices.target.new_ones(columns)
    reading = read_piece(kind, devices, recalibrated_s, tile_row, settings, figures)
    return gain(reading.reference, reading.now).expand(columns)


def read_piece(
    kind: Compensation,
    devices: PieceDevices,
    recalibrated_s: float,
    tile_row: int,
    settings: MvmSettings,
    figures: ColumnFigures | None = None,
    *,
    held: Tensor | None = None,
    reference: Tensor | None = None,
) -> PieceReading:
    """Both readings of a piece; arguments as of ``compensation_factor``, kind not "off".

    held: its weights at ``recalibrated_s``, and reference: of an earlier reading of it, where they are known.
    """

    def read(weights: Tensor, reading: str) -> Tensor:
        return level(one_hot_outputs(weights, devices.streams, reading, tile_row, settings, figures), kind)

    now = read(devices.at(recalibrated_s) if held is None else held, time_name(recalibrated_s))
    if reference is None:
        reference = level(devices.target, kind) if kind == "exact" else read(devices.programmed(), "programming")
    return PieceReading(reference=reference, now=now)


def level(outputs: Tensor, kind: Compensation) -> Tensor:
    """Mean magnitude of (columns, rows) outputs, of each column or of all."""
    magnitude = outputs.abs()
    return magnitude.mean(dim=1) if kind == "column" else magnitude.mean()


def gain(reference: Tensor, now: Tensor) -> Tensor:
    """``reference / now``, of mean magnitudes of any shape."""
    return reference.clamp(min=REFERENCE_MIN) / now.clamp(min=REFERENCE_MIN)


def one_hot_outputs(
    w: Tensor,
    streams: Streams,
    reading: str,
    tile_row: int,
    settings: MvmSettings,
    figures: ColumnFigures | None = None,
) -> Tensor:
    """(columns, rows): outputs y_ij of a tile read with one input on at a time.

    w: (columns, rows), the state that is read; reading: names the noise of this reading.
    """

    def keys_of(purpose: str) -> tuple[Key, ...]:
        return (streams.key("compensation" if purpose == "output" else f"compensation {purpose}", reading),)

    draw = Draw(keys=keys_of("output"), columns=(w.shape[0],), keys_of=keys_of)
    if not settings.reads_in_closed_form:
        return _read_rows(w, draw, tile_row, settings, figures)
    code = dac(w.new_ones(()), settings)
    rows = w.shape[1]
    u = w * code
    if settings.drops_in_weights:
        u = attenuated(w[None], w.new_full((1, w.shape[0]), tile_row), settings)[0] * code
    elif settings.traces_wires:
        u = u - settings.ir_drop * one_hot_loss(w, code, tile_row, settings)
    elif settings.ir_drop:
        load = u.abs()
        u = drop(u, u * positions(rows, w.dtype, w.device), load, rows, settings, w.new_tensor(float(tile_row)))
    if needs_draw(settings):
        normals = draw.normals(1, rows, "sample_column_call", u)[0]
        u = add_output_noise(u, _one_hot_power(w, code, settings), normals, settings)
    return adc(u, settings)


def _one_hot_power(w: Tensor, code: Tensor, settings: MvmSettings) -> Tensor | None:
    if not settings.sigma_w:
        return None
    return (w.abs() if settings.read_noise == "pcm" else torch.ones_like(w)) * code.square()


def _read_rows(
    w: Tensor, draw: Draw, tile_row: int, settings: MvmSettings, figures: ColumnFigures | None = None
) -> Tensor:
    """The reading as MVMs: one window a row."""
    inputs = torch.eye(w.shape[1], dtype=w.dtype, device=w.device)[None, None]
    first_row, product = torch.full((1, w.shape[0]), tile_row), WindowProduct()
    if figures is not None:
        figures = ColumnFigures.combine([figures], lambda tensors: product.along_columns(tensors[0].to(w)[None]))
    weights = block_weights(w[None], 0, first_row, product, settings, figures)
    return read_windows(inputs, weights, settings, draw)[0, 0]
