"""The model of one tile written a second time: float64, one vector at a time, straight from the equations.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods. Nothing here is shared with the package but its keyed normals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog import MvmSettings, Streams
from aimc_compiler.analog.settings import Points
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.rng import normals, stream_key

Array = npt.NDArray[np.float64]


Draws = Callable[[str, int], Array]


@dataclass(frozen=True)
class Columns:
    """Figures of the columns of a piece, (columns,): written from the words of the model, not from the package."""

    v: Array
    n: Array
    slope: float
    sigma_out: Array
    gain: Array
    offset: Array
    gain_taken_off: Array
    offset_taken_off: Array


def columns_of(piece: Piece, settings: MvmSettings, seed: int, chip: int) -> Columns:
    """One column at a time, from its place on the tile."""

    def draws(purpose: str, shared: bool) -> Array:
        key = stream_key(seed, "chip", chip, "tile", piece.tile, "column", purpose)
        share = settings.columns_per_adc if shared else 1
        places = range(piece.tile_column, piece.tile_column + piece.columns)
        return np.array([normals(key, 1, 1, 1, first_column=place // share)[0, 0, 0] for place in places], np.float64)

    n = np.array([abs(settings.s_shape * (1 + settings.s_shape_std * z)) for z in draws("s-shape", True)])
    gain = 1 + settings.gain_std * draws("gain", True)
    offset = settings.offset_std * draws("offset", True)
    gain_off, offset_off = np.ones_like(gain), np.zeros_like(offset)
    if settings.mismatch_calibrated:
        residual = settings.gain_residual if settings.gain_std else 0.0
        gain_off = gain * (1 + residual * draws("gain residual", True))
        residual = settings.offset_residual if settings.offset_std else 0.0
        offset_off = offset + residual * draws("offset residual", True)
    return Columns(
        v=np.maximum(settings.v_offset_std * draws("voltage offset", False), 0),
        n=n,
        slope=(1 + (n.mean() + settings.r_series) * settings.slope_span) ** 2,
        sigma_out=settings.sigma_out * np.abs(1 + settings.sigma_out_spread * draws("output noise spread", True)),
        gain=gain,
        offset=offset,
        gain_taken_off=gain_off,
        offset_taken_off=offset_off,
    )


def rounded(value: float, step: float, z: float | None) -> float:
    """z: None to round to the nearest, half to even; a standard normal to round by chance."""
    if not step:
        return value
    if z is None:
        return float(step * np.rint(value / step))
    below = np.floor(value / step)
    chance = 0.5 * (1 + erf(z / sqrt(2)))
    return float(step * (below + (chance < value / step - below)))


def bent(value: float, bound: float, curve: tuple[float, ...] | Points) -> float:
    v = min(max(value / bound, -1), 1)
    if isinstance(curve, Points):
        return float(value + np.interp(v, curve.positions, curve.values))
    return value + sum(c * v ** (k + 1) for k, c in enumerate(curve))


def scale_of(x: Array, settings: MvmSettings) -> float:
    largest = float(np.abs(x).max())
    if settings.input_scaling == "constant":
        return settings.scaling_bound or 1.0
    if settings.input_scaling == "abs_max":
        return min(largest, settings.scaling_bound) if settings.scaling_bound else largest
    if settings.input_scaling == "abs_max_sums":
        sums = settings.sum_share * max(x[x > 0].sum(), -x[x < 0].sum())
        limit = 0.25 * largest / settings.dac_step if settings.dac_step else np.inf
        return max(largest, min(limit, sums))
    return 1.0


def tile_mvm(w: Array, x: Array, j0: int, settings: MvmSettings, columns: Columns, draws: Draws) -> Array:
    """w: (out, in); x: (in,), divided by its range; draws: normals of a purpose, this many."""
    a = scale_of(x, settings)
    if a == 0:
        return np.zeros(len(w))
    if not settings.bound_management:
        return a * reading(w, x / a, j0, settings, columns, draws)[0]
    factor, attempt = 1, 0
    while True:
        suffix = f" attempt {attempt}" if attempt else ""

        def again(purpose: str, count: int, suffix: str = suffix) -> Array:
            return draws(purpose + suffix, count)

        y, clipped = reading(w, x / a / factor, j0, settings, columns, again)
        stop = factor > 1000 or (settings.dac_step and factor > 0.25 / settings.dac_step)
        if not clipped or stop:
            return a * factor * y
        factor, attempt = 2 * factor, attempt + 1


def reading(w: Array, x: Array, j0: int, settings: MvmSettings, columns: Columns, draws: Draws) -> tuple[Array, bool]:
    """Outputs of one vector, and whether any was clipped."""
    rows = len(x)
    z = draws("input rounding", rows) if settings.dac_stochastic else [None] * rows
    x = np.array([rounded(x[j], settings.dac_step, z[j]) for j in range(rows)])
    x = np.minimum(np.maximum(x, -settings.in_bound), settings.in_bound)
    x = np.array([bent(value, 1.0, settings.dac_inl) for value in x])
    x = x + settings.sigma_in * draws("input", rows)
    x = np.where(x < 0, x * (1 - settings.input_asymmetry), x)
    if settings.passes == "one":
        u, power = collected(w, x, j0, settings, columns)
        return converted(u, power, settings, columns, draws)
    above, below = np.maximum(x, 0), np.minimum(x, 0)
    u, power = collected(w, above, j0, settings, columns)
    u_below, power_below = collected(w, below, j0, settings, columns)
    if settings.passes == "analog":
        return converted(u + u_below, power + power_below, settings, columns, draws)
    y, clipped = converted(u, power, settings, columns, draws)
    y_below, clipped_below = converted(
        u_below, power_below, settings, columns, lambda purpose, count: draws(f"{purpose} second pass", count)
    )
    return y + y_below, clipped or clipped_below


def collected(w: Array, x: Array, j0: int, settings: MvmSettings, columns: Columns) -> tuple[Array, Array]:
    """Column currents, and the sum that the variance of the read noise goes by."""
    rows, m, rs = len(x), settings.reference_weight, settings.r_series
    outputs, powers = np.empty(len(w)), np.empty(len(w))
    for i in range(len(w)):
        u = sum(w[i, j] * x[j] for j in range(rows))
        load = sum(abs(w[i, j]) * abs(x[j]) for j in range(rows))
        q = rows / settings.g_ratio * load
        c = 0.05 * q**3 - 0.2 * q**2 + 0.5 * q
        far = sum(w[i, j] * x[j] * (1 - (1 - j / rows) ** 2) for j in range(rows))
        u = u - settings.ir_drop * c * far - settings.ir_drop * j0 / settings.g_ratio * load * u
        if m == 0:
            u = (1 - columns.v[i]) * u / (1 + rs * abs(u))
        else:
            r = -m * sum(x)
            u = (1 - columns.v[i]) * (u + r) / (1 + rs * abs(u + r)) - (1 + columns.v[i]) * r / (1 + rs * abs(r))
        pcm = settings.read_noise == "pcm"
        outputs[i] = u
        powers[i] = sum((abs(w[i, j]) if pcm else 1.0) * x[j] ** 2 for j in range(rows))
    return outputs, powers


def converted(u: Array, power: Array, settings: MvmSettings, columns: Columns, draws: Draws) -> tuple[Array, bool]:
    """Noise and converter of each column. Where nothing bends between the two noises they are one Gaussian."""
    bends = settings.s_shape > 0 or settings.slope_span * settings.r_series > 0
    apart = bends or settings.output_asymmetry > 0
    count = len(u)
    z_out = draws("output", count)
    z_read = draws("read", count) if apart else np.zeros(count)
    z_round = draws("output rounding", count)
    y, clipped = np.empty(count), False
    for i in range(count):
        value = u[i]
        if apart:
            value = value + settings.sigma_w * np.sqrt(power[i]) * z_read[i]
            if bends:
                value = columns.slope * value / (1 + columns.n[i] * abs(value))
            value = value * (1 - settings.output_asymmetry) if value < 0 else value
            value = value + columns.sigma_out[i] * z_out[i]
        else:
            value = value + np.sqrt(settings.sigma_w**2 * power[i] + columns.sigma_out[i] ** 2) * z_out[i]
        value = columns.gain[i] * value + columns.offset[i]
        if settings.adc_inl:
            value = bent(value, settings.inl_bound, settings.adc_inl)
        value = rounded(value, settings.adc_step, z_round[i] if settings.adc_stochastic else None)
        clipped = clipped or abs(value) > settings.out_bound
        value = min(max(value, -settings.out_bound), settings.out_bound)
        y[i] = (value - columns.offset_taken_off[i]) / columns.gain_taken_off[i]
    return y, clipped


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
        figures = columns_of(piece, settings, 3, 1)
        for n in range(samples):
            for k in range(windows):

                def draws(purpose: str, count: int, n: int = n, k: int = k, streams: Streams = streams) -> Array:
                    z = normals(streams.key(purpose), 1, 1, count, first_sample + n, k)
                    return z[0, 0].astype(np.float64)

                x = vectors[n, k, piece.group, rows] / r
                out = tile_mvm(block / scale[:, None], x, piece.tile_row, settings, figures, draws)
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
