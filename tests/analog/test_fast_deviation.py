"""How far ``fast`` is from float64 before the output converter rounds: below 0.2 steps for the worst inputs."""

import numpy as np
import pytest
import torch
from fast_cases import STEP, UNITS, fast, reference, steps_off, unrounded, weights

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.fast.plan import LARGEST_DEVIATION

pytestmark = pytest.mark.skipif(UNITS is not None, reason=str(UNITS))

LINEAR = Contraction(kind="linear")
NOISE = {"sigma_out": 0.04, "sigma_w": 0.0175}


def worst_inputs(on_tiles: MatrixOnTiles, w: torch.Tensor) -> torch.Tensor:
    """(cases, rows): plain ones, and for some columns those that add up rounding errors of each digit sum.

    The errors of a column's digits, and the far half against the near half: large currents whose sum the converter
    does not clip, where the IR drop's own errors count most.
    """
    (part,) = on_tiles._fast._parts
    block, rows = part.block, w.shape[2]
    plan, columns = block.plan, block.columns
    digits = block.digits.double().reshape(-1, columns, rows)
    unit = torch.from_numpy(part.table).double() / on_tiles.settings.dac_step
    held = sum(digits[k] * 256.0**-k for k in range(plan.main)) * unit[0][:, None]
    load = digits[plan.main + plan.far] * unit[2][:, None] * on_tiles.settings.g_ratio / rows
    off, off_load = held - w[0], load - w[0].abs()
    cases = [torch.ones(rows), torch.zeros(rows), torch.linspace(-1, 1, rows), torch.linspace(-1, 1, rows).sign()]
    for column in range(0, columns, max(1, columns // 16)):
        sign = w[0, column].sign()
        near = torch.arange(rows) < 0.3 * rows
        balanced = torch.where(near, -sign, sign)
        up = (off_load[column] > 0).double()
        cases += [sign, off[column].sign(), up, 1 - up, balanced, balanced * up, balanced * (1 - up)]
    return torch.stack([case.float() for case in cases])


def on_codes(x: torch.Tensor) -> torch.Tensor:
    """Inputs amid codes: halfway between two, float32 and float64 may take different ones, which is another matter."""
    return (x * 127).round() / 127


@pytest.mark.parametrize("rows", [64, 288, 512])
@pytest.mark.parametrize("tile_row", [0, 200])
@pytest.mark.parametrize("size", [1.0, 0.07])
def test_worst_inputs(rows: int, tile_row: int, size: float) -> None:
    """Every kind of worst input, and random ones, at full range and at small codes."""
    w = weights(1, 64, rows)
    cuts = (rows,), (64,)
    on_tiles = unrounded(fast(w, LINEAR, cuts, NOISE, tile_row=tile_row))
    exact = reference(on_tiles, w, cuts, NOISE, tile_row=tile_row)
    x = torch.cat([worst_inputs(on_tiles, w), torch.rand(64, rows) * 2 - 1, torch.rand(64, rows)])
    x = on_codes(x * size)
    found, expected = on_tiles.forward(x, torch.ones(1, 1)), exact.forward(x, torch.ones(1, 1).double())
    seen = expected.abs() <= 10
    assert float(seen.double().mean()) > 0.5
    bound = on_tiles._fast.deviation
    assert steps_off(found[seen], expected[seen]) < bound < LARGEST_DEVIATION


def test_typical_inputs_are_a_hundredth_of_a_step_away() -> None:
    w, x = weights(1, 512, 512), on_codes(torch.rand(128, 512) * 2 - 1)
    cuts = (512,), (512,)
    on_tiles = unrounded(fast(w, LINEAR, cuts, NOISE))
    expected = reference(on_tiles, w, cuts, NOISE).forward(x, torch.ones(1, 1).double())
    off = (on_tiles.forward(x, torch.ones(1, 1)) - expected)[expected.abs() < 10] / STEP
    assert off.numel() > 5e4
    assert float(off.square().mean().sqrt()) < 0.01
    assert float(off.abs().max()) < 0.05


def test_fast_and_exact_have_the_same_codes_but_for_a_few() -> None:
    """Same normals and, but for rounding, same sums: outputs differ by one code where they do, rarely."""
    device = {"programming_noise": 1, "drift": 1, "accumulated_read_noise": 1}
    w, x = weights(1, 256, 512), torch.rand(400, 512) * 2 - 1
    on_tiles = fast(w, LINEAR, ((512,), (256,)), NOISE, device=device, compensation="tile")
    found = on_tiles.forward(x, torch.ones(1, 1), 3600.0)
    alpha = on_tiles._alpha[0, 0]
    on_tiles._asked = "exact"
    expected = on_tiles.to("cpu").forward(x, torch.ones(1, 1), 3600.0)
    assert on_tiles.choice.precision == "exact"
    codes = ((found - expected) / (alpha * on_tiles.scales[0, 0] * STEP)).abs().numpy()
    np.testing.assert_allclose(codes, codes.round(), atol=1e-3)
    assert codes.max() < 1.5
    assert 0 < (codes > 0.5).mean() < 0.01


@pytest.mark.slow
def test_worst_inputs_of_many_tiles() -> None:
    for seed in range(40):
        w = weights(1, 128, 512, seed)
        on_tiles = unrounded(fast(w, LINEAR, ((512,), (128,)), NOISE))
        exact = reference(on_tiles, w, ((512,), (128,)), NOISE)
        x = on_codes(worst_inputs(on_tiles, w))
        found, expected = on_tiles.forward(x, torch.ones(1, 1)), exact.forward(x, torch.ones(1, 1).double())
        seen = expected.abs() <= 10
        assert steps_off(found[seen], expected[seen]) < on_tiles._fast.deviation
