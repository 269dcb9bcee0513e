"""The weights of a matrix at one time and its readings for drift compensation, in one fused pass over all devices.

The same model and streams as ``analog/state.py`` and ``analog/compensation.py``, for phase-change memory in pairs
read through the standard MVM. Work is spread over torch's threads, some columns of a piece at a time; readings
are sums of integer codes, so that nothing depends on how.
"""

from collections.abc import Iterator
from dataclasses import fields
from math import log, sqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.compensation import Compensation, PieceReading
from aimc_compiler.analog.models import time_name
from aimc_compiler.analog.pool import spread
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.analog.state import PieceDevices
from aimc_compiler.chip.devices import LogClip, PcmFigures, PowerClip
from aimc_compiler.records import record

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_COLUMNS_AT_ONCE = 32


_MODELLED = frozenset({"target", "streams", "effects", "figures"})
_EFFECTS = frozenset({"programming_noise", "drift", "accumulated_read_noise"})


def ages_fast(devices: PieceDevices) -> bool:
    """Whether these devices are of the kind that is built here, and nothing else is on."""
    figures, effects = devices.figures, devices.effects
    others = (getattr(devices, f.name) == f.default for f in fields(devices) if f.name not in _MODELLED)
    extras = type(effects).model_fields.items()
    return (
        isinstance(figures, PcmFigures)
        and len(figures.programming_us) <= 4
        and devices.target.dtype == torch.float32
        and devices.target.device.type == "cpu"
        and all(others)
        and all(getattr(effects, name) == extra.default for name, extra in extras if name not in _EFFECTS)
    )


@record
class Ageing:
    """What is asked of a piece. devices: such that ``ages_fast`` holds; tile_row: its first row on the tile; weights:
    where to write them, (columns, rows), rows side by side, None: nowhere; reads: whether to read for compensation, and
    settings: by which, those of ``fast``."""

    devices: PieceDevices
    tile_row: int
    weights: Tensor | None
    reads: bool
    settings: MvmSettings


def age_pieces(pieces: list[Ageing], kind: Compensation, time_s: float, read_s: float) -> list[PieceReading | None]:
    """Weights of pieces of a matrix at ``time_s`` and readings at ``read_s``, in seconds after programming.

    Returns each piece's reading in float64, None where none was asked for.
    """
    works = [_Work(piece, kind, time_s, read_s) for piece in pieces]
    items = [(work, first) for work in works if work.passes for first in range(0, work.columns, _COLUMNS_AT_ONCE)]

    def run(taken: Iterator[tuple[_Work, int]]) -> None:
        rows = max(work.rows for work in works)
        space = _Space(rows)
        for work, first in taken:
            work.run(first, min(first + _COLUMNS_AT_ONCE, work.columns), space)

    spread(run, items)
    return [work.reading() for work in works]


class _Space:
    """The scratch memory of one thread."""

    def __init__(self, rows: int) -> None:
        from aimc_compiler.analog.fast import aging

        self._lines = np.empty(aging.SCRATCH_LINES * (rows + 8), np.float32)
        self._rows = np.zeros((2, rows), np.uint64)
        self._rows[0] = np.arange(rows)

    def lines(self, rows: int) -> Floats:
        from aimc_compiler.analog.fast import aging

        count = aging.SCRATCH_LINES
        return self._lines[: count * (rows + 8)].reshape(count, rows + 8)

    def numbers(self, rows: int) -> Words:
        return np.ascontiguousarray(self._rows[:, :rows])


@record
class _Lines:
    """A (columns, rows) part of a tensor for the compiled kernels. shape: where column 0 begins, and the step to the
    next."""

    values: Floats
    shape: tuple[int, int]

    @classmethod
    def of(cls, part: Tensor) -> "_Lines":
        if part.stride(1) != 1:
            part = part.contiguous()
        whole = torch.as_strided(part, (part.untyped_storage().nbytes() // 4,), (1,), 0)
        return cls(values=whole.numpy(), shape=(int(part.storage_offset()), int(part.stride(0))))


class _Work:
    """One piece: its streams and constants, and what comes of it."""

    def __init__(self, piece: Ageing, kind: Compensation, time_s: float, read_s: float) -> None:
        devices = piece.devices
        self.kind, self.devices, self.reads = kind, devices, piece.reads
        self.columns, self.rows = devices.target.shape
        self.target = _Lines.of(devices.target)
        self.weights = self.target if piece.weights is None else _Lines.of(piece.weights)  # read, or written to
        figures = devices.figures
        assert isinstance(figures, PcmFigures)
        self.sums = np.zeros((2, self.columns), np.int64)
        self.step = float(np.float32(piece.settings.adc_step))
        self.fits = _fits(figures, devices.effects.programming_noise, devices.effects.drift)
        stores = piece.weights is not None
        # One pass where weights and reading are of one time, else one for each: (time, store, read).
        apart = [(time_s, True, False)] * stores + [(read_s, False, True)] * piece.reads
        self.passes = [(time_s, True, True)] if len(apart) == 2 and time_s == read_s else apart
        self.ageing = [_ageing(figures, devices.effects.accumulated_read_noise, time) for time, _, _ in self.passes]
        self.keys = [_keys(devices, time) for time, _, _ in self.passes]
        self.constants = _reading(piece.settings, piece.tile_row)

    def run(self, first: int, last: int, space: _Space) -> None:
        from aimc_compiler.analog.fast import aging

        target, weights, rows = self.target, self.weights, self.rows
        for (_, store, read), constants, keys in zip(self.passes, self.ageing, self.keys, strict=True):
            sums = np.zeros((2, last - first), np.int64)
            aging.age_columns(
                weights.values, weights.shape, sums, target.values, target.shape, (self.columns, rows), first, keys,
                self.fits, constants, self.constants, store, read, space.lines(rows), space.numbers(rows),
            )  # fmt: skip
            if read:
                self.sums[:, first:last] = sums

    def reading(self) -> PieceReading | None:
        """Mean magnitudes in float64, of each column or of all."""
        if not self.reads:
            return None
        reference, now = (self._level(sums / self.rows * self.step) for sums in self.sums)
        if self.kind == "exact":
            reference = self.devices.target.abs().double().mean()
        return PieceReading(reference=reference, now=now)

    def _level(self, means: npt.NDArray[np.float64]) -> Tensor:
        """means: (columns,), of each column."""
        return torch.from_numpy(means) if self.kind == "column" else torch.tensor(means.mean(), dtype=torch.float64)


def _fits(figures: PcmFigures, programming: float, drift: float) -> Floats:
    from aimc_compiler.analog.fast import aging

    fits = np.zeros((4, aging.FIELDS), np.float32)
    scaled = [c * programming / figures.g_max_us for c in figures.programming_us]
    fits[aging.PROGRAMMING, aging.C0 : aging.C0 + len(scaled)] = scaled
    fits[aging.NU_MEAN] = _fit(figures.nu_mean, drift)
    fits[aging.NU_SD] = _fit(figures.nu_sd, drift)
    if isinstance(figures.q, LogClip):
        fits[aging.Q] = _fit(figures.q, 1.0)
    return fits


def _fit(fit: LogClip, factor: float) -> Floats:
    polynomial = [*fit.polynomial, 0.0, 0.0, 0.0, 0.0][:4]
    scaled = [factor * value for value in (fit.slope, fit.offset, fit.low, fit.high)]
    threshold = fit.threshold if fit.polynomial else np.inf
    return np.array([*scaled, threshold, *(factor * c for c in polynomial)], np.float32)


def _ageing(figures: PcmFigures, read_noise: float, time_s: float) -> Floats:
    from aimc_compiler.analog.fast import aging

    elapsed = time_s + figures.t0_s
    constants = np.zeros(7, np.float32)
    constants[aging.LOG_TIME] = log(elapsed / figures.t0_s)
    constants[aging.GROWTH] = read_noise * sqrt(log((elapsed + figures.t_read_s) / (2 * figures.t_read_s)))
    constants[aging.POWER_FLOOR] = 1
    if isinstance(figures.q, PowerClip):
        fields = (figures.q.factor, figures.q.exponent, figures.q.floor, figures.q.high, 1.0)
        constants[aging.POWER_FACTOR : aging.IS_POWER + 1] = fields
    return constants


def _keys(devices: PieceDevices, time_s: float) -> Words:
    """In the order of ``aging``'s streams."""
    name, streams = time_name(time_s), devices.streams
    keys = (
        streams.key("programming"),
        streams.key("drift"),
        streams.key("accumulated read noise", name),
        streams.key("compensation", "programming"),
        streams.key("compensation", name),
    )
    return np.array(keys, np.uint64)


def _reading(settings: MvmSettings, tile_row: int) -> Floats:
    from aimc_compiler.analog.fast import aging

    code = np.float32(settings.dac_step) * np.float32(round(1 / settings.dac_step))
    constants = np.zeros(8, np.float32)
    constants[aging.CODE] = code
    constants[aging.IR_DROP] = settings.ir_drop
    constants[aging.PER_WIRE] = 1 / settings.g_ratio
    constants[aging.FIRST_ROW] = tile_row
    constants[aging.READ_VARIANCE] = settings.sigma_w**2 * float(code) ** 2
    constants[aging.VARIANCE] = settings.sigma_out**2
    constants[aging.STEP] = settings.adc_step
    constants[aging.LEVELS] = round(settings.out_bound / settings.adc_step)
    return constants
