"""Drift compensation: reading a tile again and scaling its outputs by how much they have shrunk.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "Drift compensation" (after Joshi et al., Nat. Commun. 11, 2473
(2020)). Right after programming the tile is read with one-hot inputs through the full MVM model,
``ref = mean |y_ij|``; at the time of recalibration again, ``alpha = ref / now``. Both are at least 1e-4.

With a one-hot input the MVM has a closed form in each weight, so no product is made: ``u_ij = w_ij``, the IR drop sees
``A = |w_ij|``, the read noise ``|w_ij|``. Input noise reaches all rows, so there a product is needed.
"""

from typing import Literal

import torch
from torch import Tensor

from aimc_compiler.analog.contraction import WindowProduct
from aimc_compiler.analog.converter import adc, dac
from aimc_compiler.analog.ir_drop import drop, positions
from aimc_compiler.analog.models import time_name
from aimc_compiler.analog.mvm import block_weights, mvm
from aimc_compiler.analog.noise import Draw, add_input_noise, add_output_noise, needs_draw
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.state import PieceDevices, Streams
from aimc_compiler.analog.traced_drop import attenuated, one_hot_loss
from aimc_compiler.rng import Key

Compensation = Literal["off", "tile", "column", "exact"]

REFERENCE_MIN = 1e-4


def compensation_factor(
    kind: Compensation, devices: PieceDevices, recalibrated_s: float, tile_row: int, settings: MvmSettings
) -> Tensor:
    """alpha of a piece: (columns,).

    kind: "tile", one factor; "column", one each; "exact", one factor against the ideal target weights instead of the
    first reading; "off", ones. recalibrated_s: when it was read again, in seconds after programming; tile_row: the
    piece's first row on its tile. A piece is read alone, also where several share a tile.
    """
    columns = devices.target.shape[0]
    if kind == "off":
        return devices.target.new_ones(columns)
    now = one_hot_outputs(devices.at(recalibrated_s), devices.streams, time_name(recalibrated_s), tile_row, settings)
    if kind == "exact":
        reference = devices.target
    else:
        reference = one_hot_outputs(devices.programmed(), devices.streams, "programming", tile_row, settings)
    return (_level(reference, kind) / _level(now, kind)).expand(columns)


def _level(outputs: Tensor, kind: Compensation) -> Tensor:
    """Mean magnitude of (columns, rows) outputs, of each column or of all."""
    magnitude = outputs.abs()
    mean = magnitude.mean(dim=1) if kind == "column" else magnitude.mean()
    return mean.clamp(min=REFERENCE_MIN)


def one_hot_outputs(w: Tensor, streams: Streams, reading: str, tile_row: int, settings: MvmSettings) -> Tensor:
    """(columns, rows): outputs y_ij of a tile read with one input on at a time.

    w: (columns, rows), the state that is read; reading: names the noise of this reading.
    """
    draw = Draw(keys=(streams.key("compensation", reading),), columns=(w.shape[0],))
    if settings.sigma_in:
        return _read_rows(w, draw, streams.key("compensation input", reading), tile_row, settings)
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


def _read_rows(w: Tensor, draw: Draw, input_key: Key, tile_row: int, settings: MvmSettings) -> Tensor:
    """The reading as MVMs: one window a row, all rows noisy."""
    rows = w.shape[1]
    product = WindowProduct()
    x = dac(torch.eye(rows, dtype=w.dtype, device=w.device), settings)
    noise = Draw(keys=(input_key,), columns=(rows,)).normals(1, rows, "sample_call_column", x)
    noisy = add_input_noise(x, noise[0], settings).reshape(1, 1, rows, rows)
    first_row = torch.full((1, w.shape[0]), tile_row)
    return mvm(noisy, block_weights(w[None], 0, first_row, product, settings), product, settings, draw)[0, 0]
