"""The loop of a long short-term memory on tiles, in one kernel where its matrix runs in ``fast``."""

from torch import Tensor

from aimc_compiler.analog.fast import NotFiniteError
from aimc_compiler.analog.fast.lstm import Gates, run_recurrence
from aimc_compiler.analog.matrix import MatrixOnTiles
from aimc_compiler.errors import DataError


def lstm_on_tiles(
    tiles: MatrixOnTiles,
    given: Tensor,
    h: Tensor,
    c: Tensor,
    ranges: Tensor | None,
    time_s: float,
    *,
    recalibrated_s: float | None = None,
    first_sample: int = 0,
    first_call: int = 0,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Outputs of all steps and the last h and c; None where ``tiles``, the recurrent matrix, runs in ``exact``.

    given: (samples, steps, 4 units), the input products with their biases; h, c: (samples, units); the rest as of
    ``MatrixOnTiles.forward``. Step t of a sample is its MVM ``first_call + t``. Raises DataError on values that are not
    finite.
    """
    parts = tiles.fast_parts(ranges, time_s, recalibrated_s) if given.shape[0] else None
    if parts is None:
        return None
    gates = Gates(parts=parts, settings=tiles.settings, first_call=first_call)
    rows, first, kept = (state.detach().to(tiles.target.dtype).contiguous() for state in (given, h, c))
    try:
        y, h, c = run_recurrence(rows, first, kept, gates, first_sample)
    except NotFiniteError:
        raise DataError(f"an input of {tiles.name!r} is not finite, which no converter takes: check the data") from None
    windows = given.shape[0] * given.shape[1]
    tiles.mvms += windows * sum(len(block.pieces) for block in tiles.blocks)
    tiles.adc_conversions += windows * tiles.outputs * len(tiles.blocks)
    return y.to(given), h.to(given), c.to(given)
