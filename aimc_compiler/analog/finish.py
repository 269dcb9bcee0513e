"""What follows the products of the standard model, in one pass over the outputs, on the CPU without gradients.

The operations are those of ``ir_drop.py``, ``noise.py`` and ``converter.py`` in the same order and the same float32;
torch makes them one at a time, twenty passes over memory that together take longer than the products. Everything that
is not the standard model, other devices of torch, float64 and whatever needs gradients goes through those functions.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.noise import Draw
from aimc_compiler.analog.pool import spread_rows
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.records import record
from aimc_compiler.rng import Layout

# Outputs that are worth another thread.
_THREAD_WORTH = 1 << 15


@record
class Sums:
    """Products of a row block: u, with the sums of w p behind those of w along ``columns_axis`` where the wire drops.

    load: sum |w||x|; power: sum |w| x^2; of the shape of the outputs, None where no effect needs them.
    """

    u: Tensor
    load: Tensor | None
    power: Tensor | None


def is_standard(settings: MvmSettings) -> bool:
    """Whether outputs see IR drop by the formula, Gaussian noise and a converter of steps, and nothing else."""
    return bool(
        settings.adc_step
        and not settings.own_bounds
        and settings.signed
        and (settings.read_noise == "pcm" or not settings.sigma_w)
        and not settings.traces_wires
        and not settings.biases_columns
        and not settings.splits_noise
        and not settings.sigma_out_spread
        and not settings.gain_std
        and not settings.offset_std
        and not settings.adc_inl
        and not settings.adc_stochastic
        and not settings.bound_management
        and not settings.input_planes
        and settings.passes == "one"
    )


def runs_here(x: Tensor, kernel: Tensor) -> bool:
    """Whether products of x and these weights can be finished so: on the CPU, in float32, without gradients."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    return not (torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad))


def finish(
    sums: Sums,
    columns: int,
    rows: int,
    first_row: Tensor | None,
    layout: Layout,
    settings: MvmSettings,
    draw: Draw | None,
) -> Tensor:
    """Converted outputs. columns, rows: of a group of the row block; first_row: j0, in broadcasting shape; None: 0.

    layout: whether columns come last or before the windows; draw: None where nothing is drawn.
    """
    main = sums.u.contiguous()
    far_at = columns if settings.drops_by_formula else 0
    groups = 1 if layout == "sample_call_column" else main.shape[1]
    further = np.zeros(groups * columns, np.float32)
    if first_row is not None:
        further[:] = (first_row / settings.g_ratio).reshape(-1).numpy()
    load = main if sums.load is None else sums.load.contiguous()
    power = main if sums.power is None else sums.power.contiguous()
    run = _rows if layout == "sample_call_column" else _planes
    return run(
        _Given(
            sums=(main, load, power),
            columns=columns,
            far_at=far_at,
            further=further,
            constants=_constants(rows, settings),
            draw=draw,
        )
    )


@record
class _Given:
    """What the kernels finish. sums: of w, its load and power; far_at: column of the sums of w p, 0 without; further:
    the offset of the first row, of each column; constants: as of ``_constants``."""

    sums: tuple[Tensor, Tensor, Tensor]
    columns: int
    far_at: int
    further: npt.NDArray[np.float32]
    constants: npt.NDArray[np.float32]
    draw: Draw | None


def _constants(rows: int, settings: MvmSettings) -> npt.NDArray[np.float32]:
    """In the order of ``finish_kernels``."""
    drops = settings.drops_by_formula
    return np.array(
        [
            rows / settings.g_ratio if drops else 0.0,
            settings.ir_drop if drops else 0.0,
            settings.sigma_w**2,
            settings.sigma_out**2,
            settings.adc_step,
            settings.out_bound,
        ],
        np.float32,
    )


def _rows(given: _Given) -> Tensor:
    from aimc_compiler.analog.finish_kernels import finish_rows

    columns = given.columns
    batch, windows = given.sums[0].shape[:2]
    out = given.sums[0].new_empty(batch, windows, columns)
    main, load, power, made = (part.numpy().reshape(batch * windows, -1) for part in (*given.sums, out))
    keys, widths, sample, call, entries = _streams(given.draw)

    def work(items: Iterator[tuple[int, int]]) -> None:
        scratch = np.empty((9, columns + 8), np.float32)
        for first, last in items:
            finish_rows(
                made, main, load, power, given.far_at, given.further, given.constants, keys, widths, sample, call,
                windows * entries, first, last, scratch,
            )  # fmt: skip

    spread_rows(work, batch * windows, out.numel(), _THREAD_WORTH)
    return out


def _planes(given: _Given) -> Tensor:
    from aimc_compiler.analog.finish_kernels import finish_planes

    (batch, groups), spatial = given.sums[0].shape[:2], given.sums[0].shape[3:]
    windows = prod(spatial)
    out = given.sums[0].new_empty(batch, groups, given.columns, *spatial)
    main, load, power, made = (part.flatten(3).numpy() for part in (*given.sums, out))
    keys, widths, sample, call, entries = _streams(given.draw)

    def work(items: Iterator[tuple[int, int]]) -> None:
        numbers, scratch = np.empty((2, windows), np.uint64), np.empty((8, windows), np.float32)
        for first, last in items:
            finish_planes(
                made, main, load, power, given.far_at, given.further, given.constants, keys, widths, sample, call,
                entries, first, last, numbers, scratch,
            )  # fmt: skip

    spread_rows(work, batch, out.numel(), _THREAD_WORTH)
    return out


def _streams(
    draw: Draw | None,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], int, int, int]:
    """Keys and widths as compiled kernels take them, first sample, first call, batch entries of a sample."""
    if draw is None:
        return np.empty(0, np.uint64), np.empty(0, np.int64), 0, 0, 1
    keys, widths = np.array(draw.keys, np.uint64), np.array(draw.columns, np.int64)
    return keys, widths, draw.first_sample, draw.first_call, draw.entries
