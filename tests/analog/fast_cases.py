"""Operations in ``fast`` precision next to float64, before the output converter rounds."""

from typing import Any

import numpy as np
import torch
from analog_chips import STANDARD, effects, pieces, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast import FastMatrix, missing_units, outputs
from aimc_compiler.analog.fast.matrix import FastMatrix as _FastMatrix

assert FastMatrix is _FastMatrix

UNITS = missing_units()
STEP = 20 / 254
Cuts = tuple[tuple[int, ...], tuple[int, ...]]


def fast(weight: torch.Tensor, contraction: Contraction, cuts: Cuts, mvm: dict[str, Any], **more: Any) -> MatrixOnTiles:
    """Standard converters; devices ideal unless given."""
    device, tile_row, other = more.pop("device", None), more.pop("tile_row", 0), more.pop("other", {})
    held = pieces(weight.shape[0], *cuts, tile_row=tile_row)
    spec = effects({**STANDARD, **mvm}, device, more.pop("compensation", "off"), **other)
    where = tile(dac=more.pop("dac", 8), adc=8, bound=10.0)
    return MatrixOnTiles(weight, contraction, held, where, spec, seed=3, chip=1, precision="fast", **more)


def unrounded(on_tiles: MatrixOnTiles, time_s: float = 0.0) -> MatrixOnTiles:
    """The same with the digits planned for its converter, whose steps are then made 2^13 times finer."""
    prepared = on_tiles._prepare_fast(time_s, None)
    assert prepared is not None, on_tiles.choice
    for part in prepared._parts:
        part.block.constants[outputs.STEP] = STEP / 2**13
        part.block.constants[outputs.LEVELS] = 127 * 2**13
    return on_tiles


def reference(on_tiles: MatrixOnTiles, weight: torch.Tensor, cuts: Cuts, mvm: dict[str, Any], **more: Any) -> Any:
    """float64 without an output converter; runs with the same streams."""
    held = pieces(weight.shape[0], *cuts, tile_row=more.pop("tile_row", 0))
    where = tile(dac=more.pop("dac", 8), adc="off", bound=10.0)
    return MatrixOnTiles(
        weight.double(), on_tiles.contraction, held, where, effects({**STANDARD, **mvm}), seed=3, chip=1,
        dtype=torch.float64, **{k: v.double() for k, v in more.items()},
    )  # fmt: skip


def weights(groups: int, columns: int, rows: int, seed: int = 0) -> torch.Tensor:
    """(groups, columns, rows) normal weights of deviation 0.246 held to 1, the largest of each column 1."""
    w = (torch.randn(groups, columns, rows, generator=torch.Generator().manual_seed(seed)) * 0.246).clamp(-1, 1)
    return w / w.abs().amax(dim=2, keepdim=True)


def steps_off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference in ADC steps; both in units of normalised outputs."""
    return float(np.abs(found.double().numpy() - expected.numpy()).max()) / STEP
