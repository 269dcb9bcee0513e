"""Activations, column scales and partial sums of few bits: what they hold, and what they move."""

from typing import Any

import numpy as np
import pytest
import torch
from analog_chips import effects, pieces, tile

from aimc_compiler.analog import Contraction, MatrixOnTiles
from aimc_compiler.analog.digital import in_format, integer_scales, send

LINEAR = Contraction(kind="linear")
W = torch.randn(1, 6, 20, generator=torch.Generator().manual_seed(1))
X = torch.randn(30, 20, generator=torch.Generator().manual_seed(2))


def on_tiles(rows: tuple[int, ...] = (12, 8), **digital: Any) -> MatrixOnTiles:
    return MatrixOnTiles(W, LINEAR, pieces(1, rows, (4, 2)), tile(), effects(digital=digital))


def test_activations_are_integers_over_their_range() -> None:
    x = torch.tensor([0.0, 0.5 / 127, 1.5 / 127, -1.0, 3.0])
    assert (send(x, 8) * 127).tolist() == pytest.approx([0, 0, 2, -127, 127])
    ranges = torch.tensor([[1.5, 2.0]])
    codes = [torch.clamp(torch.round(part / r * 7), -7, 7) * r / 7 for part, r in ((X[:, :12], 1.5), (X[:, 12:], 2.0))]
    y = on_tiles(activation_bits=4).forward(X, ranges)
    torch.testing.assert_close(y, torch.cat(codes, dim=1) @ W[0].T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_column_scales_are_integers_that_leave_no_weight_above_one(bits: int) -> None:
    scales = torch.rand(1000, generator=torch.Generator().manual_seed(bits)) + 1e-4
    found = integer_scales(scales, bits)
    steps = found / found.max() * (2**bits - 1)
    np.testing.assert_allclose(steps.numpy(), steps.round().numpy(), rtol=0, atol=1e-4)
    assert float((scales / found).max()) <= 1 + 1e-6
    assert float((found - scales).max()) <= float(scales.max()) / (2**bits - 1) * (1 + 1e-5)
    assert float(found.max()) == pytest.approx(float(scales.max()))


def test_column_scales_are_of_a_piece_and_ideal_devices_give_the_same_outputs() -> None:
    few = on_tiles(column_scale_bits=2)
    for block in few.scales:
        for columns in (block[0, :4], block[0, 4:]):
            steps = columns / columns.max() * 3
            np.testing.assert_allclose(steps.numpy(), steps.round().numpy(), rtol=0, atol=1e-5)
    assert not torch.equal(few.target, on_tiles().target)
    torch.testing.assert_close(few.forward(X, torch.ones(1, 2)), X @ W[0].T, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "dtype"), [("fp16", np.float16), ("bf16", None)])
def test_partial_sums_are_rounded_in_turn(name: str, dtype: Any) -> None:
    held = torch.float16 if dtype else torch.bfloat16
    first, second = X[:, :12] @ W[0, :, :12].T, X[:, 12:] @ W[0, :, 12:].T
    expected = (first.to(held).float() + second.to(held).float()).to(held).float()
    y = on_tiles(partial_sums=name).forward(X, torch.ones(1, 2))
    # A last digit may fall otherwise where the products differ in float32.
    assert float((y == expected).float().mean()) > 0.95
    assert torch.equal(y, y.to(held).float())
    assert not torch.equal(y, on_tiles().forward(X, torch.ones(1, 2)))


def test_one_row_block_has_no_partial_sums() -> None:
    whole = on_tiles((20,), partial_sums="fp16").forward(X, torch.ones(1, 1))
    assert torch.equal(whole, on_tiles((20,)).forward(X, torch.ones(1, 1)))


def test_partial_sums_saturate() -> None:
    assert in_format(torch.tensor([1e6, -1e6]), "fp16").tolist() == [65504.0, -65504.0]
