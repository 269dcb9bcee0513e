"""Windows of convolutions, unfolded, meet their kernels as the convolution itself does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import Contraction
from aimc_compiler.analog.contraction import WindowProduct


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv3d"])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_unfolded_windows_are_those_of_the_convolution(kind: str, data: st.DataObject) -> None:
    count = int(kind[4])

    def draw(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(count))

    contraction = Contraction(kind=kind, kernel=draw(1, 3), stride=draw(1, 3), padding=draw(0, 2), dilation=draw(1, 2))
    sizes = [5 + data.draw(st.integers(0, 3)) for _ in range(count)]
    groups, channels, columns = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), 4
    rows = channels * contraction.places
    first = data.draw(st.integers(0, rows - 1))
    held = data.draw(st.integers(1, rows - first))
    torch.manual_seed(0)
    x = torch.randn(2, groups * channels, *sizes, dtype=torch.float64)
    w = torch.randn(groups, columns, held, dtype=torch.float64)
    inputs = contraction.inputs_of(x, groups, first, held)
    expected = contraction.multiply(inputs, contraction.kernel_of(w, first))
    windows = contraction.unfold(inputs, first, held)
    found = contraction.from_windows(WindowProduct().multiply(windows, w), inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
