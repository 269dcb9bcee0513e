"""Running the row blocks of an operation with integer products: linear layers by rows, convolutions by windows.

Entries are worked off in chunks, each small enough that the sums of its products stay in the cache until the fused
pass has read them; chunks are spread over torch's threads. Sums are exact integers and everything after them is done
element by element, so the result depends on neither chunks nor threads.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.fast.block import FastBlock
from aimc_compiler.analog.fast.shape import Strip, WindowShape, strips
from aimc_compiler.analog.fast.space import Memory, memory
from aimc_compiler.analog.pool import spread
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.records import record
from aimc_compiler.rng import Key

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_ROWS_A_CHUNK = 128


@record
class FastPart:
    """One row block of one group. index: of the row block; first_row: of it in the matrix; table: the block's with its
    digital factors; keys, columns: output noise streams of its pieces, side by side; part: FIRST and LAST flags."""

    block: FastBlock
    index: int
    group: int
    groups: int
    first_row: int
    input_range: float
    table: Floats
    keys: Words
    columns: Ints
    part: int


@record
class Numbering:
    """Window k of entry e of a sample is its MVM ``first_call + e * windows + k``; entries: of one sample."""

    first_sample: int
    first_call: int
    entries: int


def side_by_side(keys: tuple[Key, ...], columns: tuple[int, ...]) -> tuple[Words, Ints]:
    """Streams as the compiled kernels take them."""
    return np.array(keys, np.uint64), np.array(columns, np.int64)


def run_rows(
    x: Tensor, parts: tuple[FastPart, ...], outputs: int, windows: int, settings: MvmSettings, numbering: Numbering
) -> Tensor:
    """A linear layer. x: (entries * windows, features), contiguous; returns (entries * windows, outputs)."""
    out = x.new_empty(x.shape[0], outputs)
    threads = torch.get_num_threads()
    size = max(1, min(_ROWS_A_CHUNK, -(-x.shape[0] // threads)))
    chunks = [(start, min(start + size, x.shape[0])) for start in range(0, x.shape[0], size)]
    calls = windows * numbering.entries

    def work(items: Iterator[tuple[int, int]]) -> None:
        with memory() as held:
            runner = RowRunner(x, out, settings, numbering, calls, held)
            for start, stop in items:
                for part in parts:
                    runner.run(part, start, stop)

    spread(work, chunks)
    return out


class RowRunner:
    """The memory of one thread, and a chunk of rows through one row block.

    x: (entries, features); out: (entries, outputs); calls: MVMs a sample; ``first_call`` may be changed between runs.
    """

    def __init__(
        self, x: Tensor, out: Tensor, settings: MvmSettings, numbering: Numbering, calls: int, held: Memory
    ) -> None:
        from aimc_compiler.analog.fast import inputs, outputs

        self._code, self._finish = inputs.code_rows, outputs.finish_rows
        self.x, self.out = x.numpy(), out.numpy()
        self.first_sample, self.first_call, self.calls = numbering.first_sample, numbering.first_call, calls
        self.step, self.levels = np.float32(settings.dac_step), _levels(settings)
        self.memory = held
        self.scratch = held.of("scratch", (10, out.shape[1] + 8), torch.float32).numpy()

    def run(self, part: FastPart, start: int, stop: int) -> None:
        """Entries ``start`` to ``stop``."""
        block, plan = part.block, part.block.plan
        space = self.memory.space(block, stop - start, by_rows=True)
        flags = self._code(
            space.codes, self.x, start, part.first_row, np.float32(part.input_range), self.step, self.levels,
            plan.far > 0, plan.power,
        )  # fmt: skip
        sums = space.multiply(flags)
        self._finish(
            self.out, sums.main, sums.load, sums.places, sums.high, sums.low, part.table, block.constants, part.keys,
            part.columns, self.first_sample, self.first_call, self.calls, start, part.part, self.scratch,
        )  # fmt: skip


def run_windows(
    x: Tensor,
    parts: tuple[FastPart, ...],
    outputs: int,
    shape: WindowShape,
    settings: MvmSettings,
    numbering: Numbering,
) -> Tensor:
    """A convolution. x: (entries, channels, height, width), contiguous; returns (entries, outputs, height, width)."""
    out = x.new_empty(x.shape[0], outputs, *shape.output)

    def work(items: Iterator[Strip]) -> None:
        with memory() as held:
            runner = _Windows(x, out, shape, settings, numbering, held)
            for strip in items:
                for part in parts:
                    runner.run(part, strip)

    bytes_needed = max(part.block.position_bytes for part in parts)
    spread(work, strips(x.shape[0], shape, torch.get_num_threads(), bytes_needed))
    return out


class _Windows:
    """The memory of one thread, and a strip of windows through one row block."""

    def __init__(
        self,
        x: Tensor,
        out: Tensor,
        shape: WindowShape,
        settings: MvmSettings,
        numbering: Numbering,
        held: Memory,
    ) -> None:
        from aimc_compiler.analog.fast import inputs, outputs

        self._code, self._finish = inputs.code_windows, outputs.finish_planes
        self.x, self.out, self.numbering = x.numpy(), out.numpy(), numbering
        self.size = np.array((*shape.output, numbering.entries), np.int64)
        self.step, self.levels = np.float32(settings.dac_step), _levels(settings)
        self.memory = held
        self._scratch: dict[tuple[int, ...], tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]] = {}

    def run(self, part: FastPart, strip: Strip) -> None:
        block, plan = part.block, part.block.plan
        space = self.memory.space(block, strip.entries * strip.positions, by_rows=False)
        flags = self._code(
            space.codes, *self._codes_of(strip), self.x, strip.first_entry,
            part.group * (self.x.shape[1] // part.groups), part.first_row, strip.numbers,
            np.float32(part.input_range), self.step, self.levels, plan.far > 0, plan.power,
        )  # fmt: skip
        sums = space.multiply(flags)
        self._finish(
            self.out, sums.main, sums.load, sums.places, sums.high, sums.low, part.table, block.constants, part.keys,
            part.columns, self.numbering.first_sample, self.numbering.first_call, self.size, strip.first_entry,
            part.group * block.columns, strip.numbers, part.part, *space.lines,
        )  # fmt: skip

    def _codes_of(self, strip: Strip) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """Scratch for the codes of a channel: a line, and shifted planes."""
        shape = (strip.line, *strip.shifted)
        if shape not in self._scratch:
            line, shifted = self.memory.codes("line", (strip.line,))[0], self.memory.codes("shifted", strip.shifted)
            self._scratch[shape] = (line, shifted)
        return self._scratch[shape]


def _levels(settings: MvmSettings) -> np.float32:
    return np.float32(round(1 / settings.dac_step))
