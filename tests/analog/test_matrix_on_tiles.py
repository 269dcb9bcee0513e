"""A matrix on its tiles: exactness without effects, effects one by one, state and noise as functions of their names."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from analog_chips import STANDARD, STANDARD_EFFECTS, effects, pieces, standard_tile, tile
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.errors import AimcError, CalibrationError, DataError, NotBuiltError, VerificationError

LINEAR = Contraction(kind="linear")
CONV = Contraction(kind="conv2d", kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
HOUR, DAY = 3600.0, 86_400.0


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def standard(seed: int = 0, chip: int = 0, matrix: str = "layer") -> MatrixOnTiles:
    """80 x 40 on four tiles, ranges (1, 2)."""
    held = pieces(1, (40, 40), (20, 20), matrix=matrix)
    return MatrixOnTiles(normal(1, 40, 80), LINEAR, held, standard_tile(), STANDARD_EFFECTS, seed=seed, chip=chip)


RANGES = torch.full((1, 2), 2.0)


@pytest.mark.parametrize("kind", ["linear", "conv", "grouped"])
def test_integers_are_exact_on_an_ideal_chip(kind: str) -> None:
    groups = 3 if kind == "grouped" else 1
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-8, 9, (groups, 6, 18), generator=generator).float()
    bias = torch.arange(groups * 6).float()
    shape = (5, 4, 18) if kind == "linear" else (2, groups * 2, 5, 5)
    x = torch.randint(-99, 100, shape, generator=generator).float()
    on_tiles = MatrixOnTiles(
        weight, LINEAR if kind == "linear" else CONV, pieces(groups, (7, 11), (4, 2)),
        tile(normalisation="none"), effects(), bias=bias,
    )  # fmt: skip
    if kind == "linear":
        expected = F.linear(x, weight[0], bias)
    else:
        expected = F.conv2d(x, weight.reshape(-1, 2, 3, 3), bias, padding=1, groups=groups)
    assert torch.equal(on_tiles.forward(x, time_s=DAY), expected)


@settings(max_examples=30, deadline=None)
@given(at=st.integers(1, 79), outputs=st.integers(1, 39), normalised=st.booleans())
def test_everything_off_is_the_float_operation(at: int, outputs: int, normalised: bool) -> None:
    """1e-6 relative to the largest output, against float64."""
    weight, x, factor, bias = normal(1, 40, 80), normal(7, 80, seed=1), normal(40, seed=2), normal(40, seed=3)
    where = tile(normalisation="column" if normalised else "none")
    held = pieces(1, (at, 80 - at), (outputs, 40 - outputs))
    on_tiles = MatrixOnTiles(weight, LINEAR, held, where, effects(), factor=factor, bias=bias)
    y = on_tiles.forward(x, torch.tensor([[0.3, 4.0]]))
    exact = (x.double() @ weight[0].double().T) * factor.double() + bias.double()
    assert float((y - exact).abs().max() / exact.abs().max()) < 1e-6


def test_float64_is_kept() -> None:
    weight, x = normal(1, 4, 8, dtype=torch.float64), normal(3, 8, seed=1, dtype=torch.float64)
    on_tiles = MatrixOnTiles(weight, LINEAR, pieces(1, (8,), (4,)), tile(), effects(), dtype=torch.float64)
    torch.testing.assert_close(on_tiles.forward(x, torch.ones(1, 1)), x @ weight[0].T, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("tile_keys", "mvm", "device", "changes"),
    [
        ({}, {"range_clip": True}, {}, True),
        ({"dac": 8}, {}, {}, True),
        ({}, {"sigma_in": 0.01}, {}, True),
        ({}, {"ir_drop": 1.0}, {}, True),
        ({}, {"sigma_w": 0.01}, {}, True),
        ({}, {"sigma_out": 0.01}, {}, True),
        ({"adc": 8, "bound": 100.0}, {}, {}, True),
        ({"bound": 0.5}, {}, {}, True),
        ({}, {}, {"programming_noise": 1}, True),
        ({}, {}, {"drift": 1}, True),
        ({}, {}, {"accumulated_read_noise": 1}, True),
        ({"bound": 1e6}, {}, {}, False),
        ({}, {"ir_drop": 0, "r_wire": "35 ohm"}, {}, False),
    ],
)
def test_each_effect_alone_changes_outputs(
    tile_keys: dict[str, Any], mvm: dict[str, Any], device: dict[str, Any], changes: bool
) -> None:
    weight, x = normal(1, 40, 80), normal(7, 80, seed=1)
    held, ranges = pieces(1, (80,), (40,)), torch.ones(1, 1)
    plain = MatrixOnTiles(weight, LINEAR, held, tile(), effects())
    changed = MatrixOnTiles(weight, LINEAR, held, tile(**tile_keys), effects(mvm, device))
    assert torch.equal(plain.forward(x, ranges, HOUR), changed.forward(x, ranges, HOUR)) != changes
    assert torch.equal(plain.state(HOUR).weights, changed.state(HOUR).weights) == (not device)


def test_drift_alone_shrinks_every_weight_and_programming_noise_does_not_age() -> None:
    held = pieces(1, (80,), (40,))
    drifting = MatrixOnTiles(normal(1, 40, 80), LINEAR, held, tile(), effects(device={"drift": 1}))
    assert bool((drifting.state(DAY).weights.abs() < drifting.state(HOUR).weights.abs()).all())
    torch.testing.assert_close(drifting.state(0.0).weights, drifting.target)
    noisy = MatrixOnTiles(normal(1, 40, 80), LINEAR, held, tile(), effects(device={"programming_noise": 1}))
    assert torch.equal(noisy.state(HOUR).weights, noisy.state(DAY).weights)


def test_a_factor_scales_an_effect() -> None:
    held = pieces(1, (80,), (40,))

    def moved(factor: float) -> torch.Tensor:
        spec = effects(device={"programming_noise": factor})
        on_tiles = MatrixOnTiles(normal(1, 40, 80).abs() + 1, LINEAR, held, tile(), spec)
        state = on_tiles.state(0.0).weights
        return (state - on_tiles.target)[on_tiles.target > 0.9]

    small, double = moved(1e-3), moved(2e-3)
    # The zero device's half of its draws is cut at zero, which scales too.
    torch.testing.assert_close(double, 2 * small, rtol=1e-2, atol=1e-6)


def test_same_names_same_bytes_and_other_names_another_chip() -> None:
    x = normal(6, 80, seed=1)
    y = standard().forward(x, RANGES, HOUR)
    assert y.numpy().tobytes() == standard().forward(x, RANGES, HOUR).numpy().tobytes()
    for other in (standard(seed=1), standard(chip=1), standard(matrix="other")):
        assert not torch.equal(other.state(HOUR).weights, standard().state(HOUR).weights)
        assert not torch.equal(other.forward(x, RANGES, HOUR), y)


def test_two_reads_at_one_time_differ_in_the_noise_of_the_mvm_alone() -> None:
    x = normal(6, 80, seed=1)
    on_tiles = standard()
    first, before = on_tiles.forward(x, RANGES, HOUR), on_tiles.state(HOUR)
    second = on_tiles.forward(x, RANGES, HOUR, first_sample=6)
    assert on_tiles.state(HOUR) is before
    assert not torch.equal(first, second)
    again = standard()
    quiet = replace(again.settings, sigma_w=0.0, sigma_out=0.0)
    again.settings = quiet
    noise_free = again.forward(x, RANGES, HOUR)
    assert torch.equal(noise_free, again.forward(x, RANGES, HOUR, first_sample=6))


def test_state_does_not_depend_on_the_order_of_times() -> None:
    forwards, backwards = standard(), standard()
    early = [forwards.state(time) for time in (0.0, HOUR, DAY)]
    late = [backwards.state(time) for time in (DAY, HOUR, 0.0)][::-1]
    for one, other in zip(early, late, strict=True):
        assert torch.equal(one.weights, other.weights)
        assert torch.equal(one.alpha, other.alpha)
    assert not torch.equal(early[0].weights, early[1].weights)


def test_devices_of_a_piece_do_not_depend_on_other_pieces() -> None:
    weight = normal(1, 40, 80)
    whole = standard().state(HOUR).weights
    changed = weight.clone()
    changed[:, 20:] += 1
    held = pieces(1, (40, 40), (20, 20))
    other = MatrixOnTiles(changed, LINEAR, held, standard_tile(), STANDARD_EFFECTS).state(HOUR).weights
    assert torch.equal(whole[:, :20], other[:, :20])
    assert not torch.equal(whole[:, 20:], other[:, 20:])


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4), convolution=st.booleans())
def test_noise_does_not_depend_on_the_batch(cuts: list[int], convolution: bool) -> None:
    """Zero inputs leave the noise alone, which is equal to the byte; other inputs differ by rounding of float32."""
    batch, spec = sum(cuts), effects({"sigma_out": 0.04, "sigma_w": 0.1, "ir_drop": 1.0})
    weight = normal(1, 6, 18)
    contraction = CONV if convolution else LINEAR
    on_tiles = MatrixOnTiles(weight, contraction, pieces(1, (9, 9), (4, 2)), tile(), spec)
    x = normal(batch, 2, 4, 5, seed=2) if convolution else normal(batch, 3, 18, seed=2)
    for inputs, same in ((torch.zeros_like(x), True), (x, False)):
        whole = on_tiles.forward(inputs, torch.ones(1, 2), first_sample=11)
        parts, start = [], 0
        for size in cuts:
            part = inputs[start : start + size]
            parts.append(on_tiles.forward(part, torch.ones(1, 2), first_sample=11 + start))
            start += size
        joined = torch.cat(parts)
        assert torch.equal(whole, joined) if same else torch.allclose(whole, joined, rtol=0, atol=1e-5)


def test_internal_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(50, 80, seed=1)
    spec = tile(), effects({"sigma_out": 0.04})
    on_tiles = MatrixOnTiles(normal(1, 40, 80), LINEAR, pieces(1, (40, 40), (40,)), *spec)
    whole = on_tiles.forward(x, RANGES)
    monkeypatch.setattr("aimc_compiler.analog.matrix._CHUNK_ELEMENTS", 300)
    torch.testing.assert_close(on_tiles.forward(x, RANGES), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("convolution", [False, True])
def test_entries_folded_into_a_batch_belong_to_their_sample(convolution: bool) -> None:
    """Six entries that make up two samples have the noise of calls 0.. of samples 0 and 1."""
    contraction = CONV if convolution else LINEAR
    on_tiles = MatrixOnTiles(normal(1, 6, 18), contraction, pieces(1, (18,), (6,)), tile(), effects({"sigma_out": 1}))
    x = torch.zeros(6, 2, 2, 3) if convolution else torch.zeros(6, 4, 18)
    windows = 6 if convolution else 4
    folded = on_tiles.forward(x, torch.ones(1, 1), samples=2)
    for entry in range(6):
        alone = on_tiles.forward(x[:1], torch.ones(1, 1), first_sample=entry // 3, first_call=entry % 3 * windows)
        assert torch.equal(folded[entry], alone[0])
    with pytest.raises(AimcError, match="6 batch entries of 'layer' do not make up 4 samples evenly"):
        on_tiles.forward(x, torch.ones(1, 1), samples=4)


def test_one_entry_without_batch() -> None:
    linear = MatrixOnTiles(normal(1, 6, 18), LINEAR, pieces(1, (18,), (6,)), tile(), effects({"sigma_out": 1}))
    conv = MatrixOnTiles(normal(1, 6, 18), CONV, pieces(1, (18,), (6,)), tile(), effects({"sigma_out": 1}))
    for on_tiles, x in ((linear, normal(18, seed=1)), (conv, normal(2, 4, 4, seed=1))):
        assert torch.equal(on_tiles.forward(x, torch.ones(1, 1)), on_tiles.forward(x[None], torch.ones(1, 1))[0])


def test_executed_mvms_are_counted() -> None:
    on_tiles = MatrixOnTiles(normal(3, 6, 18), CONV, pieces(3, (9, 9), (4, 2)), tile(), effects())
    on_tiles.forward(normal(2, 6, 5, 4, seed=1), torch.ones(3, 2))
    assert on_tiles.mvms == 2 * (5 * 4) * (3 * 2 * 2)


def test_outputs_are_differentiable_where_the_formula_is() -> None:
    """Derivatives against finite differences: all but the rounding of converters and the read noise, a constant."""
    spec = effects({**STANDARD, "sigma_w": 0, "sigma_in": 0.01, "ir_drop": 50.0})
    for contraction, shape in ((LINEAR, (2, 18)), (CONV, (1, 2, 3, 3))):
        on_tiles = MatrixOnTiles(
            normal(1, 3, 18, dtype=torch.float64), contraction, pieces(1, (7, 11), (3,)), tile(bound=100.0), spec,
            dtype=torch.float64,
        )  # fmt: skip
        x = normal(*shape, seed=3, dtype=torch.float64).requires_grad_()
        ranges = torch.full((1, 2), 5.0, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x, run=on_tiles, r=ranges: run.forward(x, r), (x,))


def test_missing_or_wrong_ranges_are_errors() -> None:
    x = normal(2, 80)
    with pytest.raises(CalibrationError, match=r"'layer' has no input ranges.*calibrate"):
        standard().forward(x)
    with pytest.raises(CalibrationError, match=r"1 x 2 .groups x row blocks. positive"):
        standard().forward(x, torch.ones(2, 1))
    with pytest.raises(CalibrationError, match="calibrate again"):
        standard().forward(x, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("time_s", "read_s"),
    [(-1.0, None), (1.0, 2.0), (1.0, -1.0), (float("nan"), None), (float("inf"), None), (1.0, float("nan"))],
)
def test_impossible_times_are_errors(time_s: float, read_s: float | None) -> None:
    with pytest.raises(AimcError, match="times count from programming"):
        standard().state(time_s, read_s)


def test_minus_zero_is_the_time_zero() -> None:
    assert torch.equal(standard().state(-0.0).weights, standard().state(0.0).weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_errors(value: float) -> None:
    """Clipping would turn an infinite input into the input range."""
    x = normal(3, 80)
    x[1, 7] = value
    with pytest.raises(DataError, match="an input of 'layer' is not finite"):
        standard().forward(x, RANGES)
    weight = normal(1, 40, 80)
    weight[0, 3, 4] = value
    with pytest.raises(DataError, match="a weight of 'layer' is not finite"):
        MatrixOnTiles(weight, LINEAR, pieces(1, (80,), (40,)), standard_tile(), STANDARD_EFFECTS)


@pytest.mark.parametrize("samples", [None, 0])
@pytest.mark.parametrize("convolution", [False, True])
def test_an_empty_batch_has_an_empty_output(convolution: bool, samples: int | None) -> None:
    contraction, shape = (CONV, (0, 2, 4, 5)) if convolution else (LINEAR, (0, 3, 18))
    on_tiles = MatrixOnTiles(normal(1, 6, 18), contraction, pieces(1, (18,), (6,)), tile(), effects({"sigma_out": 1}))
    y = on_tiles.forward(torch.zeros(shape), torch.ones(1, 1), samples=samples)
    assert y.shape == ((0, 6, 4, 5) if convolution else (0, 3, 6))
    assert on_tiles.mvms == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_networks_meet_the_chip_in_float32(dtype: torch.dtype) -> None:
    """Converters and devices do not lose resolution with the dtype of the network."""
    weight, x = normal(1, 40, 80).to(dtype), normal(3, 80, seed=1).to(dtype)
    held = pieces(1, (40, 40), (20, 20))
    narrow = MatrixOnTiles(weight, LINEAR, held, standard_tile(), STANDARD_EFFECTS, dtype=dtype)
    wide = MatrixOnTiles(weight.float(), LINEAR, held, standard_tile(), STANDARD_EFFECTS)
    assert torch.equal(narrow.forward(x, RANGES), wide.forward(x.float(), RANGES))


def test_the_state_over_g_max_does_not_depend_on_g_max() -> None:
    """The deviations of the fits scale with g_max."""
    weight, held = normal(1, 40, 80), pieces(1, (80,), (40,))
    states = [
        MatrixOnTiles(weight, LINEAR, held, standard_tile(device={"g_max": g_max}), STANDARD_EFFECTS).state(HOUR)
        for g_max in ("25 uS", "50 uS")
    ]
    assert torch.equal(states[0].weights, states[1].weights)


def test_pieces_that_do_not_hold_the_matrix_are_errors() -> None:
    weight, where = normal(1, 40, 80), (tile(), effects())
    held = pieces(1, (40, 40), (20, 20))
    cases = [held[:-1], held[2:], (*held, replace(held[0], group=1)), pieces(1, (40,), (40,)), pieces(1, (80,), (39,))]
    for wrong in cases:
        with pytest.raises(VerificationError):
            MatrixOnTiles(weight, LINEAR, wrong, *where)
    with pytest.raises(NotBuiltError, match="'layer' is replicated"):
        MatrixOnTiles(weight, LINEAR, (*held, replace(held[0], replica=1)), *where)
