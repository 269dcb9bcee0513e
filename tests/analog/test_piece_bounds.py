"""Output converters with a bound for each piece: by hand, against fixed bounds, in both precisions."""

from typing import Any

import pytest
import torch
from analog_chips import STANDARD, effects, pieces, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles, MvmSettings, require_built
from aimc_compiler.analog.fast import missing_units
from aimc_compiler.analog.piece_bounds import PieceBounds
from aimc_compiler.chip.spec import Nonidealities, Tile
from aimc_compiler.errors import CalibrationError, NotBuiltError

LINEAR = Contraction(kind="linear")
CONV = Contraction(kind="conv2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
DEVICE = {"programming_noise": 1, "drift": 1, "accumulated_read_noise": 1}
HOUR = 3600.0


def chip(bound: float | str, mvm: dict[str, Any] | None = None, adc: dict[str, Any] | None = None, **more: Any) -> Tile:
    """8 bits in and out."""
    converter = {"bits": 8, "out_bound": bound, **(adc or {})}
    dac = {"bits": 8, "input_mode": "pulse_width", **more.pop("dac", {})}
    return tile(dac=8, adc=8, bound=1.0).model_validate(
        {**tile(**more).model_dump(by_alias=True), "adc": converter, "dac": dac}
    )


def bounds_of(values: dict[tuple[int, int, int, int], float]) -> PieceBounds:
    return PieceBounds(values=values)


def test_by_hand() -> None:
    """Two columns in two pieces; steps are bound / 127; 2 and 0.35 are beyond their bounds of 1.27 and 0.254."""
    weight = torch.tensor([[[1.0, 1.0], [1.0, -0.75]]])
    held = pieces(1, (2,), (1, 1))
    where = tile(dac="off", adc=8, bound="calibrated")
    bounds = bounds_of({(0, 0, 0, 0): 1.27, (0, 0, 1, 0): 0.254})
    on_tiles = MatrixOnTiles(weight.double(), LINEAR, held, where, effects(), dtype=torch.float64, bounds=bounds)
    x = torch.tensor([[0.5, 0.137], [1.0, 1.0], [0.004, 0.004], [0.8, 0.6]], dtype=torch.float64)
    expected = [
        [0.64, 0.254],  # 0.637 to the nearest 0.01; 0.39725 clipped
        [1.27, 0.25],  # 2 clipped; 0.25 is 125 steps of 0.002
        [0.01, 0.0],  # 0.008; 0.001 is half a step and goes to the even code
        [1.27, 0.254],  # 1.4 clipped; 0.35 clipped
    ]
    y = on_tiles.forward(x, torch.ones(1, 1))
    torch.testing.assert_close(y, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


EVERYTHING = {
    "s_shape": 0.2, "s_shape_std": 0.1, "slope_calibration": 0.3, "r_series": 0.01, "output_asymmetry": 0.05,
    "sigma_out_spread": 0.2,
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "standard": (STANDARD, {}, {}),
    "columns": ({**STANDARD, **EVERYTHING}, {}, {}),
    "s-shape without spread": ({**STANDARD, "s_shape": 0.2}, {}, {}),
    "inl": (STANDARD, {"inl": 3.0}, {}),
    "inl of points": (STANDARD, {"inl": 3.0, "inl_table": [[-1, -0.5], [-0.2, 0.7], [0.6, -1], [1, 0]]}, {}),
    "mismatch": (STANDARD, {"gain_std": 0.05, "offset_std": 0.1, "mismatch_calibrated": True}, {}),
    "stochastic": (STANDARD, {"rounding": "stochastic"}, {}),
    "unclipped": (STANDARD, {"clip": False}, {}),
    "bound management": ({**STANDARD, "bound_management": True}, {}, {}),
    "two passes": ({**STANDARD, "passes": "digital"}, {}, {}),
    "input noise": ({**STANDARD, "sigma_in": 0.02, "input_scaling": "abs_max"}, {}, {}),
    "slices": (STANDARD, {}, {"device": {"slices": 2, "bits_per_slice": 3}}),
    "bit serial": (STANDARD, {}, {"dac": {"input_mode": "bit_serial"}}),
    "offset column": (STANDARD, {"signed": False}, {"device": {"encoding": "offset_column"}}),
}


@pytest.mark.parametrize("contraction", [LINEAR, CONV], ids=["linear", "conv"])
@pytest.mark.parametrize("case", CASES)
def test_one_bound_for_all_is_a_fixed_bound(case: str, contraction: Contraction) -> None:
    """All that goes by the bound follows it: the same outputs as with the number in the spec, with every effect."""
    mvm, adc, more = CASES[case]
    rows = 36 if contraction is CONV else 30
    weight = torch.randn(1, 7, rows, generator=torch.Generator().manual_seed(1)).double() * 0.3
    held = pieces(1, (18, rows - 18), (4, 3), tile_row=5)
    spec = effects(mvm, DEVICE, "column")
    x = torch.rand(6, 4, 5, 5, dtype=torch.float64) if contraction is CONV else torch.randn(40, rows).double()
    every = {(0, row, column, k): 1.7 for row in range(2) for column in range(2) for k in range(2)}
    run = {"dtype": torch.float64, "seed": 3}
    fixed = MatrixOnTiles(weight, contraction, held, chip(1.7, adc=adc, **more), spec, **run)
    own = MatrixOnTiles(
        weight, contraction, held, chip("calibrated", adc=adc, **more), spec, bounds=bounds_of(every), **run
    )
    expected, found = (m.forward(x, torch.full((1, 2), 1.5), HOUR) for m in (fixed, own))
    torch.testing.assert_close(own.state(HOUR).alpha, fixed.state(HOUR).alpha, rtol=0, atol=0)
    # Codes are found over the bound, so that a rounding error can move one in very many.
    off = (found - expected).abs() > 1e-9
    assert float(off.double().mean()) < 2e-3
    assert float(expected.abs().max()) > 1.0


def differing(kind: str) -> tuple[torch.Tensor, Contraction, tuple[Any, ...], dict[tuple[int, int, int, int], float]]:
    rows = 72 if kind == "conv" else 64
    weight = torch.randn(1, 24, rows, generator=torch.Generator().manual_seed(2)) * 0.3
    bounds = {(0, 0, 0, 0): 3.1, (0, 0, 1, 0): 5.7, (0, 1, 0, 0): 1.3, (0, 1, 1, 0): 0.6}
    return weight, CONV if kind == "conv" else LINEAR, pieces(1, (40, rows - 40), (10, 14), tile_row=9), bounds


@pytest.mark.skipif(missing_units() is not None, reason=str(missing_units()))
@pytest.mark.parametrize("compensation", ["tile", "column"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_fast_gives_the_codes_of_exact(kind: str, compensation: str) -> None:
    """With a bound of its own for each of four pieces: all but a few codes agree, and those are neighbours."""
    weight, contraction, held, values = differing(kind)
    x = torch.randn(12, 8, 6, 6) if kind == "conv" else torch.randn(300, 64)
    spec, where = effects(STANDARD, DEVICE, compensation), tile(dac=8, adc=8, bound="calibrated")
    made = [
        MatrixOnTiles(weight, contraction, held, where, spec, precision=p, bounds=bounds_of(values))
        for p in ("exact", "fast")
    ]
    exact, fast = (m.forward(x, torch.full((1, 2), 2.0), HOUR) for m in made)
    assert made[1].choice.precision == "fast", made[1].choice
    torch.testing.assert_close(made[1].state(HOUR).alpha, made[0].state(HOUR).alpha, rtol=1e-5, atol=0)
    scales = made[0].scales * made[0].state(HOUR).alpha * 2.0
    # The larger step of each column, of its two row blocks.
    steps = scales[:, 0] * torch.tensor([[3.1] * 10 + [5.7] * 14, [1.3] * 10 + [0.6] * 14]) / 127
    off = (fast - exact).abs() / contraction.along_columns(steps.amax(dim=0)[None])
    assert float((off > 1e-2).float().mean()) < 0.02
    assert float(off.max()) < 2.1


def test_a_piece_is_read_for_compensation_with_its_own_bound() -> None:
    """A reading clips at the bound: with one far below the weights, nothing seems to have drifted."""
    weight = torch.ones(1, 4, 30)
    held, spec = pieces(1, (30,), (2, 2)), effects({}, {"drift": 1}, "tile")
    bounds = bounds_of({(0, 0, 0, 0): 2.0, (0, 0, 1, 0): 0.1})
    where = tile(dac=8, adc=8, bound="calibrated")
    for precision in ("exact", "fast"):
        on_tiles = MatrixOnTiles(weight, LINEAR, held, where, spec, precision=precision, bounds=bounds)
        alpha = on_tiles.state(86_400.0).alpha[0, 0]
        assert float(alpha[0]) > 1.3
        assert float(alpha[2]) == 1.0


def test_without_bounds_it_does_not_run() -> None:
    where, held = tile(dac=8, adc=8, bound="calibrated"), pieces(1, (5,), (3,))
    x, ranges = torch.ones(2, 5), torch.ones(1, 1)
    bare = MatrixOnTiles(torch.ones(1, 3, 5), LINEAR, held, where, effects())
    with pytest.raises(
        CalibrationError, match=r"piece 'layer/g0/r0/c0/n0' has no output bound, .* calibrate again, or"
    ):
        bare.forward(x, ranges)
    wrong = MatrixOnTiles(
        torch.ones(1, 3, 5), LINEAR, held, where, effects(), bounds=bounds_of({(0, 0, 0, 0): float("nan")})
    )
    with pytest.raises(CalibrationError, match=r"the output bound of piece .* is nan, which is no positive number"):
        wrong.forward(x, ranges)


def test_what_the_bound_scales() -> None:
    """In LSB or shares of the bound: with it. Noise and offsets before the converter: not."""
    spec: Nonidealities = effects({**STANDARD, **EVERYTHING})
    adc = {"inl": 2.0, "offset_std": 0.1}
    own = MvmSettings.of(chip("calibrated", adc=adc), spec)
    assert own.own_bounds
    assert own.at_bound(4.0) == MvmSettings.of(chip(4.0, adc=adc), spec).at_bound(9.0)


def test_scales_by_sums_are_refused() -> None:
    spec = effects({**STANDARD, "input_scaling": "abs_max_sums"})
    require_built(tile(dac=8, adc=8, bound=10.0), spec)
    with pytest.raises(NotBuiltError, match=r"adc.out_bound calibrated with input_scaling abs_max_sums, .* abs_max"):
        require_built(tile(dac=8, adc=8, bound="calibrated"), spec)
