"""Bound management: a tile repeats a multiplication with halved inputs until nothing clips at its output.

Gokmen, Onen, Haensch, Front. Neurosci. 11, 538 (2017); Rasch et al., Nat. Commun. 14, 5282 (2023), Methods. Each tile
repeats by itself, vector by vector: the factor f is 1, 2, 4, ...; the reading of the last one is taken, times f.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from aimc_compiler.analog.settings import MvmSettings

#: No factor follows one above these: the second is over the step of the input converter.
FACTOR_LIMIT = 1000.0
STEP_LIMIT = 0.25


def managed(
    x: Tensor, read: Callable[[Tensor, int], tuple[Tensor, Tensor]], settings: MvmSettings
) -> tuple[Tensor, int]:
    """Outputs (batch, 1, columns, windows) of one tile, times each vector's factor, and how many MVMs it repeated.

    x: (batch, 1, windows, rows), before the DAC; read: outputs of such inputs and (batch, 1, 1, windows)
    whether any of a vector clipped; its second argument is how many readings went before.
    """
    limit = min(FACTOR_LIMIT, STEP_LIMIT / settings.dac_step if settings.dac_step else FACTOR_LIMIT)
    y, clips = read(x, 0)
    factor, attempt, repeats = 1, 0, 0
    while factor <= limit and (clipping := int(clips.sum())):
        factor, attempt, repeats = 2 * factor, attempt + 1, repeats + clipping
        again, still = read(x / factor, attempt)
        y = torch.where(clips, again * factor, y)
        clips = clips & still
    return y, repeats
