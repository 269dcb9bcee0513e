"""The model of one tile written a second time: float64, one vector at a time, straight from the equations.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods. Nothing here is shared with the package but its keyed normals.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog import MvmSettings, Streams
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.rng import normals

Array = npt.NDArray[np.float64]


def tile_mvm(w: Array, x: Array, j0: int, settings: MvmSettings, z: Array, z_in: Array) -> Array:
    """w: (out, in); x: (in,), divided by its range; z: (out,) and z_in: (in,) normals."""
    rows = len(x)
    if settings.dac_step:
        x = settings.dac_step * np.rint(x / settings.dac_step)
    x = np.minimum(np.maximum(x, -settings.in_bound), settings.in_bound)
    x = x + settings.sigma_in * z_in
    outputs = np.empty(len(w))
    for i in range(len(w)):
        u = sum(w[i, j] * x[j] for j in range(rows))
        load = sum(abs(w[i, j]) * abs(x[j]) for j in range(rows))
        q = rows / settings.g_ratio * load
        c = 0.05 * q**3 - 0.2 * q**2 + 0.5 * q
        far = sum(w[i, j] * x[j] * (1 - (1 - j / rows) ** 2) for j in range(rows))
        dropped = u - settings.ir_drop * c * far - settings.ir_drop * j0 / settings.g_ratio * load * u
        pcm = settings.read_noise == "pcm"
        power = sum((abs(w[i, j]) if pcm else 1.0) * x[j] ** 2 for j in range(rows))
        outputs[i] = dropped + np.sqrt(settings.sigma_w**2 * power + settings.sigma_out**2) * z[i]
    if settings.adc_step:
        outputs = settings.adc_step * np.rint(outputs / settings.adc_step)
    return np.minimum(np.maximum(outputs, -settings.out_bound), settings.out_bound)


def matrix_outputs(
    weight: Array,
    vectors: Array,
    ranges: Array,
    pieces: tuple[Piece, ...],
    settings: MvmSettings,
    first_sample: int = 0,
) -> Array:
    """(samples, windows, groups, columns) of ideal devices; weight: (groups, columns, rows).

    vectors: (samples, windows, groups, rows), the unfolded inputs; ranges: (groups, row blocks).
    """
    samples, windows, groups, _ = vectors.shape
    y = np.zeros((samples, windows, groups, weight.shape[1]))
    for piece in pieces:
        columns = slice(piece.first_column, piece.first_column + piece.columns)
        rows = slice(piece.first_row, piece.first_row + piece.rows)
        block = weight[piece.group, columns, rows]
        scale = np.abs(block).max(axis=1)
        scale[scale == 0] = 1
        r = ranges[piece.group, piece.row_block]
        streams = Streams(seed=3, chip=1, piece=piece.name)
        shape: Any = (samples, windows)
        z = normals(streams.key("output"), *shape, piece.columns, first_sample).astype(np.float64)
        z_in = normals(streams.key("input"), *shape, piece.rows, first_sample).astype(np.float64)
        for n in range(samples):
            for k in range(windows):
                x = vectors[n, k, piece.group, rows] / r
                out = tile_mvm(block / scale[:, None], x, piece.tile_row, settings, z[n, k], z_in[n, k])
                y[n, k, piece.group, columns] += out * scale * r
    return y


def unfold(x: Array, groups: int, kernel: tuple[int, ...], options: dict[str, tuple[int, ...]]) -> Array:
    """(samples, windows, groups, rows) windows of a 2-D convolution's input (samples, channels, height, width)."""
    pad, stride, dilation = options["padding"], options["stride"], options["dilation"]
    x = np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2))
    reach = [dilation[a] * (kernel[a] - 1) for a in range(2)]
    windows = []
    for top in range(0, x.shape[2] - reach[0], stride[0]):
        for left in range(0, x.shape[3] - reach[1], stride[1]):
            patch = x[:, :, top : top + reach[0] + 1 : dilation[0], left : left + reach[1] + 1 : dilation[1]]
            windows.append(patch.reshape(len(x), groups, -1))
    return np.stack(windows, axis=1)
