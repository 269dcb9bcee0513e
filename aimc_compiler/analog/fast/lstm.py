"""A long short-term memory whose products run on tiles: the input products of all steps at once, then the recurrence.

The samples of a batch do not meet, so each thread takes some of them through all steps. Gates are sums of two products,
each with converters and noise of its own; the cell is digital, in float32.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from aimc_compiler.analog.fast.product import FastPart, Numbering, RowRunner, run_rows
from aimc_compiler.analog.fast.space import memory
from aimc_compiler.analog.pool import spread
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.records import record


@record
class Gates:
    """A matrix of 4 units outputs (gates i, f, g, o) with its digital factors: ``FastMatrix.scaled``."""

    parts: tuple[FastPart, ...]
    settings: MvmSettings
    first_call: int = 0


def run_lstm(
    x: Tensor, h: Tensor, c: Tensor, inputs: Gates, recurrent: Gates, first_sample: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of all steps and the last h and c. x: (samples, steps, features); h, c: (samples, units).

    Step t of a sample is MVM ``first_call + t`` of each of the two matrices. Raises NotFiniteError.
    """
    samples, steps, units = *x.shape[:2], h.shape[1]
    numbering = Numbering(first_sample=first_sample, first_call=inputs.first_call, entries=1)
    rows = x.reshape(samples * steps, -1).contiguous()
    given = run_rows(rows, inputs.parts, 4 * units, steps, inputs.settings, numbering).reshape(samples, steps, -1)
    return run_recurrence(given, h, c, recurrent, first_sample)


def run_recurrence(
    given: Tensor, h: Tensor, c: Tensor, recurrent: Gates, first_sample: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """The same from input products with their biases. given: (samples, steps, 4 units), contiguous."""
    from aimc_compiler.analog.fast import cell

    samples, steps, units = *given.shape[:2], h.shape[1]
    y, h, c = h.new_empty(samples, steps, units), h.clone(), c.clone()
    size = -(-samples // torch.get_num_threads())
    chunks = [(start, min(start + size, samples)) for start in range(0, samples, size)]

    arrays = (y.numpy(), h.numpy(), c.numpy(), given.numpy())

    def work(items: Iterator[tuple[int, int]]) -> None:
        with memory() as held:
            for start, stop in items:
                fed = given.new_empty(stop - start, 4 * units)
                now = Numbering(first_sample=first_sample + start, first_call=recurrent.first_call, entries=1)
                runner = RowRunner(h[start:stop], fed, recurrent.settings, now, 1, held)
                for step in range(steps):
                    runner.first_call = recurrent.first_call + step
                    for part in recurrent.parts:
                        runner.run(part, 0, stop - start)
                    cell.step_cells(*arrays, runner.out, step, start)

    spread(work, chunks)
    return y, h, c
